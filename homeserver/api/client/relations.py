"""Listing what relates to an event (client-server API, "Relationships API")."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from homeserver.api.client.reading import Direction, Limit, token_of
from homeserver.core import errors
from homeserver.core.ids import EventID, RoomID
from homeserver.core.tokens import PaginationToken
from homeserver.core.types import JsonObject
from homeserver.rooms.related import MAX_DEPTH, RelatedEvents, WantedRelations
from homeserver.rooms.threads import DEFAULT_LIMIT as DEFAULT_THREADS
from homeserver.rooms.threads import Threads
from homeserver.web.endpoint import Auth, Requester, endpoint

DEFAULT_LIMIT = 20

_EVENT = "rooms/{room_id}/relations/{event_id}"


class RelationsQuery(msgspec.Struct, frozen=True):
    """`recurse` was called `org.matrix.msc3981.recurse` before version 1.10."""

    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    limit: Limit = DEFAULT_LIMIT
    dir: Direction = "b"
    recurse: bool | None = None
    old_recurse: bool | None = msgspec.field(name="org.matrix.msc3981.recurse", default=None)


class Relations(msgspec.Struct, frozen=True):
    chunk: list[JsonObject]
    next_batch: str | None = None
    prev_batch: str | None = None
    recursion_depth: int | None = None


@endpoint(
    "GET",
    f"/_matrix/client/v1/{_EVENT}/{{rel_type}}/{{event_type}}",
    auth=Auth.GUEST_OK,
    also=(
        f"/_matrix/client/v1/{_EVENT}",
        f"/_matrix/client/v1/{_EVENT}/{{rel_type}}",
        f"/_matrix/client/unstable/{_EVENT}",
        f"/_matrix/client/unstable/{_EVENT}/{{rel_type}}",
        f"/_matrix/client/unstable/{_EVENT}/{{rel_type}}/{{event_type}}",
    ),
    returns=Relations,
)
async def get_relations(
    requester: Requester,
    room_id: RoomID,
    event_id: EventID,
    query: RelationsQuery,
    related: RelatedEvents,
    rel_type: str = "",
    event_type: str = "",
) -> JsonObject:
    """The children of an event: of all kinds, of a relation type, of an event type."""
    if not query.limit:
        raise errors.invalid_param("`limit` must be at least 1.")
    recurse = query.recurse if query.recurse is not None else query.old_recurse
    answer = await related.page(
        requester,
        room_id,
        event_id,
        WantedRelations(rel_type or None, event_type or None, bool(recurse)),
        backwards=query.dir == "b",
        start=token_of(query.from_),
        end=token_of(query.to),
        limit=query.limit,
    )
    if recurse is not None:
        answer["recursion_depth"] = MAX_DEPTH if recurse else 1
    return answer


class ThreadsQuery(msgspec.Struct, frozen=True):
    from_: str | None = msgspec.field(name="from", default=None)
    limit: Annotated[int, msgspec.Meta(ge=1)] = DEFAULT_THREADS
    include: Literal["all", "participated"] = "all"


class ThreadList(msgspec.Struct, frozen=True):
    chunk: list[JsonObject]
    next_batch: str | None = None


@endpoint(
    "GET",
    "/_matrix/client/v1/rooms/{room_id}/threads",
    auth=Auth.GUEST_OK,
    rate="read",
    also=("/_matrix/client/unstable/org.matrix.msc3856/rooms/{room_id}/threads",),
    returns=ThreadList,
)
async def get_threads(
    requester: Requester, room_id: RoomID, query: ThreadsQuery, threads: Threads
) -> JsonObject:
    """The threads of a room, those with the newest activity first."""
    start = token_of(query.from_)
    if start is not None and not isinstance(start, PaginationToken):
        raise errors.invalid_param("`from` is not a token of this list.")
    return await threads.page(
        requester,
        room_id,
        participated=query.include == "participated",
        start=start,
        limit=query.limit,
    )


ENDPOINTS = [get_relations, get_threads]
