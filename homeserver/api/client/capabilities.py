"""What a user can do here (Client-server API, "Capabilities negotiation")."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from homeserver.push.web_push import VapidKey
from homeserver.web.endpoint import Auth, Requester, endpoint


@dataclass(frozen=True, slots=True)
class CapabilitySettings:
    """What of the configuration decides on capabilities."""

    default_room_version: str
    change_password: bool = True
    change_contacts: bool = False
    longest_delay_ms: int = 0
    delayed_events: int = 0
    """How many delayed events a user can have waiting."""


class CapabilitiesAnswer(msgspec.Struct):
    capabilities: JsonObject


@endpoint("GET", "/_matrix/client/v3/capabilities", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_capabilities(
    requester: Requester, settings: CapabilitySettings, vapid_key: VapidKey
) -> CapabilitiesAnswer:
    """What the requester can do on this server."""
    found: JsonObject = {
        "m.change_password": {"enabled": settings.change_password},
        "m.room_versions": {
            "default": settings.default_room_version,
            "available": {
                name: "stable" if version.stable else "unstable"
                for name, version in ROOM_VERSIONS.items()
            },
        },
        "m.set_displayname": {"enabled": True},
        "m.set_avatar_url": {"enabled": True},
        "m.profile_fields": {"enabled": True},
        "m.3pid_changes": {"enabled": settings.change_contacts},
        # Asked for with the password, so only where there are passwords.
        "m.get_login_token": {"enabled": settings.change_password},
        "m.forget_forced_upon_leave": {"enabled": False},
        "org.matrix.msc3720.account_status": {"enabled": True},
        "org.matrix.msc4140.delayed_events": {
            "max_delay_ms": settings.longest_delay_ms,
            "max_scheduled": settings.delayed_events,
        },
    }
    if vapid_key.offered:
        found["m.webpush"] = {"enabled": True, "vapid": await vapid_key.public_key()}
        found["org.matrix.msc4174.webpush"] = found["m.webpush"]
    if requester.is_admin:
        found["m.account_moderation"] = {"lock": True, "suspend": True}
        found["uk.timedout.msc4323"] = found["m.account_moderation"]
    return CapabilitiesAnswer(found)


ENDPOINTS = [get_capabilities]
