"""Applying redactions (room version 3, "Handling redactions"; client-server API, "Redactions").

1. A redaction of an unknown event is held until that event is known.
2. It has no effect across rooms, on itself, on a redaction of itself, or on what is redacted.
3. Where the authorisation rules do not judge it, its sender needs the redact level, or must be of
   the server of the redacted event's sender.
4. The stored event is replaced by its redacted form: nothing can show the rest any more, but what
   is kept of it for moderators for a time (`homeserver.rooms.unredacted`).
"""

from __future__ import annotations

from homeserver.core import canonical, state_tree, sticky
from homeserver.core.event import Event
from homeserver.core.ids import EventID, InvalidIdentifier
from homeserver.core.media import names_in
from homeserver.core.power_levels import PowerLevels, can_redact
from homeserver.core.redaction import redact
from homeserver.core.room_versions import RoomVersion
from homeserver.core.texts import TYPES
from homeserver.core.types import StateKey
from storage import (
    events,
    media_references,
    memberships,
    message_words,
    redacted_contents,
    sticky_events,
)
from storage.events import EventRow
from storage.media_references import Reference
from storage.state import StateStore
from storage.transaction import Transaction


def apply(txn: Transaction, states: StateStore, redaction: Event, row: EventRow) -> None:
    """Apply a redaction that has been added to its room."""
    redacts = redaction.redacts
    if redacts is None or not _is_event_id(redacts):
        return
    target = events.get(txn, redacts)
    if target is None:
        events.hold_redaction(txn, redacts, redaction.event_id)
        return
    _apply(txn, states, redaction, row, target)


def _is_event_id(text: str) -> bool:
    # The format of redactions asks for a string only, and not every one can be looked up.
    try:
        EventID.parse(text)
    except InvalidIdentifier:
        return False
    return True


def apply_held(
    txn: Transaction, states: StateStore, room_nid: int, redaction_id: str, version: RoomVersion
) -> None:
    """Apply a redaction that was waiting for its event."""
    row = events.get(txn, redaction_id)
    if row is not None and row.room_nid == room_nid and row.status == events.ACCEPTED:
        apply(txn, states, Event.from_json(row.json, version, row.event_id), row)


def _apply(
    txn: Transaction, states: StateStore, redaction: Event, row: EventRow, target: EventRow
) -> None:
    if target.room_nid != row.room_nid or target.event_id == redaction.event_id:
        return
    if target.redacted_by is not None:
        return
    version = redaction.version
    event = Event.from_json(target.json, version, target.event_id)
    if event.type == "m.room.redaction" and event.redacts == redaction.event_id:
        return
    if not version.redaction_auth_rule and not _allowed(txn, states, redaction, row, event):
        return
    encode = canonical.encode if version.strict_canonical_json else canonical.encode_lenient
    pruned = encode(redact(event.pdu, version)).decode()
    if states.keeps_redacted:
        redacted_contents.keep(txn, target.event_nid, target.sender, target.json)
    events.set_redacted(txn, target.event_nid, redaction.event_id, pruned)
    if sticky.KEY in event.pdu:
        sticky_events.remove(txn, target.event_nid)
    if event.type in TYPES:
        message_words.remove(txn, target.event_nid)
    sent = [
        Reference(*name, target.event_nid, target.room_nid, target.sender)
        for name in sorted(names_in(event.content))
    ]
    if sent:
        media_references.take_back(txn, sent)
    if event.type == "m.room.member":
        memberships.clear_profile(txn, row.room_nid, target.event_nid)
    txn.invalidate("event", target.event_id)


_CREATE: StateKey = ("m.room.create", "")
_POWER: StateKey = ("m.room.power_levels", "")


def _allowed(
    txn: Transaction, states: StateStore, redaction: Event, row: EventRow, event: Event
) -> bool:
    """By the state before the redaction, whatever has happened since."""
    keys = states.lookup(txn, [_CREATE, _POWER])
    root = row.state_before
    if root is None or _CREATE not in keys:
        return False
    load = states.loader(txn, row.room_nid)
    numbers = state_tree.get(root, keys.values(), load)
    rows = events.get_by_nids(txn, set(numbers.values()))
    found = {
        key: Event.from_json(
            rows[numbers[nid]].json, redaction.version, rows[numbers[nid]].event_id
        )
        for key, nid in keys.items()
        if nid in numbers
    }
    if _CREATE not in found:
        return False
    power = PowerLevels.of(found.get(_POWER), found[_CREATE])
    return can_redact(event.sender, redaction.sender, power)
