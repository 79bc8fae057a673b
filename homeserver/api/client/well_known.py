"""How clients find the server and whom to ask for help (Client-server API, "Server Discovery")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from homeserver.core.errors import not_found
from homeserver.core.types import JsonObject
from homeserver.web.endpoint import Auth, endpoint


class Contact(msgspec.Struct, frozen=True, omit_defaults=True):
    """A way to reach the people who run the server."""

    role: str
    matrix_id: str | None = None
    email_address: str | None = None


@dataclass(frozen=True, slots=True)
class WellKnown:
    """What the configuration says for discovery."""

    base_url: str | None = None
    contacts: Sequence[Contact] = ()
    support_page: str | None = None
    rtc_foci: Sequence[JsonObject] = ()
    policy_key: str | None = None
    """The Ed25519 key of the policy server of this name, unpadded Base64."""

    @property
    def client(self) -> JsonObject | None:
        """The object that tells clients where the server is."""
        if self.base_url is None:
            return None
        found: JsonObject = {"m.homeserver": {"base_url": self.base_url}}
        if self.rtc_foci:
            # Before MSC4143 had an endpoint; clients still look here first.
            found["org.matrix.msc4143.rtc_foci"] = list(self.rtc_foci)
        return found


class SupportAnswer(msgspec.Struct, omit_defaults=True):
    contacts: list[Contact] = msgspec.field(default_factory=list)
    support_page: str | None = None


@endpoint("GET", "/.well-known/matrix/client", auth=Auth.NONE)
async def get_client(well_known: WellKnown) -> JsonObject:
    """Where clients reach the server."""
    found = well_known.client
    if found is None:
        raise not_found("No discovery information is configured.")
    return found


class PolicyServerAnswer(msgspec.Struct):
    public_keys: dict[str, str]


@endpoint("GET", "/.well-known/matrix/policy_server", auth=Auth.NONE)
async def get_policy_server(well_known: WellKnown) -> PolicyServerAnswer:
    """The keys of the policy server of this name, to be put into rooms that appoint it."""
    if well_known.policy_key is None:
        raise not_found("There is no policy server here.")
    return PolicyServerAnswer({"ed25519": well_known.policy_key})


@endpoint("GET", "/.well-known/matrix/support", auth=Auth.NONE)
async def get_support(well_known: WellKnown) -> SupportAnswer:
    """Whom to ask for help."""
    if not well_known.contacts and well_known.support_page is None:
        raise not_found("No contact is configured.")
    return SupportAnswer(list(well_known.contacts), well_known.support_page)


ENDPOINTS = [get_client, get_policy_server, get_support]
