"""From where an account is used (Client-server API, "Server administration")."""

from __future__ import annotations

import msgspec

from homeserver.core.errors import forbidden, not_found
from homeserver.core.ids import UserID
from homeserver.users.accounts import Accounts
from homeserver.users.devices import Devices
from homeserver.web.endpoint import Auth, Requester, endpoint
from storage.devices import DeviceRow


class Connection(msgspec.Struct, omit_defaults=True):
    ip: str | None = None
    last_seen: int | None = None
    user_agent: str | None = None


class Session(msgspec.Struct):
    connections: list[Connection]


class DeviceInfo(msgspec.Struct):
    sessions: list[Session]


class WhoisAnswer(msgspec.Struct):
    user_id: str
    devices: dict[str, DeviceInfo]


@endpoint("GET", "/_matrix/client/v3/admin/whois/{user_id}", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_whois(
    requester: Requester, user_id: UserID, accounts: Accounts, devices: Devices
) -> WhoisAnswer:
    """Where the devices of a user were last seen; of others, administrators are told."""
    if requester.user_id != user_id and not requester.is_admin:
        raise forbidden("Only server administrators may look at other users' sessions.")
    if await accounts.get(user_id) is None:
        raise not_found("There is no such user here.")
    rows = await devices.of_user(user_id)
    return WhoisAnswer(user_id, {row.device_id: _device(row) for row in rows})


def _device(row: DeviceRow) -> DeviceInfo:
    if row.last_seen_ts is None:
        return DeviceInfo([])
    return DeviceInfo([Session([connection(row)])])


def connection(row: DeviceRow) -> Connection:
    """From where a device was last seen."""
    return Connection(row.last_seen_ip or None, row.last_seen_ts, row.last_seen_user_agent or None)


ENDPOINTS = [get_whois]
