"""The rooms that the user is in, in the answer of sliding sync.

The same reading as for `/sync` (timeline, state by difference of roots, view), but for all rooms
of the answer together: what each of them needs is gathered, then read with one statement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from homeserver.core import state_tree
from homeserver.core.filters import Filter, RoomEventFilter, RoomFilter
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms import aggregations
from homeserver.rooms.view import RoomView
from homeserver.sync import room_section
from homeserver.sync.request import Snapshot
from homeserver.sync.room_timeline import RoomTimeline, first_wanted, read_timeline
from homeserver.sync.sliding.request import RoomConfig
from homeserver.sync.sliding.required_state import ANY, LAZY, MEMBER, RequiredState
from homeserver.sync.sliding.room_list import stamp
from homeserver.sync.streams import unread as unread_stream
from homeserver.sync.summary import HEROES
from storage import events, state, timeline, windows
from storage.events import EventRow
from storage.user_news import RoomThen
from storage.windows import ListedRoom, RoomAt, Wanted

_NAME, _AVATAR = ("m.room.name", ""), ("m.room.avatar", "")
_ALIAS = ("m.room.canonical_alias", "")
_REDACTION = "m.room.redaction"
_NO_EVENTS = RoomTimeline([], False, "", None)


@lru_cache(maxsize=256)
def _filter(limit: int) -> Filter:
    return Filter(room=RoomFilter(timeline=RoomEventFilter(limit=limit)))


def with_limit(snapshot: Snapshot, limit: int) -> Snapshot:
    """The snapshot for a room of which at most so many events are wanted."""
    return replace(snapshot, request=snapshot.request._replace(filter=_filter(limit)))


@dataclass(slots=True)
class Task:
    """A room to be read."""

    listed: ListedRoom
    config: RoomConfig
    since: int | None
    """Up to where the client knows it; None: not at all."""
    old: RoomConfig | None
    """What the client was sent of it before."""
    is_forced: bool
    """Whether it is sent though nothing happened in it."""


@dataclass(slots=True)
class _Room:
    """A room while it is read."""

    task: Task
    at: RoomAt
    view: RoomView
    since: int | None
    is_expanded: bool
    timeline: RoomTimeline = _NO_EVENTS
    changed: dict[StateKey, int | None] = field(default_factory=dict)
    rows: dict[StateKey, EventRow] = field(default_factory=dict)
    """State to send."""
    named: dict[StateKey, EventRow] = field(default_factory=dict)
    """Name and avatar."""
    has_names: bool = False
    is_touched: bool = False
    """Whether the number of members may have changed."""

    @property
    def nid(self) -> int:
        return self.task.listed.room_nid

    @property
    def required(self) -> RequiredState:
        return self.task.config.required_state

    @property
    def is_fresh(self) -> bool:
        return self.since is None


@dataclass(frozen=True, slots=True)
class Section:
    """A room of the answer. `answer` None: there is nothing to say. `has_new_state`: what the
    client did not ask for of its state may have changed as well."""

    answer: JsonObject | None
    is_fresh: bool
    is_gap: bool
    """The client has only the events of this answer without a gap."""
    has_new_state: bool
    event_ids: Collection[str] = ()
    """Events of the timeline that the client may not have receipts of."""


def read_joined(snapshot: Snapshot, tasks: Sequence[Task]) -> dict[int, Section]:
    """The sections of rooms that the user is in, by number."""
    if not tasks:
        return {}
    return _Reader(snapshot, tasks).read()


class _Reader:
    def __init__(self, snapshot: Snapshot, tasks: Sequence[Task]) -> None:
        self._snapshot = snapshot
        self._txn = snapshot.txn
        known = {task.listed.room_nid: task.since for task in tasks}
        found = windows.rooms_at(snapshot.txn, snapshot.request.user_id, known)
        self._rooms = [self._room(task, found[task.listed.room_nid]) for task in tasks]

    def _room(self, task: Task, at: RoomAt) -> _Room:
        since = task.since
        if since is not None and at.joined_at is not None and at.joined_at > since:
            # The user was not in the room all the time: the client starts anew with it.
            since = None
        view = room_section.view_of(self._snapshot, at.row, at.joined_at)
        is_more = task.old is not None and task.config.timeline_limit > task.old.timeline_limit
        return _Room(task, at, view, since, since is not None and is_more)

    def read(self) -> dict[int, Section]:
        self._read_timelines()
        self._read_changes()
        self._read_state()
        self._read_members()
        quiet = [room for room in self._rooms if self._is_quiet(room)]
        loud = [room for room in self._rooms if not self._is_quiet(room)]
        sections = self._sections(loud)
        for room in quiet:
            sections[room.nid] = Section(None, False, False, self._has_new_state(room))
        return sections

    @staticmethod
    def _is_quiet(room: _Room) -> bool:
        if room.is_fresh or room.is_expanded or room.task.is_forced:
            return False
        if room.timeline.seen or room.timeline.limited:
            return False
        return not (room.rows or room.is_touched or room.has_names)

    @staticmethod
    def _has_new_state(room: _Room) -> bool:
        return room.is_fresh or bool(room.changed)

    # Timelines

    def _read_timelines(self) -> None:
        now = self._snapshot.now
        wanted = {}
        for room in self._rooms:
            after = None if room.is_expanded else room.since
            if after is None or room.at.row.last_pos > after:
                limit = room.task.config.timeline_limit
                first = first_wanted(after, room.at.last_break)
                wanted[room.nid] = Wanted(room.nid, first, now, limit + 1)
        found = windows.newest_events(self._txn, wanted.values())
        for room in self._rooms:
            if room.nid in found:
                room.timeline = read_timeline(
                    with_limit(self._snapshot, room.task.config.timeline_limit),
                    room.view,
                    None if room.is_expanded else room.since,
                    now,
                    room.at.last_break,
                    found[room.nid],
                )

    # State

    def _read_changes(self) -> None:
        """What changed in the rooms that the client knows."""
        numbers: dict[int, tuple[_Room, StateKey]] = {}
        for room in self._rooms:
            if room.is_fresh:
                continue
            old = room.at.old_root or state_tree.EMPTY
            new = room.at.row.state_root or state_tree.EMPTY
            if old == new:
                continue
            room.changed = room.view.numbers_changed(old, new)
            room.is_touched = any(key[0] == MEMBER or key == _ALIAS for key in room.changed)
            # Of a gap in the timeline, a client with lazy members fetches the members again.
            all_members = room.required.is_lazy and not room.timeline.limited
            for key, number in room.changed.items():
                if number is None:
                    continue
                is_member = all_members and key[0] == MEMBER
                if is_member or room.required.matches(*key):
                    numbers[number] = (room, key)
        rows = _rows(self._snapshot, numbers)
        for number, row in rows.items():
            room, key = numbers[number]
            room.rows[key] = row

    def _read_state(self) -> None:
        """What the client knows nothing of yet: of new rooms, and where it wants more."""
        wanted: dict[RequiredState, list[_Room]] = {}
        for room in self._rooms:
            required = room.required
            if not room.is_fresh and room.task.old is not None:
                required = required.beyond(room.task.old.required_state)
            if room.is_fresh or required.pairs - {(MEMBER, LAZY)}:
                wanted.setdefault(required, []).append(room)
        for required, rooms in wanted.items():
            self._read_required(required, rooms)
        self._read_names()

    def _read_required(self, required: RequiredState, rooms: Sequence[_Room]) -> None:
        by_nid = {room.nid: room for room in rooms}
        types = set(required.types)
        found = windows.current_state(self._txn, by_nid, required.keys, types)
        for nid, entries in found.items():
            by_nid[nid].rows |= entries
        if not required.any_types:
            return
        for room in rooms:
            numbers = state.current_numbers(self._txn, room.nid, without=MEMBER)
            chosen = {n: key for key, n in numbers.items() if required.matches(*key)}
            rows = _rows(self._snapshot, chosen)
            room.rows |= {chosen[number]: row for number, row in rows.items()}
        names = {room.nid: required.any_types - {ANY} for room in rooms}
        for nid, entries in windows.current_members(self._txn, names).items():
            by_nid[nid].rows |= entries

    def _read_names(self) -> None:
        """Names and avatars: of new rooms, and where they changed."""
        rooms = {}
        for room in self._rooms:
            is_redacted = any(item.row.type == _REDACTION for item in room.timeline.seen)
            if room.is_fresh or is_redacted or {_NAME, _AVATAR} & room.changed.keys():
                rooms[room.nid] = room
                room.has_names = True
            if room.is_fresh or _NAME in room.changed or is_redacted:
                room.is_touched = True
        found = windows.current_state(self._txn, rooms, [_NAME, _AVATAR], ())
        for nid, room in rooms.items():
            room.named = found.get(nid, {})

    def _read_members(self) -> None:
        """With lazy members: those that one needs to show the timeline."""
        wanted: dict[int, set[str]] = {}
        rooms = {room.nid: room for room in self._rooms if room.required.is_lazy}
        for nid, room in rooms.items():
            names = {item.row.sender for item in room.timeline.seen}
            names |= {
                item.row.state_key or "" for item in room.timeline.seen if item.row.type == MEMBER
            }
            wanted[nid] = {name for name in names if (MEMBER, name) not in room.rows}
        known = self._snapshot.known_members
        for nid, entries in windows.current_members(self._txn, wanted).items():
            room = rooms[nid]
            for key, row in entries.items():
                keeps = not room.is_fresh and not room.timeline.limited
                if not (keeps and row.event_nid in known):
                    room.rows[key] = row
        for room in rooms.values():
            self._snapshot.sent_members.update(
                row.event_nid for row in room.rows.values() if row.type == MEMBER
            )

    # Sections

    def _sections(self, rooms: Sequence[_Room]) -> dict[int, Section]:
        touched = [room.nid for room in rooms if room.is_touched]
        counts = windows.member_counts(self._txn, touched)
        nameless = self._nameless(room for room in rooms if room.is_touched)
        heroes = windows.heroes(self._txn, nameless, self._snapshot.request.user_id, HEROES)
        related = timeline.relation_pairs(
            self._txn,
            [
                item.row.event_id
                for room in rooms
                for item in room.timeline.seen
                if item.row.state_key is None
            ],
        )
        unread = unread_stream.counts(
            self._txn,
            self._snapshot.request.user_id,
            [RoomThen(room.at.row, room.at.old_root, room.at.joined_at, None) for room in rooms],
            self._snapshot.newest,
            self._snapshot.ignored,
            self._snapshot.volumes,
        )
        self._snapshot.counts.update(unread)
        found = {}
        for room in rooms:
            answer = self._timeline(room, related)
            answer |= self._names(room)
            if room.is_touched:
                answer["joined_count"] = counts[room.nid].get("join", 0)
                answer["invited_count"] = counts[room.nid].get("invite", 0)
            if room.nid in nameless:
                answer["heroes"] = [
                    {key: value for key, value in hero._asdict().items() if value is not None}
                    for hero in heroes.get(room.nid, ())
                ]
            answer["notification_count"] = unread[room.nid].main.notify
            answer["highlight_count"] = unread[room.nid].main.highlight
            found[room.nid] = self._section(room, answer)
        return found

    def _section(self, room: _Room, answer: JsonObject) -> Section:
        if room.is_fresh:
            answer["initial"] = True
        if room.is_expanded:
            answer["unstable_expanded_timeline"] = True
        answer["bump_stamp"] = stamp(room.task.listed)
        is_new = room.is_fresh or room.is_expanded
        return Section(
            answer,
            room.is_fresh,
            is_new or room.timeline.limited,
            self._has_new_state(room),
            [item.row.event_id for item in room.timeline.seen] if is_new else (),
        )

    def _nameless(self, rooms: Iterable[_Room]) -> set[int]:
        rooms = list(rooms)
        unknown = [room.nid for room in rooms if not room.has_names]
        found = windows.current_state(self._txn, unknown, [_NAME], ())
        nameless = set()
        for room in rooms:
            named = room.named if room.has_names else found.get(room.nid, {})
            if not _text(room.view, named.get(_NAME), "name"):
                nameless.add(room.nid)
        return nameless

    def _timeline(self, room: _Room, related: Mapping[str, object]) -> JsonObject:
        view, now_ms, seen = room.view, self._snapshot.now_ms, room.timeline.seen
        relations: dict[str, JsonObject] = {}
        if any(item.row.event_id in related for item in seen):
            ignored = self._snapshot.ignored
            relations = aggregations.bundle(view, seen, now_ms, ignored=ignored, room_id=False)
        answer: JsonObject = {}
        if seen or room.is_fresh or room.is_expanded or room.timeline.limited:
            shown = view.render(seen, now_ms, room_id=False, relations=relations)
            answer["timeline"] = shown
            answer["limited"] = room.timeline.limited
            answer["prev_batch"] = room.timeline.prev_batch
            answer["num_live"] = self._live(room)
        if room.rows:
            rows = list(room.rows.values())
            answer["required_state"] = view.render_state(rows, now_ms, room_id=False)
        return answer

    def _live(self, room: _Room) -> int:
        since = self._snapshot.request.since
        if since is None:
            return 0
        return sum((item.row.pos or 0) > since for item in room.timeline.seen)

    @staticmethod
    def _names(room: _Room) -> JsonObject:
        """Name and avatar; None where they are gone."""
        if not room.has_names:
            return {}
        found = {
            "name": _text(room.view, room.named.get(_NAME), "name"),
            "avatar": _text(room.view, room.named.get(_AVATAR), "url"),
        }
        if room.is_fresh:
            return {key: value for key, value in found.items() if value is not None}
        return found


def _rows(snapshot: Snapshot, numbers: Collection[int]) -> dict[int, EventRow]:
    wanted = list(numbers)
    rows: dict[int, EventRow] = {}
    for start in range(0, len(wanted), 500):
        rows |= events.get_by_nids(snapshot.txn, wanted[start : start + 500])
    return rows


def _text(view: RoomView, row: EventRow | None, key: str) -> str | None:
    value = view.event(row).content.get(key) if row is not None else None
    return value if isinstance(value, str) and value else None
