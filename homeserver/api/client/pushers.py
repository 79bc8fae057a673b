"""Pushers: where a user is told of events (Client-server API, "Push Notifications"; MSC3881,
MSC4174)."""

from __future__ import annotations

import msgspec

from homeserver.core.types import JsonObject
from homeserver.users import pushers as service
from homeserver.users.pushers import Pushers
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, Response, endpoint


class PushersAnswer(msgspec.Struct):
    pushers: list[JsonObject]


class Acknowledgement(msgspec.Struct, frozen=True):
    """What a browser was sent."""

    app_id: str
    ack_token: str


@endpoint("GET", "/_matrix/client/v3/pushers", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_pushers(requester: Requester, pushers: Pushers) -> PushersAnswer:
    """The requester's pushers."""
    rows = await pushers.of_user(requester.user_id)
    return PushersAnswer([service.shown(row) for row in rows])


@endpoint(
    "POST",
    "/_matrix/client/v3/pushers/set",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    lenient_json=True,
)
async def set_pusher(requester: Requester, body: JsonObject, pushers: Pushers) -> Response:
    """Add, change or remove a pusher. 201: it has to be activated first."""
    inactive = await pushers.set(requester.user_id, requester.device_id or "", body)
    return Response(201 if inactive else 200, {})


@endpoint(
    "POST",
    "/_matrix/client/v3/pushers/ack",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=("/_matrix/client/unstable/org.matrix.msc4174/pushers/ack",),
)
async def acknowledge_pusher(
    requester: Requester, body: Acknowledgement, pushers: Pushers
) -> Empty:
    """Activate a pusher with the token that was sent to it."""
    await pushers.acknowledge(requester.user_id, body.app_id, body.ack_token)
    return EMPTY


ENDPOINTS = [get_pushers, set_pusher, acknowledge_pusher]
