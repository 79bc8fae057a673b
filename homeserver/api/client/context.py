"""What happened around an event (client-server API, `GET /rooms/{roomId}/context/{eventId}`)."""

from __future__ import annotations

import msgspec

from homeserver.api.client.reading import Limit, filter_of
from homeserver.core.ids import EventID, RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.context import EventContext
from homeserver.rooms.timeline import DEFAULT_LIMIT
from homeserver.web.endpoint import Auth, Requester, endpoint


class ContextQuery(msgspec.Struct, frozen=True):
    limit: Limit | None = None
    filter: str | None = None


class Context(msgspec.Struct, frozen=True):
    start: str
    end: str
    event: JsonObject
    events_before: list[JsonObject]
    events_after: list[JsonObject]
    state: list[JsonObject]


@endpoint(
    "GET",
    "/_matrix/client/v3/rooms/{room_id}/context/{event_id}",
    auth=Auth.GUEST_OK,
    rate="read",
    returns=Context,
)
async def get_context(
    requester: Requester,
    room_id: RoomID,
    event_id: EventID,
    query: ContextQuery,
    context: EventContext,
) -> JsonObject:
    """An event with those before and after it."""
    wanted = filter_of(query.filter)
    limit = query.limit if query.limit is not None else wanted.limit
    return await context.around(
        requester,
        room_id,
        event_id,
        limit=DEFAULT_LIMIT if limit is None else limit,
        wanted=wanted,
    )


ENDPOINTS = [get_context]
