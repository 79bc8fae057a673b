"""The part of the composition root with which people register and prove who they are."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from config import Config
from federation.client.errors import BadCaFile
from federation.client.signer import RequestSigner
from homeserver.api.client.auth_pages import CaptchaScript
from homeserver.api.pages import Pages
from homeserver.core.types import JsonObject
from homeserver.outbound import mail
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.outbound.mail import Mailer
from homeserver.parts import Parts
from homeserver.startup import CannotStart
from homeserver.users.contacts import Contacts
from homeserver.users.identity_servers import IdentityServers
from homeserver.users.login import Login
from homeserver.users.registration import RegistrationRules
from homeserver.users.stages import (
    DUMMY,
    EMAIL,
    PASSWORD,
    RECAPTCHA,
    REGISTRATION_TOKEN,
    SSO,
    TERMS,
    DummyStage,
    EmailStage,
    PasswordStage,
    RecaptchaStage,
    RegistrationTokenStage,
    SsoStage,
    TermsStage,
)
from homeserver.users.uia import InteractiveAuth, Stage
from homeserver.users.validation import EmailValidation, ValidationRules
from homeserver.web.limits import MemoryRateLimiter, RateLimiter


def build_limiter(parts: Parts) -> RateLimiter:
    """The limits of this process, or those that all processes keep together."""
    config = parts.config
    alone = parts.services.add(MemoryRateLimiter(config.rate_limits, parts.reactor))
    limiter: RateLimiter = alone
    if config.redis is not None and config.rate_limits.enabled:
        from homeserver.web.shared_limits import PREFIX, SharedRateLimiter
        from storage.redis import RedisAddress

        client = RedisAddress.parse(config.redis.url).client(parts.reactor)
        parts.stops.append(client.close)
        prefix = f"{PREFIX}{config.server_name}:"
        limiter = SharedRateLimiter(config.rate_limits, parts.reactor, client, alone, prefix)
    return parts.services.add_as(RateLimiter, limiter)


def build_validation(parts: Parts, limiter: RateLimiter) -> EmailValidation:
    """What proves e-mail addresses, and the client for web servers.

    Raises CannotStart: a file of certificate authorities cannot be used.
    """
    config, reactor = parts.config, parts.reactor
    try:
        http = parts.services.add(OutgoingHttpClient(reactor, config.outgoing_http))
    except BadCaFile as error:
        raise CannotStart(f"outgoing_http.ca_files: {error}.") from None
    parts.stops.append(http.close)
    mailer = None
    rules = ValidationRules(config.public_base_url or "")
    if config.email is not None:
        try:
            mailer = parts.services.add(Mailer(reactor, config.email, config.server_name))
        except (OSError, ssl.SSLError) as error:
            raise CannotStart(f"email.ca_files: cannot be used: {error}.") from None
        parts.jobs[mail.KIND] = mailer.run
        parts.stops.append(mailer.close)
        rules = ValidationRules(
            rules.base_url,
            int(config.email.link_lifetime),
            tuple(domain.lower() for domain in config.email.allowed_domains),
            config.email.conceal_registered,
        )
    return parts.services.add(
        EmailValidation(
            parts.db,
            reactor,
            rules,
            mailer,
            limit_messages=lambda key: limiter.spend("email", key),
        )
    )


def build_stages(parts: Parts, login: Login) -> Mapping[str, Stage]:
    """The stages of interactive authentication."""
    config, services = parts.config, parts.services
    stages: dict[str, Stage] = {
        DUMMY: DummyStage(),
        PASSWORD: PasswordStage(login),
        REGISTRATION_TOKEN: RegistrationTokenStage(parts.db, parts.reactor),
        EMAIL: EmailStage(services[EmailValidation]),
        TERMS: TermsStage(policies(config)),
        SSO: SsoStage(),
    }
    if config.recaptcha is not None:
        stages[RECAPTCHA] = RecaptchaStage(
            services[OutgoingHttpClient],
            config.recaptcha.verify_url,
            config.recaptcha.public_key,
            config.recaptcha.private_key,
        )
    return stages


def policies(config: Config) -> JsonObject:
    """The documents to accept, as clients are told of them."""
    found: dict[str, Any] = {}
    for terms in config.registration.terms:
        texts = {each.language: {"name": each.title, "url": each.url} for each in terms.texts}
        found[terms.name] = {"version": terms.version, **texts}
    return found


def registration_rules(config: Config) -> RegistrationRules:
    """Who may register."""
    registration = config.registration
    return RegistrationRules(
        enabled=registration.enabled,
        without_verification=registration.without_verification,
        require_token=registration.require_token,
        guests=registration.guests,
        shared_secret=registration.shared_secret,
        terms=bool(registration.terms),
        captcha=config.recaptcha is not None,
        email=config.email is not None,
        require_email=registration.require_email,
    )


def build_contacts(parts: Parts) -> None:
    """What adds addresses to accounts and has them published, and the pages for browsers."""
    config, services = parts.config, parts.services
    signer = RequestSigner(config.server_name, parts.keys[0])
    identity = services.add(
        IdentityServers(services[OutgoingHttpClient], signer, config.identity_servers)
    )
    validation, uia = services[EmailValidation], services[InteractiveAuth]
    services.add(Contacts(parts.db, parts.reactor, validation, identity, uia))
    script = config.recaptcha.script_url if config.recaptcha is not None else ""
    services.add(CaptchaScript(script))
    services.add(Pages(config.server_name))
