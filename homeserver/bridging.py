"""The part of the composition root for application services: bridges and bots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config import Config
from homeserver.api.client.appservice_ping import Stopwatch
from homeserver.appservices.calls import AppserviceCalls
from homeserver.appservices.delivery import AppserviceDelivery
from homeserver.appservices.network import AppserviceNetwork
from homeserver.appservices.queries import Queries
from homeserver.core.appservices import (
    AppserviceRegistration,
    BadRegistration,
    check_together,
    parse_registration,
)
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.parts import Parts
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.create import RoomCreation
from homeserver.rooms.membership import Membership
from homeserver.rooms.networks import ThirdPartyNetworks
from homeserver.rooms.received_invites import ReceivedInvites
from homeserver.startup import CannotStart
from homeserver.users.accounts import Accounts
from homeserver.users.appservices import AppserviceAuthenticator, Appservices
from homeserver.users.device_activity import DeviceActivity
from homeserver.users.presence import PresenceTracker
from homeserver.users.sessions import Sessions
from homeserver.web.limits import RateLimiter
from homeserver.web.request import Authenticator, Request, Requester
from homeserver.web.tokens import sent_token
from storage import users
from storage.ephemeral import EphemeralStore
from storage.transaction import Transaction

_MAX_FILE = 1024 * 1024


def load_registrations(config: Config) -> list[AppserviceRegistration]:
    """The application services of the configuration.

    Raises CannotStart, with all that is wrong with their files.
    """
    found, problems = [], []
    for file in config.application_service_files:
        try:
            found.append(_load(file, config.server_name))
        except BadRegistration as error:
            problems += [f"{file}: {problem}" for problem in error.problems]
    problems += check_together(found)
    if problems:
        told = "\n".join(f"  {problem}" for problem in problems)
        raise CannotStart(f"application_service_files cannot be used:\n{told}")
    return found


def _load(file: Path, server_name: str) -> AppserviceRegistration:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
    except OSError as error:
        raise BadRegistration([f"cannot be read: {error.strerror}"]) from None
    if len(data) > _MAX_FILE:
        raise BadRegistration(["is larger than any registration"])
    try:
        content = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise BadRegistration([f"is not YAML: {' '.join(str(error).split())}"]) from None
    return parse_registration(content, server_name)


def build_identities(parts: Parts) -> None:
    """Who the application services are, and which user IDs are theirs. Raises CannotStart."""
    services = parts.services
    appservices = services.add(Appservices(load_registrations(parts.config)))
    services[Accounts].claimed = appservices.claims_user
    services.add(
        AppserviceAuthenticator(
            parts.db, parts.reactor, appservices, services[Sessions], services[DeviceActivity]
        )
    )


@dataclass(frozen=True, slots=True)
class Entrance:
    """Who may come in with what token, and how often."""

    authenticator: Authenticator
    limiter: RateLimiter
    query_tokens: Callable[[str], bool]


def build_bridges(parts: Parts) -> Entrance:
    """What is theirs of rooms, and how their requests are let in."""
    services = parts.services
    appservices, aliases = services[Appservices], services[Aliases]
    aliases.check_claimed = appservices.check_alias
    aliases.owned = appservices.owns_alias
    services[RoomCreation].check_alias = appservices.check_alias
    _build_conversation(parts, appservices)
    limiter = AppserviceLimits(services.following(RateLimiter), appservices)
    return Entrance(services[AppserviceAuthenticator], limiter, appservices.knows_token)


def _build_conversation(parts: Parts, appservices: Appservices) -> None:
    """What the services are told and asked."""
    services, reactor = parts.services, parts.reactor
    # They are the operator's, and mostly beside the server.
    http = OutgoingHttpClient(
        reactor,
        dataclasses.replace(parts.config.outgoing_http, denied_ip_ranges=()),
        allow_http=True,
    )
    parts.stops.append(http.close)
    calls = services.add(AppserviceCalls(http))
    services.add(Stopwatch(reactor))
    delivery = services.add(
        AppserviceDelivery(
            parts.db,
            parts.bus,
            reactor,
            appservices.all,
            calls,
            services.following(EphemeralStore),
            services[PresenceTracker],
        )
    )
    parts.stops.append(delivery.stop)
    networks = services[ThirdPartyNetworks].networks
    networks += [
        AppserviceNetwork(each, calls)
        for each in appservices.all
        if each.url is not None and each.protocols
    ]
    if not any(each.url for each in appservices.all):
        return
    queries = Queries(parts.db, appservices.all, calls)
    services[Aliases].asked = queries.make_alias
    services[Membership].meet = queries.make_user
    services[ReceivedInvites].meet = queries.make_user


async def start_bridges(parts: Parts) -> None:
    """Have the accounts of the services themselves, and go on telling them what is new."""
    if parts.services[Appservices].all:
        await parts.db.write(_make_senders, parts)
        await parts.services[AppserviceDelivery].start()


def _make_senders(txn: Transaction, parts: Parts) -> None:
    accounts = parts.services[Accounts]
    for registration in parts.services[Appservices].all:
        if not users.exists(txn, registration.sender):
            accounts.create_in(txn, registration.sender, None, by_appservice=True)


class AppserviceLimits:
    """Rate limits for all but application services that register and log users in."""

    def __init__(self, limiter: RateLimiter, appservices: Appservices) -> None:
        self._limiter = limiter
        self._appservices = appservices

    @property
    def classes(self) -> Collection[str]:
        return self._limiter.classes

    def check(
        self,
        requester: Requester | None,
        request: Request,
        rate_class: str,
        origin: str | None = None,
    ) -> Coroutine[Any, Any, None]:
        """See `RateLimiter.check`."""
        if requester is None and origin is None and self._appservices.all:
            token = sent_token(request, self._appservices.knows_token)
            if token is not None and self._appservices.knows_token(token):
                return _unlimited()
        return self._limiter.check(requester, request, rate_class, origin)

    async def spend(self, rate_class: str, key: str) -> None:
        """See `RateLimiter.spend`."""
        await self._limiter.spend(rate_class, key)


async def _unlimited() -> None:
    """A check that nothing fails."""
