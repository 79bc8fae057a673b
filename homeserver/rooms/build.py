"""Make a local event: fill in what the room's head decides, hash and sign it.

Server-server API, "Adding hashes and signatures to outgoing events".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.core import errors, event_format, signing, sticky
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject


@dataclass(frozen=True, slots=True)
class EventTemplate:
    """What a service wants to say in a room; the append path makes an event of it."""

    type: str
    sender: str
    content: JsonObject
    state_key: str | None = None
    """None: not a state event."""
    redacts: str | None = None
    """Event ID, for `m.room.redaction`; put where the room version wants it."""
    origin_server_ts: int | None = None
    """Milliseconds; None: now."""
    sticky_ms: int | None = None
    """For how many milliseconds it is sticky (MSC4354)."""


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """This server's name and the key that signs its events."""

    server_name: str
    key: signing.SigningKey


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the room's graph a new event goes."""

    room_id: str | None
    """None: the event creates a room whose ID is the event's hash."""
    version: RoomVersion
    prev_events: Sequence[str]
    depth: int
    auth_events: Sequence[str]
    reference_hashes: Mapping[str, str] = field(default_factory=dict)
    """Unpadded base64 SHA-256 by event ID: room versions 1 and 2 name events with them."""
    event_id: str | None = None
    """Chosen ID, in room versions 1 and 2."""


def build_event(template: EventTemplate, place: Place, signer: LocalSigner, now_ms: int) -> Event:
    """The signed event.

    Raises:
        MatrixError: 413 `M_TOO_LARGE`, 400 `M_BAD_JSON` when the content cannot be canonical JSON.
    """
    version = place.version
    pdu = unsigned_pdu(template, place, now_ms)
    try:
        message = signing.hash_and_sign_event(pdu, version, signer.server_name, signer.key)
        text = signing.encode_checked(pdu, version)
    except ValueError as problem:
        raise errors.bad_json(f"The content of the event is not canonical JSON: {problem}")
    try:
        event_format.check_sizes(pdu, encoded=text)
    except event_format.EventTooLarge as problem:
        raise errors.too_large(str(problem))
    event_id = place.event_id or signing.event_id_for(pdu, version, message)
    return Event.from_both(pdu, text, version, event_id)


def unsigned_pdu(template: EventTemplate, place: Place, now_ms: int) -> JsonObject:
    """The event without hashes and signatures."""
    version = place.version
    content = template.content
    pdu: dict[str, Any] = {
        "auth_events": _references(place.auth_events, place),
        "content": content,
        "depth": min(place.depth, version.max_depth),
        "origin_server_ts": (
            now_ms if template.origin_server_ts is None else template.origin_server_ts
        ),
        "prev_events": _references(place.prev_events, place),
        "sender": template.sender,
        "type": template.type,
    }
    if place.room_id is not None:
        pdu["room_id"] = place.room_id
    if template.state_key is not None:
        pdu["state_key"] = template.state_key
    if place.event_id is not None:
        pdu["event_id"] = place.event_id
    if template.sticky_ms is not None:
        pdu[sticky.KEY] = {"duration_ms": template.sticky_ms}
    if template.redacts is not None:
        if version.redacts_in_content:
            pdu["content"] = {**content, "redacts": template.redacts}
        else:
            pdu["redacts"] = template.redacts
    return pdu


def _references(event_ids: Sequence[str], place: Place) -> list[Any]:
    if place.version.event_format == 1:
        return [[name, {"sha256": place.reference_hashes[name]}] for name in event_ids]
    return list(event_ids)
