"""What clients asked before `/sync`, and how they peek into rooms (client-server API, "Syncing",
"Room previews")."""

from __future__ import annotations

from typing import Annotated

import msgspec

from homeserver.core.errors import missing_param
from homeserver.core.ids import EventID, RoomID
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.sync import event_stream, old_sync
from homeserver.sync.event_stream import EventsRequest, EventStream
from homeserver.sync.old_sync import OldSync
from homeserver.web.endpoint import Auth, Request, Requester, endpoint

Limit = Annotated[int, msgspec.Meta(ge=0)]


class InitialSyncQuery(msgspec.Struct, frozen=True):
    limit: Limit = old_sync.DEFAULT_LIMIT
    archived: bool = False


class InitialSync(msgspec.Struct, frozen=True):
    end: str
    rooms: list[JsonObject]
    presence: list[JsonObject]
    account_data: list[JsonObject]
    receipts: list[JsonObject]


@endpoint(
    "GET",
    "/_matrix/client/v3/initialSync",
    auth=Auth.ACCESS_TOKEN,
    rate="read",
    returns=InitialSync,
)
async def get_initial_sync(
    requester: Requester, query: InitialSyncQuery, sync: OldSync
) -> JsonObject:
    """Everything of a user, and a token for `/events`."""
    return await sync.initial(requester, query.limit, archived=query.archived)


class RoomInitialSyncQuery(msgspec.Struct, frozen=True):
    limit: Limit = old_sync.DEFAULT_LIMIT


class PaginationChunk(msgspec.Struct, frozen=True):
    start: str
    chunk: list[JsonObject]
    end: str


class RoomInfo(msgspec.Struct, frozen=True):
    room_id: RoomID
    messages: PaginationChunk
    state: list[JsonObject]
    visibility: str
    account_data: list[JsonObject]
    presence: list[JsonObject]
    membership: str | None = None
    receipts: list[JsonObject] | None = None


@endpoint(
    "GET",
    "/_matrix/client/v3/rooms/{room_id}/initialSync",
    auth=Auth.GUEST_OK,
    rate="read",
    returns=RoomInfo,
)
async def get_room_initial_sync(
    requester: Requester, room_id: RoomID, query: RoomInitialSyncQuery, sync: OldSync
) -> JsonObject:
    """A room as it is now: how clients begin to peek."""
    return await sync.room(requester, room_id, query.limit)


class EventsQuery(msgspec.Struct, frozen=True):
    """`timeout` in milliseconds."""

    from_: str | None = msgspec.field(name="from", default=None)
    timeout: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = event_stream.DEFAULT_TIMEOUT
    room_id: RoomID | None = None
    limit: Limit = event_stream.DEFAULT_LIMIT


class Events(msgspec.Struct, frozen=True):
    start: str
    chunk: list[JsonObject]
    end: str


@endpoint("GET", "/_matrix/client/v3/events", auth=Auth.GUEST_OK, long_poll=True, returns=Events)
async def get_events(
    requester: Requester, query: EventsQuery, request: Request, stream: EventStream
) -> JsonObject:
    """What happened since a token, for a user or in one room."""
    if requester.is_guest and query.room_id is None:
        # Guests peek with this; for their own rooms they have /sync.
        raise missing_param("room_id")
    token = SyncToken.parse(query.from_) if query.from_ else None
    wanted = EventsRequest(
        requester, token, query.room_id, query.timeout, query.limit, request.on_shutdown
    )
    return await stream.events(wanted)


@endpoint("GET", "/_matrix/client/v3/events/{event_id}", auth=Auth.ACCESS_TOKEN, rate="read")
async def get_one_event(requester: Requester, event_id: EventID, sync: OldSync) -> JsonObject:
    """One event, whatever room it is in."""
    return await sync.event(requester, event_id)


ENDPOINTS = [get_initial_sync, get_room_initial_sync, get_events, get_one_event]
