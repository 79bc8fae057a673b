"""Sending events to a room, and redactions (client-server API, same headings)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from homeserver.api.client.delayed_events import Delay, DelayIdAnswer, StickyDuration
from homeserver.core.errors import invalid_param, user_suspended
from homeserver.core.ids import EventID, RoomID
from homeserver.core.types import JsonObject
from homeserver.rooms.delayed import DelayedEvents
from homeserver.rooms.related_redactions import MAX_TYPES, RelatedRedactions
from homeserver.rooms.send import Sending, transaction_for_redaction
from homeserver.web.endpoint import Auth, Requester, endpoint


class SentEvent(msgspec.Struct, frozen=True):
    """The answer to everything that sends an event."""

    event_id: str


class SendQuery(msgspec.Struct, frozen=True):
    """`ts`: time of the event in milliseconds, heeded for application services. With `delay`
    (milliseconds, MSC4140) it is sent later. `sticky_ms`: how long it is sticky (MSC4354).
    """

    ts: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    delay: Delay | None = msgspec.field(default=None, name="org.matrix.msc4140.delay")
    sticky_ms: StickyDuration | None = msgspec.field(
        default=None, name="org.matrix.msc4354.sticky_duration_ms"
    )


@endpoint(
    "PUT",
    "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}",
    auth=Auth.GUEST_OK,
    rate="message",
    lenient_json=True,
)
async def send_event(
    requester: Requester,
    room_id: RoomID,
    event_type: str,
    txn_id: str,
    body: JsonObject,
    query: SendQuery,
    sending: Sending,
    delayed: DelayedEvents,
) -> SentEvent | DelayIdAnswer:
    """Send a message event."""
    if requester.is_suspended and event_type != "m.room.redaction":
        raise user_suspended()
    if query.delay is not None:
        return DelayIdAnswer(
            await delayed.schedule(
                requester,
                room_id,
                event_type,
                body,
                query.delay,
                txn_id=txn_id,
                sticky_ms=query.sticky_ms,
            )
        )
    event_id = await sending.send_event(
        requester, room_id, event_type, body, txn_id, ts=query.ts, sticky_ms=query.sticky_ms
    )
    return SentEvent(event_id)


@endpoint(
    "PUT",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}",
    auth=Auth.GUEST_OK,
    also=(
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
    ),
    rate="message",
    lenient_json=True,
    refuse_suspended=True,
)
async def send_state(
    requester: Requester,
    room_id: RoomID,
    event_type: str,
    body: JsonObject,
    query: SendQuery,
    sending: Sending,
    delayed: DelayedEvents,
    state_key: str = "",
) -> SentEvent | DelayIdAnswer:
    """Send a state event."""
    if query.delay is not None:
        return DelayIdAnswer(
            await delayed.schedule(
                requester,
                room_id,
                event_type,
                body,
                query.delay,
                state_key=state_key,
                sticky_ms=query.sticky_ms,
            )
        )
    event_id = await sending.send_state(
        requester,
        room_id,
        event_type,
        state_key,
        body,
        ts=query.ts,
        sticky_ms=query.sticky_ms,
    )
    return SentEvent(event_id)


@endpoint(
    "PUT",
    "/_matrix/client/v3/rooms/{room_id}/redact/{event_id}/{txn_id}",
    auth=Auth.GUEST_OK,
    rate="message",
    optional_body=True,
)
async def redact_event(
    requester: Requester,
    room_id: RoomID,
    event_id: EventID,
    txn_id: str,
    body: JsonObject,
    sending: Sending,
    related: RelatedRedactions,
) -> SentEvent:
    """Redact an event, and what relates to it if the client wants that (MSC3912)."""
    transaction = transaction_for_redaction(requester, event_id, txn_id)
    content = {key: value for key, value in body.items() if key not in _NOT_CONTENT}
    rel_types = _rel_types(body)
    redaction = await sending.redact(requester, room_id, event_id, content, transaction)
    if rel_types:
        reason = content.get("reason")
        told = reason if isinstance(reason, str) else None
        await related.enqueue(requester, room_id, event_id, rel_types, told)
    return SentEvent(redaction)


_NOT_CONTENT = {"redacts", "with_rel_types", "org.matrix.msc3912.with_relations"}


def _rel_types(body: JsonObject) -> list[str]:
    found = body.get("with_rel_types", body.get("org.matrix.msc3912.with_relations", []))
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise invalid_param("`with_rel_types` must be a list of strings.")
    if len(found) > MAX_TYPES:
        raise invalid_param(f"At most {MAX_TYPES} relation types.")
    return found


ENDPOINTS = [send_event, send_state, redact_event]
