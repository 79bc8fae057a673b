"""What other servers ask that is not in the specification: MSC3720 (whether accounts exist),
MSC3983 (several one-time keys of a device), MSC4370 (the heads of a room), and how large a room
is, which Synapse asks before it joins."""

from __future__ import annotations

import msgspec

from federation.server.device_queries import KeysClaimAnswer, check_users
from homeserver.core.ids import RoomID, ServerName
from homeserver.core.types import JsonObject
from homeserver.encryption.claims import KeyClaims
from homeserver.encryption.device_reads import DeviceReads
from homeserver.rooms.room_facts import RoomFacts
from homeserver.users.account_status import AccountStatuses
from homeserver.web.endpoint import Auth, endpoint

_UNSTABLE = "/_matrix/federation/unstable"


class StatusBody(msgspec.Struct, frozen=True):
    user_ids: list[str]


class ManyKeysBody(msgspec.Struct, frozen=True):
    """`one_time_keys`: user IDs to device IDs to algorithms, each as often as keys are wanted."""

    one_time_keys: dict[str, dict[str, list[str]]]


class Heads(msgspec.Struct, frozen=True):
    prev_events: list[str]


class Complexity(msgspec.Struct, frozen=True):
    """Current state events by 500."""

    v1: float


@endpoint(
    "POST",
    f"{_UNSTABLE}/org.matrix.msc3720/account_status",
    auth=Auth.FEDERATION,
    rate="federation",
)
async def post_account_status(
    origin: ServerName, body: StatusBody, statuses: AccountStatuses
) -> JsonObject:
    """The statuses of accounts of this server."""
    if not body.user_ids:
        return {}
    return {"account_statuses": await statuses.of_this_server(body.user_ids), "failures": []}


@endpoint("POST", f"{_UNSTABLE}/user/keys/claim", auth=Auth.FEDERATION, rate="federation")
async def post_many_keys_claim(
    origin: ServerName, body: ManyKeysBody, claims: KeyClaims, reads: DeviceReads
) -> KeysClaimAnswer:
    """Take several one-time keys of devices."""
    check_users(body.one_time_keys, reads.server_name)
    return KeysClaimAnswer(await claims.local(body.one_time_keys))


@endpoint(
    "GET",
    f"{_UNSTABLE}/org.matrix.msc4370/extremities/{{room_id}}",
    auth=Auth.FEDERATION,
    rate="federation",
)
async def get_extremities(origin: ServerName, room_id: RoomID, facts: RoomFacts) -> Heads:
    """On what an event of this server would be built now."""
    return Heads(await facts.heads(origin, room_id))


@endpoint(
    "GET", f"{_UNSTABLE}/rooms/{{room_id}}/complexity", auth=Auth.FEDERATION, rate="federation"
)
async def get_complexity(origin: ServerName, room_id: RoomID, facts: RoomFacts) -> Complexity:
    """How much state a room has that anybody may join or read."""
    return Complexity(await facts.complexity(origin, room_id))


ENDPOINTS = [post_account_status, post_many_keys_claim, get_extremities, get_complexity]
