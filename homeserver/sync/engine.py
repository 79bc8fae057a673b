"""`/sync`: positions in, answer out (client-server API, "Syncing").

1. Everything durable is read in one transaction, whose snapshot is at one position of the clock:
   the answer has all up to it and nothing after it, and `next_batch` names it.
2. What is not durable (typing, presence) is read next to it, by a position of its own.
3. Only rooms in which something happened are looked at, unless everything is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from homeserver.core.types import JsonObject
from homeserver.sync import room_section
from homeserver.sync.lazy_members import SentMembers
from homeserver.sync.request import Snapshot, SyncRequest
from homeserver.sync.streams import account_data as account_data_stream
from homeserver.sync.streams import device_lists as device_lists_stream
from homeserver.sync.streams import receipts as receipts_stream
from homeserver.sync.streams import to_device as to_device_stream
from homeserver.sync.streams import unread as unread_stream
from storage import account_data, clock, memberships, rooms
from storage.memberships import MembershipChange, MembershipRow
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

GONE = ("leave", "ban")
MAX_NEW_PEOPLE = 500
"""Members of one newly joined room whose presence is sent at once."""


@dataclass(slots=True)
class Durable:
    """What the log says, and what the rest of the answer needs to know."""

    now: int
    answer: JsonObject
    joined: Mapping[str, int] = field(default_factory=dict)
    """Numbers of the rooms that the user is in, by ID."""
    newly_joined: frozenset[int] = frozenset()
    new_people: frozenset[str] = frozenset()
    """Members of the rooms that are new to the client."""
    is_empty: bool = True
    to_device_reached: int | None = None
    """More messages to the device wait than the answer has: this is the position of its last."""
    has_acknowledged: bool = False
    """The token says that messages arrived: `acknowledge` deletes them."""


class SyncEngine:
    """Computes the durable part of answers."""

    def __init__(self, states: StateStore) -> None:
        self._states = states
        self._sent_members = SentMembers()

    def read(self, txn: Transaction, request: SyncRequest, now_ms: int) -> Durable:
        """What happened since the token of the request. Runs in a database thread."""
        snapshot = Snapshot(
            txn,
            self._states,
            request,
            clock.position(txn),
            now_ms,
            account_data.ignored_users(txn, request.user_id),
            self._sent_members,
        )
        return _Reading(snapshot).read()


class _Reading:
    """One computation."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._request = snapshot.request
        self._txn = snapshot.txn

    def read(self) -> Durable:
        request = self._request
        members = {
            row.room_nid: row
            for row in memberships.of_user(self._txn, request.user_id)
            if not (row.forgotten and row.membership in GONE)
        }
        changes = self._own_changes()
        joined = {nid: row for nid, row in members.items() if row.membership == "join"}
        newly = _newly_joined(joined, changes)
        rows = rooms.get_many(self._txn, self._relevant(members, changes))
        rows = {
            nid: row for nid, row in rows.items() if request.filter.room.matches_room(row.room_id)
        }
        here = {nid: rows[nid] for nid in joined if nid in rows}
        join = self._joined(here, newly)
        leave = self._left(rows, members, changes)
        invite, knock = (
            self._pending(rows, members, "invite"),
            self._pending(rows, members, "knock"),
        )
        data = account_data_stream.global_changes(
            self._txn, request.user_id, request.since, self._snapshot.now
        )
        wanted = request.filter.account_data
        data = [event for event in data if wanted.matches(event["type"])]
        answer: JsonObject = {}
        if data:
            answer["account_data"] = {"events": data}
        sections = {"join": join, "leave": leave, "invite": invite, "knock": knock}
        answer["rooms"] = {name: section for name, section in sections.items() if section}
        is_empty = not data and not answer["rooms"]
        if not answer["rooms"]:
            del answer["rooms"]
        names = {row.room_id: nid for nid, row in here.items()}
        reached = self._add_devices(answer)
        return Durable(
            self._snapshot.now,
            answer,
            names,
            frozenset(newly),
            self._people(newly),
            is_empty and not answer.keys() & {"to_device", "device_lists"},
            reached,
            self._has_acknowledged(),
        )

    def _has_acknowledged(self) -> bool:
        request = self._request
        since = request.to_device_since
        return since is not None and to_device_stream.has_acknowledged(
            self._txn, request.user_id, request.device_id, since
        )

    def _add_devices(self, answer: JsonObject) -> int | None:
        """Messages to the device and changes of others' devices."""
        request, now = self._request, self._snapshot.now
        # No keys can be uploaded yet: there are none to count.
        answer["device_one_time_keys_count"] = {}
        answer["device_unused_fallback_key_types"] = []
        reached = None
        if request.device_id:
            messages, reached = to_device_stream.messages(
                self._txn, request.user_id, request.device_id, request.to_device_since, now
            )
            if messages:
                answer["to_device"] = {"events": messages}
        if request.since is not None:
            changed, left = device_lists_stream.changes(
                self._txn, request.user_id, request.since, now
            )
            if changed or left:
                answer["device_lists"] = {"changed": changed, "left": left}
        return reached

    def _people(self, room_nids: Iterable[int]) -> frozenset[str]:
        found: set[str] = set()
        for nid in room_nids:
            members = memberships.first_others(
                self._txn, nid, self._request.user_id, ["join"], MAX_NEW_PEOPLE
            )
            found.update(members)
        return frozenset(found)

    def _own_changes(self) -> list[MembershipChange]:
        since = self._request.since
        if since is None:
            return []
        return memberships.changes_of_user(
            self._txn, self._request.user_id, since, self._snapshot.now
        )

    def _relevant(
        self, members: Mapping[int, MembershipRow], changes: Iterable[MembershipChange]
    ) -> set[int]:
        """Rooms whose rows are needed: all that the user is in, and those they just left."""
        request = self._request
        changed = {change.room_nid for change in changes}
        return {
            nid
            for nid, row in members.items()
            if row.membership not in GONE
            or nid in changed
            or (request.since is None and request.filter.room.include_leave)
            or (request.full_state and request.filter.room.include_leave)
        }

    # Joined rooms

    def _joined(self, here: Mapping[int, RoomRow], newly: Collection[int]) -> JsonObject:
        request, snapshot = self._request, self._snapshot
        since = request.since
        busy = set(here)
        touched: set[int] = set()
        if since is not None and not request.full_state:
            busy = {nid for nid, row in here.items() if row.last_pos > since or nid in newly}
            touched = receipts_stream.changed_rooms(
                self._txn, request.user_id, since, snapshot.now, here.keys() - busy
            )
        sections: dict[int, JsonObject] = {}
        for nid in busy:
            section = room_section.joined(snapshot, here[nid], newly=since is None or nid in newly)
            if section is not None:
                sections[nid] = section
        self._add_extras(here, busy | touched, newly, sections)
        concerned = [here[nid] for nid in (sections.keys() | touched) if nid in here]
        counts = unread_stream.counts(self._txn, request.user_id, concerned)
        by_thread = request.filter.room.unread_thread_notifications
        for room in concerned:
            section = sections.setdefault(room.room_nid, nothing(request))
            room_section.unread(section, counts[room.room_nid], by_thread=by_thread)
        return {here[nid].room_id: section for nid, section in sections.items()}

    def _add_extras(
        self,
        here: Mapping[int, RoomRow],
        rooms_: Collection[int],
        newly: Collection[int],
        sections: dict[int, JsonObject],
    ) -> None:
        """Receipts and account data: all of them for rooms that are new to the client."""
        request, now = self._request, self._snapshot.now
        wanted = request.filter.room
        fresh = set(here) if request.since is None else set(newly)
        for nids, since in ((fresh, None), (set(rooms_) - fresh, request.since)):
            if not nids:
                continue
            receipts = receipts_stream.room_changes(self._txn, request.user_id, since, now, nids)
            for nid, event in receipts.items():
                if wanted.ephemeral.matches_event(event["type"], None, here[nid].room_id):
                    section = sections.setdefault(nid, nothing(self._request))
                    section["ephemeral"] = {"events": [event]}
            data = account_data_stream.room_changes(self._txn, request.user_id, since, now, nids)
            for nid, events in data.items():
                chosen = [
                    event
                    for event in events
                    if wanted.account_data.matches_event(event["type"], None, here[nid].room_id)
                ]
                if chosen:
                    section = sections.setdefault(nid, nothing(self._request))
                    section["account_data"] = {"events": chosen}

    # Other rooms

    def _left(
        self,
        rows: Mapping[int, RoomRow],
        members: Mapping[int, MembershipRow],
        changes: Iterable[MembershipChange],
    ) -> JsonObject:
        request = self._request
        first: dict[int, MembershipChange] = {}
        for change in changes:
            first.setdefault(change.room_nid, change)
        sections = {}
        for nid, row in rows.items():
            member = members[nid]
            if member.membership not in GONE:
                continue
            if nid not in first and not request.filter.room.include_leave:
                continue
            was_joined = nid in first and first[nid].previous == "join"
            sections[row.room_id] = room_section.left(
                self._snapshot, row, member, was_joined=was_joined
            )
        return sections

    def _pending(
        self, rows: Mapping[int, RoomRow], members: Mapping[int, MembershipRow], kind: str
    ) -> JsonObject:
        request = self._request
        sections: JsonObject = {}
        if kind == "invite" and account_data.blocks_invites(self._txn, request.user_id):
            return sections
        for nid, row in rows.items():
            member = members[nid]
            if member.membership != kind:
                continue
            is_new = request.since is None or member.pos > request.since or request.full_state
            if is_new and not (kind == "invite" and member.sender in self._snapshot.ignored):
                sections[row.room_id] = {f"{kind}_state": room_section.stripped(member)}
        return sections


def acknowledge(txn: Transaction, request: SyncRequest) -> None:
    """Delete the messages that the device's token says it has got."""
    if request.to_device_since is not None:
        to_device_stream.acknowledge(
            txn, request.user_id, request.device_id, request.to_device_since
        )


def _newly_joined(
    joined: Mapping[int, MembershipRow], changes: Iterable[MembershipChange]
) -> set[int]:
    return {
        change.room_nid
        for change in changes
        if change.room_nid in joined and change.membership == "join" and change.previous != "join"
    }


def nothing(request: SyncRequest) -> JsonObject:
    """The section of a room in whose timeline nothing happened."""
    state = "state_after" if request.use_state_after else "state"
    return {
        "timeline": {"events": [], "limited": False},
        state: {"events": []},
    }
