"""Looking after delayed events (MSC4140); they are made in `sending` and here."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import msgspec

from homeserver.core.errors import invalid_param
from homeserver.core.ids import RoomID
from homeserver.core.sticky import MAX_MS
from homeserver.core.types import JsonObject
from homeserver.rooms.delayed import DelayedEvents
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint
from storage.delayed_events import DelayedRow

_UNSTABLE = "/_matrix/client/unstable/org.matrix.msc4140"
_PATH = f"{_UNSTABLE}/delayed_events"

Delay = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""Milliseconds."""
StickyDuration = Annotated[int, msgspec.Meta(ge=0, le=MAX_MS)]


class DelayedEvent(msgspec.Struct, omit_defaults=True):
    """`event_id`, `error` and `finalised_ts` say what became of it."""

    delay_id: str
    room_id: str
    type: str
    delay: int
    running_since: int
    content: JsonObject
    state_key: str | None = None
    event_id: str | None = None
    error: JsonObject | None = None
    finalised_ts: int | None = None


class DelayedEventsAnswer(msgspec.Struct):
    delayed_events: list[DelayedEvent]


class DelayIdAnswer(msgspec.Struct):
    delay_id: str


class ListQuery(msgspec.Struct, frozen=True):
    status: Literal["scheduled", "finalised"] = "scheduled"


class ActionBody(msgspec.Struct, frozen=True):
    action: str


class ScheduleBody(msgspec.Struct, frozen=True):
    delay: Delay
    content: JsonObject
    state_key: str | None = None
    sticky_duration_ms: StickyDuration | None = msgspec.field(
        default=None, name="org.matrix.msc4354.sticky_duration_ms"
    )


def _shown(row: DelayedRow) -> DelayedEvent:
    return DelayedEvent(
        row.delay_id,
        row.room_id,
        row.event_type,
        row.delay,
        row.running_since,
        json.loads(row.content),
        row.state_key,
        row.event_id,
        json.loads(row.error) if row.error else None,
        row.finalised_ts,
    )


@endpoint("GET", _PATH, auth=Auth.GUEST_OK, rate="read")
async def get_delayed_events(
    requester: Requester, query: ListQuery, delayed: DelayedEvents
) -> DelayedEventsAnswer:
    """The requester's events that are still to be sent, or those of the last week that are not."""
    rows = await delayed.of_user(requester.user_id, finalised=query.status == "finalised")
    return DelayedEventsAnswer([_shown(row) for row in rows])


@endpoint("GET", f"{_PATH}/{{delay_id}}", auth=Auth.GUEST_OK, rate="read")
async def get_delayed_event(
    requester: Requester, delay_id: str, delayed: DelayedEvents
) -> DelayedEvent:
    """One delayed event of the requester."""
    return _shown(await delayed.get(requester.user_id, delay_id))


# Whoever knows the ID may do these, such as the server that carries a call.


@endpoint("POST", f"{_PATH}/{{delay_id}}", auth=Auth.NONE, rate="read")
async def post_delayed_event(delay_id: str, body: ActionBody, delayed: DelayedEvents) -> Empty:
    """Restart, send or cancel, as clients ask for it so far."""
    actions = {"restart": delayed.restart, "send": delayed.send, "cancel": delayed.cancel}
    if body.action not in actions:
        raise invalid_param("The action must be restart, send or cancel.")
    await actions[body.action](delay_id)
    return EMPTY


@endpoint("POST", f"{_PATH}/{{delay_id}}/restart", auth=Auth.NONE, rate="read", optional_body=True)
async def restart_delayed_event(delay_id: str, delayed: DelayedEvents) -> Empty:
    """Begin the delay anew."""
    await delayed.restart(delay_id)
    return EMPTY


@endpoint("POST", f"{_PATH}/{{delay_id}}/send", auth=Auth.NONE, rate="read", optional_body=True)
async def send_delayed_event(delay_id: str, delayed: DelayedEvents) -> Empty:
    """Send the event now."""
    await delayed.send(delay_id)
    return EMPTY


@endpoint("POST", f"{_PATH}/{{delay_id}}/cancel", auth=Auth.NONE, rate="read", optional_body=True)
async def cancel_delayed_event(delay_id: str, delayed: DelayedEvents) -> Empty:
    """Do not send the event."""
    await delayed.cancel(delay_id)
    return EMPTY


@endpoint(
    "PUT",
    f"{_UNSTABLE}/rooms/{{room_id}}/delayed_event/{{event_type}}/{{txn_id}}",
    auth=Auth.GUEST_OK,
    rate="message",
    lenient_json=True,
    refuse_suspended=True,
)
async def put_delayed_event(
    requester: Requester,
    room_id: RoomID,
    event_type: str,
    txn_id: str,
    body: ScheduleBody,
    delayed: DelayedEvents,
) -> DelayIdAnswer:
    """Have an event sent later."""
    delay_id = await delayed.schedule(
        requester,
        room_id,
        event_type,
        body.content,
        body.delay,
        state_key=body.state_key,
        txn_id=txn_id,
        sticky_ms=body.sticky_duration_ms,
    )
    return DelayIdAnswer(delay_id)


ENDPOINTS = [
    get_delayed_events,
    get_delayed_event,
    post_delayed_event,
    restart_delayed_event,
    send_delayed_event,
    cancel_delayed_event,
    put_delayed_event,
]
