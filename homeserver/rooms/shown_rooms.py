"""What clients are shown of rooms, ready to be sent, in memory.

A `ShownRoom` has the newest events of a room and its current state, each as the client form whose
text is put together in `homeserver.core.client_text`. Nothing tells that it is out of date: each
reading compares it with the row of the room in its own snapshot. The same newest position, version
of the state and `content_version` (`storage.rooms.contents_changed`) prove that it is what the
snapshot has, whichever process changed something.

What the reader may see is not judged here, and nothing here is of one reader only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from homeserver.cache import Cache
from homeserver.core.client_text import FORM_BYTES, ClientForm, client_form, membership_in
from homeserver.core.types import StateKey
from homeserver.core.visibility import HistoryVisibility, visibility_of
from storage import relations, shown, windows
from storage.rooms import RoomRow
from storage.shown import StateRow, TimelineRow
from storage.transaction import Transaction

MAX_EVENTS = 50
"""Of a timeline; of longer ones nothing is kept."""
MAX_STATE = 5_000
"""State events of rooms that are read at once. Rooms with more are not kept."""
FIRST = 6
"""Members by whom a room without a name is called: heroes, and perhaps the reader."""

_MEMBER = "m.room.member"
_NAMES: Mapping[StateKey, str] = {
    ("m.room.name", ""): "name",
    ("m.room.canonical_alias", ""): "alias",
}
_VISIBILITY: StateKey = ("m.room.history_visibility", "")
_EVENT_BYTES = 800
"""Of an event of a timeline without its client form."""
_STATE_BYTES = 400


class ShownEvent(NamedTuple):
    """An event of a timeline; as `storage.events.EventRow`, and its client form."""

    event_nid: int
    event_id: str
    pos: int
    type: str
    state_key: str | None
    sender: str
    state_before: bytes | None
    state_after: bytes | None
    replaces_state: str | None
    txn_device: str | None
    txn_id: str | None
    form: ClientForm | None
    """None: it cannot be shown by text alone."""
    is_related: bool
    """Whether anything relates to it."""
    membership: str | None = None
    """Of a member event: see `homeserver.core.event.Event.membership`."""


class ShownState(NamedTuple):
    """An event of the current state; as `ShownEvent`."""

    event_nid: int
    pos: int | None
    form: ClientForm | None
    membership: str | None
    """Of a member event: see `homeserver.core.event.Event.membership`."""


class _Version(NamedTuple):
    content: int
    last_pos: int
    state: int
    root: bytes | None

    def has_state_of(self, other: _Version) -> bool:
        return self[0] == other[0] and self[2:] == other[2:]

    def has_events_of(self, other: _Version) -> bool:
        return self[:2] == other[:2]


@dataclass(slots=True)
class ShownRoom:
    """What is kept of a room. Only `members` grows while it is kept."""

    version: _Version
    events: Sequence[ShownEvent] = ()
    """The newest, at most `asked`, the last known first."""
    asked: int = 0
    state: Mapping[StateKey, ShownState] = field(default_factory=dict)
    """The current state without members."""
    members: dict[str, ShownState | None] = field(default_factory=dict)
    """Those of the current member events that somebody needed; None: there is none."""
    has_all_members: bool = False
    has_state: bool = False
    is_named: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many users are joined and invited."""
    visibility: HistoryVisibility = HistoryVisibility.SHARED
    """Of its history, as its current state says."""
    first: Sequence[str] = ()
    """If it has no name: the first who are joined or invited, else who left. `FIRST` of them."""

    def take_state(self, other: ShownRoom) -> None:
        """Have the state of another one, which is of the same state."""
        self.state, self.members = other.state, other.members
        self.has_state, self.has_all_members = other.has_state, other.has_all_members
        self.is_named, self.counts, self.first = other.is_named, other.counts, other.first
        self.visibility = other.visibility

    def heroes(self, user_id: str, count: int) -> list[str] | None:
        """As `homeserver.sync.summary.heroes`; None if that is not known."""
        if self.is_named:
            return []
        found = [name for name in self.first if name != user_id][:count]
        return found or None

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        total = 2000 + _EVENT_BYTES * len(self.events)
        total += _STATE_BYTES * (len(self.state) + len(self.members))
        for kept in (*self.events, *self.state.values(), *self.members.values()):
            form = kept.form if kept is not None else None
            if form is not None:
                total += FORM_BYTES + len(form.head) + len(form.tail)
        return total


class Asked(NamedTuple):
    """A room that is asked for, as the snapshot has it."""

    row: RoomRow
    content_version: int

    @property
    def version(self) -> _Version:
        row = self.row
        return _Version(self.content_version, row.last_pos, row.state_version, row.state_root)


class ShownRooms:
    """Keeps what was shown of rooms. Used by all threads that read the database.

    Parameters: `count` is told how rooms were shown: "memory", by what is kept here, or "general".
    """

    def __init__(self, count: Callable[[str, int], None] = lambda how, rooms: None) -> None:
        self._rooms: Cache[int, ShownRoom] = Cache(
            "rooms_shown", lambda _, room: room.size, share=0.5
        )
        self.caches = (self._rooms,)
        self.count = count

    def read(
        self, txn: Transaction, asked: Sequence[Asked], events: int, *, all_members: bool
    ) -> dict[int, ShownRoom]:
        """Rooms, by number, each with as many of its newest events and its current state.

        Left out are rooms with too much state. At most 100 rooms should be asked for at once.

        Parameters: `events`, at most `MAX_EVENTS`, 0 for only the state; `all_members`, whether the
            state is wanted with all members, of whom else only those are there that were needed
            before.
        """
        found: dict[int, ShownRoom] = {}
        late: dict[int, ShownRoom] = {}
        bare: dict[int, ShownRoom] = {}
        for one in asked:
            nid, version = one.row.room_nid, one.version
            old = self._rooms.get(nid)
            room = ShownRoom(version)
            if old is not None and old.version.has_events_of(version):
                room.events, room.asked = old.events, old.asked
            if old is not None and old.version.has_state_of(version):
                room.take_state(old)
            if room.asked < events:
                late[nid] = room
            if not room.has_state or (all_members and not room.has_all_members):
                bare[nid] = room
            unchanged = old is not None and old.version == version
            found[nid] = old if old and unchanged and nid not in late and nid not in bare else room
        if late:
            self._read_events(txn, late, events)
        if bare:
            for nid in self._read_states(txn, bare, all_members):
                del found[nid]
                late.pop(nid, None)
        for nid in late.keys() | bare.keys():
            if nid in found:
                self._rooms.put(nid, found[nid])
        return found

    def add_members(
        self, txn: Transaction, wanted: Iterable[tuple[int, ShownRoom, Collection[str]]]
    ) -> None:
        """Read the member events of users that rooms lack. `wanted`: number, room, users."""
        missing: dict[int, set[str]] = {}
        rooms: dict[int, ShownRoom] = {}
        for nid, room, names in wanted:
            if room.has_all_members:
                continue
            unknown = {name for name in names if name not in room.members}
            if unknown:
                missing[nid], rooms[nid] = unknown, room
        for row in shown.members(txn, missing):
            rooms[row.room_nid].members[row.state_key] = _state(row)
        for nid, unknown in missing.items():
            for name in unknown:
                rooms[nid].members.setdefault(name, None)
            self._rooms.put(nid, rooms[nid])

    def _read_events(self, txn: Transaction, rooms: Mapping[int, ShownRoom], count: int) -> None:
        wanted = [
            windows.Wanted(nid, None, room.version.last_pos, count) for nid, room in rooms.items()
        ]
        found = shown.newest(txn, wanted)
        related = relations.with_children(
            txn, [row.event_id for rows in found.values() for row in rows]
        )
        for nid, rows in found.items():
            room = rooms[nid]
            room.events = tuple(_event(row, row.event_id in related) for row in rows)
            room.asked = count

    def _read_states(
        self, txn: Transaction, rooms: Mapping[int, ShownRoom], all_members: bool
    ) -> list[int]:
        """Returns the numbers of rooms with too much state."""
        for nid, counts in windows.member_counts(txn, rooms.keys()).items():
            rooms[nid].counts = counts
        too_large: list[int] = []
        if all_members:
            too_large = [n for n, room in rooms.items() if sum(room.counts.values()) > MAX_STATE]
        for part in _parts([nid for nid in rooms if nid not in too_large], rooms, all_members):
            too_large += self._read_state(txn, rooms, part, None if all_members else _MEMBER)
        nameless = [nid for nid, room in rooms.items() if not room.is_named]
        for nid, heroes in windows.heroes(txn, nameless, "", FIRST).items():
            rooms[nid].first = tuple(hero.user_id for hero in heroes)
        return too_large

    def _read_state(
        self,
        txn: Transaction,
        rooms: Mapping[int, ShownRoom],
        nids: Sequence[int],
        without: str | None,
    ) -> list[int]:
        rows = shown.current(txn, nids, MAX_STATE, without=without)
        if rows is None:
            if len(nids) == 1:
                return list(nids)
            middle = len(nids) // 2
            return [
                *self._read_state(txn, rooms, nids[:middle], without),
                *self._read_state(txn, rooms, nids[middle:], without),
            ]
        states: dict[int, dict[StateKey, ShownState]] = {nid: {} for nid in nids}
        for row in rows:
            if row.type == _MEMBER:
                rooms[row.room_nid].members[row.state_key] = _state(row)
                continue
            states[row.room_nid][row.type, row.state_key] = _state(row)
            if (row.type, row.state_key) in _NAMES and _is_name(row):
                rooms[row.room_nid].is_named = True
            elif (row.type, row.state_key) == _VISIBILITY:
                content = orjson.loads(row.json)["content"]
                rooms[row.room_nid].visibility = visibility_of(content)
        for nid, state in states.items():
            rooms[nid].state = state
            rooms[nid].has_state = True
            rooms[nid].has_all_members = without is None
        return []


def _parts(
    nids: Iterable[int], rooms: Mapping[int, ShownRoom], all_members: bool
) -> Iterator[list[int]]:
    """The rooms in parts that are likely to have less than `MAX_STATE` events together."""
    part: list[int] = []
    size = 0
    for nid in nids:
        expected = 50 + (2 * sum(rooms[nid].counts.values()) if all_members else 0)
        if part and size + expected > MAX_STATE:
            yield part
            part, size = [], 0
        part.append(nid)
        size += expected
    if part:
        yield part


def _event(row: TimelineRow, is_related: bool) -> ShownEvent:
    form = None
    if row.redacted_by is None:
        form = client_form(row.json, row.event_id, replaces_state=row.replaces_state)
    membership = membership_in(row.json) if row.type == _MEMBER else None
    more = (form, is_related, membership)
    return ShownEvent._make(row[1:7] + row[8:11] + row[12:] + more)


def _state(row: StateRow) -> ShownState:
    form = None
    if row.redacted_by is None:
        form = client_form(row.json, row.event_id, replaces_state=row.replaces_state)
    membership = membership_in(row.json) if row.type == _MEMBER else None
    return ShownState._make((row.event_nid, row.pos, form, membership))


def _is_name(row: StateRow) -> bool:
    """As `storage.state.current_names`."""
    value = orjson.loads(row.json)["content"].get(_NAMES[row.type, row.state_key])
    return isinstance(value, str) and bool(value)
