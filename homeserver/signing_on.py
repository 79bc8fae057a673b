"""The part of the composition root for people who sign on elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from urllib.parse import urlsplit

from config import Config
from config.model import SignOn
from homeserver.api.client.login import IdentityProvider, LoginSettings
from homeserver.api.client.sso import CALLBACK, SsoPages
from homeserver.core.errors import MatrixError
from homeserver.core.types import JsonObject
from homeserver.enrolling import policies
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.parts import Parts
from homeserver.users.accounts import Accounts
from homeserver.users.appservices import Appservices
from homeserver.users.hooks import UserHooks
from homeserver.users.login import Login
from homeserver.users.sso.cas import CasProvider
from homeserver.users.sso.flow import Known, SignOnRules, SingleSignOn
from homeserver.users.sso.people import Mapping, Provider
from homeserver.users.sso.people_here import PeopleHere
from homeserver.users.uia import InteractiveAuth
from storage import external_ids


def build_sign_on(parts: Parts, refuse_new: Callable[[], MatrixError] | None) -> None:
    """Single sign-on, and what clients are told of logging in."""
    config, services, reactor = parts.config, parts.services, parts.reactor
    add = services.add
    # Providers that the operator names may be on the operator's own network.
    inside = OutgoingHttpClient(
        reactor, dataclasses.replace(config.outgoing_http, denied_ip_ranges=())
    )
    parts.stops.append(inside.close)
    callback = f"{config.public_base_url}{CALLBACK}"
    outside = services[OutgoingHttpClient]
    providers: dict[str, Known] = {}
    for each in config.sso.providers:
        # Its libraries take some megabytes, which servers without it need not have.
        from homeserver.users.sso.oidc import OidcProvider

        clients = _clients(each.issuer, inside, outside)
        providers[each.id] = _known(each, OidcProvider(each, clients, reactor, callback))
    if config.cas is not None:
        cas = CasProvider(config.cas.server_url, inside, callback)
        providers[config.cas.id] = _known(config.cas, cas)
    terms = policies(config)
    versions = {name: policy["version"] for name, policy in terms.items()}
    people = add(PeopleHere(parts.db, reactor, services[Accounts], versions, refuse_new))
    uia = services[InteractiveAuth]
    rules = SignOnRules(
        _known_clients(config),
        int(config.sso.session_lifetime),
        int(config.sso.login_token_lifetime),
        bool(terms),
    )
    sign_on = add(SingleSignOn(parts.db, reactor, rules, providers, people, services[Login], uia))
    uia.proofs_of = sign_on.proofs_of
    services[UserHooks].erase.append(external_ids.delete_of_user)
    add(SsoPages((config.public_base_url or "https:").startswith("https:"), terms))
    told = [
        IdentityProvider(each.provider_id, each.name, each.icon, each.brand)
        for each in providers.values()
    ]
    has_appservices = bool(services[Appservices].all)
    add(LoginSettings(config.server_name, providers=told, appservices=has_appservices))


def _known_clients(config: Config) -> list[str]:
    own = [f"{config.public_base_url}_matrix/static/client/login/"]
    return [*config.sso.known_clients, *(own if config.public_base_url else ())]


def _clients(
    issuer: str, inside: OutgoingHttpClient, outside: OutgoingHttpClient
) -> Callable[[str], OutgoingHttpClient]:
    own = urlsplit(issuer).netloc.lower()
    return lambda url: inside if urlsplit(url).netloc.lower() == own else outside


def _known(settings: SignOn, provider: Provider) -> Known:
    def accept_email(claims: JsonObject) -> bool:
        return settings.trust_email or claims.get("email_verified") is True

    return Known(
        settings.id,
        settings.name,
        settings.icon,
        settings.brand,
        provider,
        Mapping(
            settings.localpart,
            settings.display_name,
            settings.email,
            accept_email,
            settings.required_claims,
        ),
        registration=settings.registration,
        existing_users=settings.existing_users,
        choose_localpart=settings.choose_localpart,
    )
