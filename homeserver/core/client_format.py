"""Events as clients see them.

Rules (Client-Server API, "Room event format" and the definition of `ClientEvent`):

- `unsigned` is put together here from what this server knows; what a remote server wrote there
  never reaches a client;
- `redacts` of a redaction is shown at top level and in `content`, whatever the room version;
- how long a sticky event is sticky is shown (MSC4354);
- the create event of a version 12 room shows the room ID that its federation form leaves out.
"""

from __future__ import annotations

from typing import Any

from homeserver.core import sticky
from homeserver.core.event import Event
from homeserver.core.types import JsonObject


def to_client(
    event: Event,
    *,
    now_ms: int | None = None,
    room_id: bool = True,
    membership: str | None = None,
    transaction_id: str | None = None,
    prev_content: JsonObject | None = None,
    replaces_state: str | None = None,
    redacted_because: JsonObject | None = None,
    relations: JsonObject | None = None,
) -> JsonObject:
    """The client form of an event. Its `content` may be shared with the event: do not change it.

    A redacted event is given in its redacted form (`Event.redacted`).

    - `now_ms`: the current time, for `unsigned.age`;
    - `room_id`: False where the response implies the room, as in `/sync`;
    - `membership`: that of the requester at the event (`membership_of`); None leaves it out;
    - `transaction_id`: only if the requester's device sent the event with it;
    - `prev_content`, `replaces_state`: of the state that this event replaced; the first only if
      the requester may see that event. Left out unless `event` is a state event;
    - `redacted_because`: the redaction, in client form;
    - `relations`: the bundled aggregations, for `unsigned.m.relations`.
    """
    pdu = event.pdu
    client: JsonObject = {
        "event_id": event.event_id,
        "type": pdu["type"],
        "sender": pdu["sender"],
        "origin_server_ts": pdu["origin_server_ts"],
        "content": pdu["content"],
    }
    state_key = event.state_key
    if state_key is not None:
        client["state_key"] = state_key
    if room_id:
        client["room_id"] = event.room_id
    if sticky.KEY in pdu:
        client[sticky.KEY] = pdu[sticky.KEY]
    redacts = event.redacts
    if redacts is not None:
        client["redacts"] = redacts
        client["content"] = {**pdu["content"], "redacts": redacts}

    unsigned: dict[str, Any] = {}
    if now_ms is not None:
        unsigned["age"] = now_ms - event.origin_server_ts
        left = sticky.left_of(pdu, now_ms) if sticky.KEY in pdu else None
        if left is not None:
            unsigned[sticky.TTL_KEY] = left
    if membership is not None:
        unsigned["membership"] = membership
    if transaction_id is not None:
        unsigned["transaction_id"] = transaction_id
    if state_key is not None:
        if prev_content is not None:
            unsigned["prev_content"] = prev_content
        if replaces_state is not None:
            unsigned["replaces_state"] = replaces_state
    if redacted_because is not None:
        unsigned["redacted_because"] = redacted_because
    if relations:
        unsigned["m.relations"] = relations
    if unsigned:
        client["unsigned"] = unsigned
    return client


def to_federation(event: Event) -> JsonObject:
    """The federation form, for filters that ask for `event_format: federation`.

    Without `unsigned`, which other servers fill with what they like.
    """
    return {key: value for key, value in event.pdu.items() if key != "unsigned"}


def membership_of(member_event: Event | None) -> str:
    """`unsigned.membership` for a requester with this member event at the event shown.

    ``leave`` without one. A member event of the requester counts for itself.
    """
    return (member_event.membership if member_event is not None else None) or "leave"


def stripped_state(event: Event, *, origin_server_ts: bool = False) -> JsonObject:
    """A state event as invitees and knockers see it (Client-Server API, "Stripped state").

    `origin_server_ts` adds that key, as the space hierarchy wants it.
    """
    return strip_pdu(event.pdu, origin_server_ts=origin_server_ts)


def strip_pdu(pdu: JsonObject, *, origin_server_ts: bool = False) -> JsonObject:
    """`stripped_state` of an event in federation form, or of one stripped by another server.

    Raises `KeyError` if a key of stripped state is missing.
    """
    keys = ["type", "state_key", "sender", "content"]
    if origin_server_ts:
        keys.append("origin_server_ts")
    return {key: pdu[key] for key in keys}
