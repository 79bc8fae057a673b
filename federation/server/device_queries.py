"""Other servers ask for keys and devices of this server's users (server-server API, "Device
Management" and "End-to-End Encryption")."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.core.errors import forbidden, invalid_param, not_found
from homeserver.core.ids import InvalidIdentifier, ServerName, UserID
from homeserver.core.types import JsonObject
from homeserver.encryption.claims import KeyClaims
from homeserver.encryption.device_reads import DeviceReads
from homeserver.encryption.queries import KeyQueries
from homeserver.web.endpoint import Auth, endpoint

MAX_USERS = 20_000
"""Users whose keys are asked for at once."""


class KeysQueryBody(msgspec.Struct, frozen=True):
    """`device_keys`: user IDs to device IDs, none for all."""

    device_keys: dict[str, list[str]]


class KeysQueryAnswer(msgspec.Struct):
    device_keys: dict[str, dict[str, JsonObject]]
    master_keys: dict[str, JsonObject]
    self_signing_keys: dict[str, JsonObject]


@endpoint("POST", "/_matrix/federation/v1/user/keys/query", auth=Auth.FEDERATION, rate="federation")
async def post_user_keys_query(
    origin: ServerName, body: KeysQueryBody, queries: KeyQueries, reads: DeviceReads
) -> KeysQueryAnswer:
    """Keys of users and of their devices."""
    check_users(body.device_keys, reads.server_name)
    found = await queries.local(body.device_keys)
    return KeysQueryAnswer(found.device_keys, found.master_keys, found.self_signing_keys)


class KeysClaimBody(msgspec.Struct, frozen=True):
    """`one_time_keys`: user IDs to device IDs to algorithms."""

    one_time_keys: dict[str, dict[str, str]]


class KeysClaimAnswer(msgspec.Struct):
    one_time_keys: dict[str, dict[str, JsonObject]]


@endpoint("POST", "/_matrix/federation/v1/user/keys/claim", auth=Auth.FEDERATION, rate="federation")
async def post_user_keys_claim(
    origin: ServerName, body: KeysClaimBody, claims: KeyClaims, reads: DeviceReads
) -> KeysClaimAnswer:
    """Take one-time keys of devices."""
    check_users(body.one_time_keys, reads.server_name)
    wanted = {
        user_id: {device_id: [algorithm] for device_id, algorithm in devices.items()}
        for user_id, devices in body.one_time_keys.items()
    }
    return KeysClaimAnswer(await claims.local(wanted))


@endpoint(
    "GET",
    "/_matrix/federation/v1/user/devices/{user_id}",
    auth=Auth.FEDERATION,
    rate="federation",
)
async def get_user_devices(origin: ServerName, user_id: UserID, reads: DeviceReads) -> JsonObject:
    """All devices of a user, with the place in the stream of their changes."""
    if user_id.domain != reads.server_name:
        raise forbidden("The user is not of this server.")
    found = await reads.devices_of(user_id)
    if found is None:
        raise not_found("There is no such user.")
    return found


def check_users(user_ids: Iterable[str], server_name: str) -> None:
    """Refuse too many users, and users of other servers, with 400 `M_INVALID_PARAM`."""
    names = list(user_ids)
    if len(names) > MAX_USERS:
        raise invalid_param(f"At most {MAX_USERS} users at once.")
    for name in names:
        try:
            if UserID.parse(name).domain != server_name:
                raise invalid_param("Only users of this server can be asked for.")
        except InvalidIdentifier as error:
            raise invalid_param(str(error)) from None


ENDPOINTS = [post_user_keys_query, post_user_keys_claim, get_user_devices]
