"""What one transaction tells an application service (Application Service API, "Pushing events",
"Pushing ephemeral data")."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from homeserver.appservices.interest import Interest, Owned
from homeserver.core.client_format import to_client
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject
from storage import appservice_streams, events, memberships
from storage.appservice_streams import Outside, Receipt
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.transaction import Transaction

MAX_EVENTS = 100
MAX_CHARACTERS = 2_000_000
STEP = 500
"""Events of the log that are looked at in one step."""

_PRIVATE = "m.read.private"


class Part(NamedTuple):
    """A part of the log, and what a service is told of it; `body` is None for nothing."""

    upto: int
    body: JsonObject | None


@dataclass(slots=True)
class Live:
    """What is not in the log: who types, by the number of the room with its ID, and presence
    events by user."""

    typing: dict[int, tuple[str, list[str]]] = field(default_factory=dict)
    presence: dict[str, JsonObject] = field(default_factory=dict)


class _Told(NamedTuple):
    pos: int
    event: JsonObject


def next_part(
    txn: Transaction, owned: Owned, after: int, upto: int, now_ms: int, live: Live
) -> Part:
    """What a service is told next of the log behind a position, and of what is not in it."""
    rows = appservice_streams.events(txn, after, upto, STEP)
    if len(rows) == STEP:
        upto = rows[-1].pos or upto
    all_outside = appservice_streams.outside(txn, after, upto, STEP)
    if len(all_outside) == STEP:
        upto = all_outside[-1].pos
    outside = [each for each in all_outside if owned.user(each.user_id)]
    receipts: Sequence[Receipt] = ()
    if owned.registration.receive_ephemeral:
        receipts = appservice_streams.receipts(txn, after, upto, STEP)
        if len(receipts) == STEP:
            upto = receipts[-1].pos
    room_nids = {row.room_nid for row in rows} | {each.room_nid for each in outside}
    interest = Interest(txn, owned, after, room_nids | {receipt.room_nid for receipt in receipts})
    wanted = [row for row in rows if (row.pos or 0) <= upto and interest.wants(row)]
    told = _events(txn, interest, owned, wanted, now_ms)
    told += _outside(txn, interest, [each for each in outside if each.pos <= upto], now_ms)
    told.sort(key=lambda each: each.pos)
    chosen, upto = _bounded(told, upto)
    ephemeral = _receipts(interest, owned, [each for each in receipts if each.pos <= upto])
    ephemeral += _live(txn, owned, live, after, upto)
    if not chosen and not ephemeral:
        return Part(upto, None)
    body: JsonObject = {"events": [each.event for each in chosen]}
    if ephemeral:
        body["ephemeral"] = ephemeral
        body["de.sorunome.msc2409.ephemeral"] = ephemeral
    return Part(upto, body)


def _bounded(told: list[_Told], upto: int) -> tuple[list[_Told], int]:
    """As many as fit into a transaction, and the position up to which that is."""
    size = 0
    for index, each in enumerate(told):
        size += len(json.dumps(each.event))
        if index and (index >= MAX_EVENTS or size > MAX_CHARACTERS):
            return told[:index], told[index - 1].pos
    return told, upto


def _events(
    txn: Transaction, interest: Interest, owned: Owned, rows: list[EventRow], now_ms: int
) -> list[_Told]:
    replaced = events.get_many(txn, {row.replaces_state for row in rows if row.replaces_state})
    told = []
    for row in rows:
        room = interest.rooms[row.room_nid]
        before = replaced.get(row.replaces_state or "")
        event = to_client(
            _event(row, room),
            now_ms=now_ms,
            prev_content=None if before is None else _event(before, room).content,
            replaces_state=row.replaces_state,
        )
        if row.type == "m.room.member" and owned.user(str(row.state_key)):
            _add_invite_state(txn, event, row.room_nid, str(row.state_key))
        told.append(_Told(row.pos or 0, event))
    return told


def _outside(
    txn: Transaction, interest: Interest, outside: list[Outside], now_ms: int
) -> list[_Told]:
    rows = events.get_by_nids(txn, {each.event_nid for each in outside})
    told = []
    for each in outside:
        row, room = rows.get(each.event_nid), interest.rooms.get(each.room_nid)
        if row is None or room is None:
            continue
        event = to_client(_event(row, room), now_ms=now_ms)
        _add_invite_state(txn, event, each.room_nid, each.user_id)
        told.append(_Told(each.pos, event))
    return told


def _add_invite_state(txn: Transaction, event: JsonObject, room_nid: int, user_id: str) -> None:
    """What invitees are told of the room is told to those who receive the invite for them."""
    member = memberships.get(txn, room_nid, user_id)
    if member is None or member.event_id != event["event_id"] or member.membership != "invite":
        return
    if member.stripped_state:
        state = json.loads(member.stripped_state)
        event.setdefault("unsigned", {})["invite_room_state"] = state


def _event(row: EventRow, room: RoomRow) -> Event:
    return Event.from_json(row.json, ROOM_VERSIONS[room.version], row.event_id)


def _live(txn: Transaction, owned: Owned, live: Live, after: int, upto: int) -> list[JsonObject]:
    """Typing in the service's rooms, presence of those who share one with its users."""
    if not live.typing and not live.presence:
        return []
    rooms_of = {
        user_id: {row.room_nid for row in memberships.of_user(txn, user_id, ["join"])}
        for user_id in live.presence
    }
    room_nids = set(live.typing).union(*rooms_of.values())
    interest = Interest(txn, owned, after, room_nids)
    found: list[JsonObject] = [
        {"type": "m.typing", "room_id": room_id, "content": {"user_ids": user_ids}}
        for room_nid, (room_id, user_ids) in live.typing.items()
        if room_nid in interest.rooms and interest.is_in(room_nid, upto)
    ]
    found += [
        live.presence[user_id]
        for user_id, rooms in rooms_of.items()
        if owned.user(user_id) or any(interest.is_in(room_nid, upto) for room_nid in rooms)
    ]
    return found


def _receipts(interest: Interest, owned: Owned, receipts: list[Receipt]) -> list[JsonObject]:
    """Receipts by room; private ones of the service's own users alone."""
    by_room: dict[str, JsonObject] = {}
    for receipt in receipts:
        room = interest.rooms.get(receipt.room_nid)
        if room is None or not interest.is_in(receipt.room_nid, receipt.pos):
            continue
        if receipt.type == _PRIVATE and not owned.user(receipt.user_id):
            continue
        told: JsonObject = {"ts": receipt.ts}
        if receipt.thread_id:
            told["thread_id"] = receipt.thread_id
        of_event = by_room.setdefault(room.room_id, {}).setdefault(receipt.event_id, {})
        of_event.setdefault(receipt.type, {})[receipt.user_id] = told
    return [
        {"type": "m.receipt", "room_id": room_id, "content": content}
        for room_id, content in by_room.items()
    ]
