"""What sliding sync sends besides rooms: MSC3885 (to-device), MSC3884 (e2ee), MSC3959 (account
data), MSC3960 (receipts), MSC3961 (typing), MSC4308 (threads that the user follows), MSC4480
(sticky events), MSC4262 (profiles).

Of rooms that are new to the client, or whose extension it asks for the first time, everything is
sent; of others, what is new.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from homeserver.core.types import JsonObject
from homeserver.rooms.thread_subscriptions import as_answer
from homeserver.sync import room_section
from homeserver.sync.request import Snapshot
from homeserver.sync.sliding.connection import Sent
from homeserver.sync.sliding.joined import Section
from homeserver.sync.sliding.request import (
    Extensions,
    ProfilesExtension,
    RoomConfig,
    RoomExtension,
    SlidingRequest,
    StickyExtension,
    ToDeviceExtension,
)
from homeserver.sync.sliding.room_list import Chosen
from homeserver.sync.streams import account_data as account_data_stream
from homeserver.sync.streams import device_lists as device_lists_stream
from homeserver.sync.streams import profiles as profiles_stream
from homeserver.sync.streams import receipts as receipts_stream
from homeserver.sync.streams import sticky as sticky_stream
from homeserver.sync.streams import to_device as to_device_stream
from storage import memberships, profile_changes, receipts, thread_subscriptions, user_news, windows
from storage.receipts import Receipt
from storage.user_news import is_after

THREADS = "io.element.msc4308.thread_subscriptions"
STICKY = "org.matrix.msc4354.sticky_events"
PROFILES = "org.matrix.msc4262.profiles"
BITS = {"account_data": 1, "receipts": 2, "typing": 4, "profiles": 8}
"""Of `SentRoom.extensions`."""
MAX_PROFILES = 500
"""Of one room that is new to the client."""


@dataclass(slots=True)
class More:
    """The part of the answer; other fields as in `engine.Found`."""

    answer: JsonObject = field(default_factory=dict)
    typing: dict[int, tuple[str, bool]] = field(default_factory=dict)
    acknowledged: int | None = None
    is_empty: bool = True


def asked_for(wanted: Extensions) -> frozenset[str]:
    """The extensions that are asked for which are not only about rooms."""
    names = {
        "account_data": wanted.account_data is not None,
        THREADS: wanted.thread_subscriptions is not None,
        _profiles_name(wanted.profiles): wanted.profiles is not None,
    }
    return frozenset(name for name, is_wanted in names.items() if is_wanted)


def _profiles_name(wanted: ProfilesExtension | None) -> str:
    """The name under which is kept that a client has profiles, with the fields."""
    fields = None if wanted is None or wanted.fields is None else sorted(wanted.fields)
    return f"{PROFILES} {json.dumps(fields)}"


class BitsOf:
    """The extensions that are asked for, of rooms of the answer."""

    def __init__(self, wanted: Extensions, chosen: Chosen) -> None:
        self._chosen = chosen
        named = {
            "account_data": wanted.account_data,
            "receipts": wanted.receipts,
            "typing": wanted.typing,
            "profiles": wanted.profiles.rooms if wanted.profiles is not None else None,
        }
        self._asked = [(BITS[name], rooms) for name, rooms in named.items() if rooms is not None]

    def of(self, nid: int) -> int:
        """The bits of a room, see `BITS`."""
        found = 0
        for bit, rooms in self._asked:
            if _is_wanted(nid, rooms, self._chosen):
                found |= bit
        return found


def read(
    snapshot: Snapshot,
    request: SlidingRequest,
    sent: Sent,
    chosen: Chosen,
    sections: Mapping[int, Section],
) -> More:
    """The extensions of an answer with these sections. `sent`: what the client had before."""
    found, wanted = More(), request.extensions
    if wanted.to_device is not None:
        _to_device(snapshot, wanted.to_device, found)
    if wanted.e2ee:
        _e2ee(snapshot, found)
    if wanted.account_data is not None:
        rooms = _Rooms("account_data", wanted.account_data, snapshot, sent, chosen, sections)
        _account_data(snapshot, rooms, "account_data" in sent.extensions, found)
    if wanted.receipts is not None:
        rooms = _Rooms("receipts", wanted.receipts, snapshot, sent, chosen, sections)
        _receipts(snapshot, rooms, sections, found)
    if wanted.thread_subscriptions is not None:
        is_known = THREADS in sent.extensions
        _thread_subscriptions(snapshot, wanted.thread_subscriptions, is_known, found)
    if wanted.sticky is not None:
        _sticky(snapshot, wanted.sticky, chosen, sections, found)
    if wanted.profiles is not None:
        rooms = _Rooms("profiles", wanted.profiles.rooms, snapshot, sent, chosen, sections)
        is_known = _profiles_name(wanted.profiles) in sent.extensions
        configs = chosen.configs
        _profiles(snapshot, wanted.profiles.fields, rooms, is_known, configs, sections, found)
    if wanted.typing is not None:
        rooms = _Rooms("typing", wanted.typing, snapshot, sent, chosen, sections)
        behind = rooms.fresh | rooms.behind.keys()
        found.typing = {
            nid: (chosen.rooms[nid].room_id, nid in behind)
            for nid in rooms.all
            if chosen.rooms[nid].membership == "join"
        }
    return found


class _Rooms:
    """The rooms that an extension is about."""

    def __init__(
        self,
        name: str,
        wanted: RoomExtension,
        snapshot: Snapshot,
        sent: Sent,
        chosen: Chosen,
        sections: Mapping[int, Section],
    ) -> None:
        self.by_nid = chosen.rooms
        self.all = {nid for nid in chosen.configs if _is_wanted(nid, wanted, chosen)}
        bit = BITS[name]
        self.fresh = {
            nid
            for nid in self.all
            if nid not in sent.rooms
            or not sent.rooms[nid].extensions & bit
            or (nid in sections and sections[nid].is_fresh)
        }
        """Of these the client knows nothing."""
        known = [(nid, sent.rooms[nid].upto) for nid in self.all - self.fresh]
        self.behind = {nid: upto for nid, upto in known if upto is not None}
        """Up to where it knows those that it did not follow."""
        self.live = {nid for nid, upto in known if upto is None}
        self.here = {nid for nid in self.all if chosen.rooms[nid].membership == "join"}


def _is_wanted(nid: int, wanted: RoomExtension, chosen: Chosen) -> bool:
    lists = chosen.lists.get(nid, ())
    if lists and (wanted.lists is None or not wanted.lists.isdisjoint(lists)):
        return True
    if nid not in chosen.subscribed:
        return False
    return wanted.rooms is None or chosen.rooms[nid].room_id in wanted.rooms


def _to_device(snapshot: Snapshot, wanted: ToDeviceExtension, found: More) -> None:
    request, now, since = snapshot.request, snapshot.now, wanted.since
    if since is not None:
        since = min(since, now)
    first, reached = snapshot.newest.first_message, None
    messages: list[JsonObject] = []
    if first is not None:
        messages, reached = to_device_stream.messages(
            snapshot.txn, request.user_id, request.device_id, since, now, wanted.limit
        )
        if since is not None and first <= since:
            found.acknowledged = since
    # Where there are none, the place is kept: the answer of a sync that waits is not news.
    upto = reached if reached is not None else now
    found.answer["to_device"] = {"next_batch": str(upto), "events": messages}
    found.is_empty = found.is_empty and not messages


def _e2ee(snapshot: Snapshot, found: More) -> None:
    newest, since = snapshot.newest, snapshot.request.since
    answer: JsonObject = {
        "device_one_time_keys_count": json.loads(newest.one_time_keys or "{}"),
        "device_unused_fallback_key_types": json.loads(newest.unused_fallback or "[]"),
    }
    found.answer["e2ee"] = answer
    if since is None or not (
        is_after(newest.anybodys_devices, since) or is_after(newest.anybodys_membership, since)
    ):
        return
    changed, left = device_lists_stream.changes(
        snapshot.txn, snapshot.request.user_id, since, newest.now
    )
    if changed or left:
        answer["device_lists"] = {"changed": changed, "left": left}
        found.is_empty = False


def _account_data(snapshot: Snapshot, rooms: _Rooms, is_known: bool, found: More) -> None:
    txn, user_id, now = snapshot.txn, snapshot.request.user_id, snapshot.now
    newest, since = snapshot.newest, snapshot.request.since
    answer: JsonObject = {}
    start = since if is_known else None
    if is_after(newest.account_data, start) or is_after(newest.push_rules, start):
        data = account_data_stream.global_changes(txn, user_id, start, now)
        if data:
            answer["global"] = data
    by_nid: dict[int, list[JsonObject]] = {}
    parts: list[tuple[int | None, Collection[int]]] = [
        (None, rooms.fresh),
        (since, rooms.live),
        (min(rooms.behind.values(), default=None), rooms.behind),
    ]
    for after, nids in parts:
        if nids and newest.account_data is not None and is_after(newest.account_data, after):
            by_nid |= account_data_stream.room_changes(txn, user_id, after, now, nids)
    if by_nid:
        answer["rooms"] = {rooms.by_nid[nid].room_id: data for nid, data in by_nid.items()}
    if answer:
        found.answer["account_data"] = answer
        found.is_empty = False


def _thread_subscriptions(snapshot: Snapshot, limit: int, is_known: bool, found: More) -> None:
    """The newest changes; `prev_batch` is where the endpoint of MSC4308 goes on to older ones."""
    since = snapshot.request.since if is_known else None
    changes = thread_subscriptions.changes(
        snapshot.txn, snapshot.request.user_id, since or 0, snapshot.now, limit + 1
    )
    if not changes:
        return
    answer: JsonObject = dict(as_answer(changes[:limit]))
    if len(changes) > limit:
        answer["prev_batch"] = f"t{changes[limit].pos}"
    found.answer[THREADS] = answer
    found.is_empty = False


def _sticky(
    snapshot: Snapshot,
    wanted: StickyExtension,
    chosen: Chosen,
    sections: Mapping[int, Section],
    found: More,
) -> None:
    """Sticky events of the rooms that are in lists, in a window or not; `next_batch` only if
    there are any."""
    since = None if wanted.since is None else min(wanted.since, snapshot.now)
    newest = snapshot.newest
    if newest.sticky is None or not (
        is_after(newest.sticky, since) or is_after(newest.membership, since)
    ):
        return
    user_id, newly = snapshot.request.user_id, set()
    if since is not None and is_after(newest.membership, since):
        changes = memberships.changes_of_user(snapshot.txn, user_id, since, snapshot.now)
        newly = {each.room_nid for each in changes if each.membership == "join" != each.previous}
    here = {nid for nid in chosen.matched if chosen.rooms[nid].membership == "join"}
    stuck = sticky_stream.read(snapshot, since, here, newly & here, wanted.limit)
    rooms: JsonObject = {}
    then = user_news.rooms_since(snapshot.txn, user_id, stuck.rooms.keys(), since)
    for nid, rows in stuck.rooms.items():
        section = sections.get(nid)
        events = (section.answer or {}).get("timeline", ()) if section is not None else ()
        shown = {event["event_id"] for event in events}
        left = [row for row in rows if row.event_id not in shown]
        if left:
            told = room_section.sticky_events(snapshot, then[nid], left)
            rooms[chosen.rooms[nid].room_id] = {"events": told}
    if rooms or stuck.reached is not None:
        upto = stuck.reached if stuck.reached is not None else snapshot.now
        found.answer[STICKY] = {"next_batch": str(upto), "rooms": rooms}
        found.is_empty = False


def _profiles(
    snapshot: Snapshot,
    fields: frozenset[str] | None,
    rooms: _Rooms,
    is_known: bool,
    configs: Mapping[int, RoomConfig],
    sections: Mapping[int, Section],
    found: More,
) -> None:
    """Profiles of the people in rooms that are new to the client, or, where members are lazy, of
    those who sent what the answer has; and what changed in those of all who share a room."""
    people = set() if is_known else {snapshot.request.user_id}
    for nid in rooms.here:
        if configs[nid].required_state.is_lazy:
            section = sections.get(nid)
            events = (section.answer or {}).get("timeline", ()) if section is not None else ()
            people.update(event["sender"] for event in events)
        elif nid in rooms.fresh or not is_known:
            people.update(profile_changes.members(snapshot.txn, nid, MAX_PROFILES))
    told = profiles_stream.current(snapshot, people, fields)
    since = snapshot.request.since
    if is_known and since is not None:
        told |= profiles_stream.changes(snapshot, since, fields)
    if told:
        found.answer[PROFILES] = {"users": profiles_stream.for_sliding(told)}
        found.is_empty = False


def _receipts(
    snapshot: Snapshot, rooms: _Rooms, sections: Mapping[int, Section], found: More
) -> None:
    """Of events that are new to the client, the receipts at these and its own; else what is new.

    Of rooms that it knows, when it asks for the first time, all.
    """
    receipts_found = _new_receipts(snapshot, rooms, sections)
    newest: dict[tuple[int, str, str, str], Receipt] = {}
    for receipt in sorted(receipts_found, key=lambda one: one.pos):
        newest[receipt.room_nid, receipt.user_id, receipt.type, receipt.thread_id] = receipt
    by_nid: dict[int, list[Receipt]] = {}
    for receipt in newest.values():
        by_nid.setdefault(receipt.room_nid, []).append(receipt)
    if not by_nid:
        return
    answer = {}
    for nid, here in by_nid.items():
        content = receipts_stream.content(here)
        answer[rooms.by_nid[nid].room_id] = {"type": "m.receipt", "content": content}
    found.answer["receipts"] = {"rooms": answer}
    found.is_empty = False


def _new_receipts(
    snapshot: Snapshot, rooms: _Rooms, sections: Mapping[int, Section]
) -> list[Receipt]:
    txn, user_id, now = snapshot.txn, snapshot.request.user_id, snapshot.now
    here = {nid for nid in rooms.here if rooms.by_nid[nid].last_receipt is not None}
    shown = {nid for nid in here if nid in sections and sections[nid].event_ids}
    names = {name for nid in shown for name in sections[nid].event_ids}
    found = windows.shown_receipts(txn, user_id, shown, names)
    parts: list[tuple[int | None, Collection[int]]] = [
        (None, rooms.fresh - shown),
        (snapshot.request.since, rooms.live),
        (min(rooms.behind.values(), default=None), rooms.behind),
    ]
    for after, nids in parts:
        new = [n for n in nids if n in here and is_after(rooms.by_nid[n].last_receipt, after)]
        if new:
            found += receipts.visible(txn, user_id, after, now, new)
    return found
