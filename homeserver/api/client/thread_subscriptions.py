"""Following threads (MSC4306, MSC4308)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeserver.core.errors import MatrixError, invalid_param
from homeserver.core.ids import EventID, RoomID
from homeserver.core.tokens import SlidingToken, SyncToken
from homeserver.core.types import JsonObject
from homeserver.rooms.thread_subscriptions import ThreadSubscriptions, as_answer
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_PATH = (
    "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{thread_id}/subscription"
)


class SubscriptionAnswer(msgspec.Struct):
    automatic: bool


class SubscriptionBody(msgspec.Struct, frozen=True):
    """`automatic`: the event because of which a client subscribes its user."""

    automatic: EventID | None = None


class ChangesQuery(msgspec.Struct, frozen=True):
    """`from` is the newer end, `to` the older."""

    dir: Literal["b"] = "b"
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)] = 100


class ChangesAnswer(msgspec.Struct, omit_defaults=True):
    subscribed: dict[str, dict[str, JsonObject]] = msgspec.field(default_factory=dict)
    unsubscribed: dict[str, dict[str, JsonObject]] = msgspec.field(default_factory=dict)
    end: str | None = None


@endpoint("GET", _PATH, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_thread_subscription(
    requester: Requester, room_id: RoomID, thread_id: EventID, threads: ThreadSubscriptions
) -> SubscriptionAnswer:
    """Whether the requester follows a thread."""
    return SubscriptionAnswer(await threads.get(requester, room_id, thread_id))


@endpoint("PUT", _PATH, auth=Auth.ACCESS_TOKEN, rate="write", optional_body=True)
async def put_thread_subscription(
    requester: Requester,
    room_id: RoomID,
    thread_id: EventID,
    body: SubscriptionBody,
    threads: ThreadSubscriptions,
) -> Empty:
    """Follow a thread."""
    await threads.subscribe(requester, room_id, thread_id, body.automatic)
    return EMPTY


@endpoint("DELETE", _PATH, auth=Auth.ACCESS_TOKEN, rate="write")
async def delete_thread_subscription(
    requester: Requester, room_id: RoomID, thread_id: EventID, threads: ThreadSubscriptions
) -> Empty:
    """Stop following a thread."""
    await threads.unsubscribe(requester, room_id, thread_id)
    return EMPTY


@endpoint(
    "GET",
    "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
)
async def get_thread_subscriptions(
    requester: Requester, query: ChangesQuery, threads: ThreadSubscriptions
) -> ChangesAnswer:
    """What changed in which threads the requester follows, the newest first."""
    after = 0 if query.to is None else _position(query.to)
    upto = None if query.from_ is None else _position(query.from_)
    changes, end = await threads.changes(requester.user_id, after, upto, query.limit)
    told = as_answer(changes)
    return ChangesAnswer(
        told.get("subscribed", {}),
        told.get("unsubscribed", {}),
        None if end is None else f"t{end}",
    )


def _position(token: str) -> int:
    """The position of an `end`, or of a token of `/sync` or of sliding sync."""
    number = token[1:]
    if token[:1] == "t" and number.isascii() and number.isdigit() and len(number) < 19:
        return int(number)
    try:
        if token.startswith("p"):
            return SlidingToken.parse(token).durable
        return SyncToken.parse(token).durable
    except (MatrixError, ValueError):
        raise invalid_param("This is not a token of this server.") from None


ENDPOINTS = [
    get_thread_subscription,
    put_thread_subscription,
    delete_thread_subscription,
    get_thread_subscriptions,
]
