"""The state trees of one room within one transaction, in terms of state keys and events.

Nodes that the transaction makes are kept here until `save`; events that it has yet to insert can
be told with `add`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Any, cast

from homeserver.core import state_res, state_tree
from homeserver.core.auth_chain import full_conflicted_set
from homeserver.core.event import Event
from homeserver.core.room_versions import RoomVersion
from homeserver.core.state_sets import Step
from homeserver.core.types import StateKey
from homeserver.rooms import redact
from storage import events
from storage.auth_index import RoomEdges
from storage.state import StateStore
from storage.transaction import Transaction

_BATCH = 1000
_NONE: Mapping[str, Event] = {}


class RoomTree:
    """See the module."""

    def __init__(
        self, txn: Transaction, states: StateStore, room_nid: int, version: RoomVersion
    ) -> None:
        self._txn = txn
        self._states = states
        self._room_nid = room_nid
        self._version = version
        self._stored = states.loader(txn, room_nid)
        self._fresh: dict[bytes, bytes] = {}
        self._nids: dict[StateKey, int] = {}
        self._by_nid: dict[int, Event] = {}
        self._added: set[int] = set()
        self._by_id: dict[str, tuple[int, Event]] = {}
        self._numbers: dict[str, int] = {}
        self._looked_up: dict[bytes, dict[StateKey, int | None]] = {}
        self._rejected: set[str] = set()
        self._resolved: dict[frozenset[bytes], bytes] = {}
        self._edges: RoomEdges | None = None

    def add(self, event: Event, event_nid: int, *, rejected: bool = False) -> None:
        """Tell of an event that is not in the database yet.

        Parameters: `rejected`, by its own auth events.
        """
        self._added.add(event_nid)
        self._keep(event, event_nid)
        if rejected:
            self._rejected.add(event.event_id)
        else:
            # Of one that was rejected, and is judged anew.
            self._rejected.discard(event.event_id)

    def know(
        self, numbers: Mapping[str, int], given: Mapping[str, Event], rejected: Set[str]
    ) -> None:
        """Tell of events of this room that are stored as they are `given`, by ID."""
        for name, number in numbers.items():
            event = given.get(name)
            if event is not None:
                self.add(event, number, rejected=name in rejected)

    def _keep(self, event: Event, event_nid: int) -> None:
        self._by_nid[event_nid] = event
        self._by_id[event.event_id] = (event_nid, event)

    def forget(self, event_id: str) -> None:
        """Read the event anew when it is asked for: it was redacted."""
        found = self._by_id.pop(event_id, None)
        if found is not None:
            del self._by_nid[found[0]]

    def redact(self, redaction_id: str) -> None:
        """Apply a redaction that waited for its event, which is stored."""
        redact.apply_held(self._txn, self._states, self._room_nid, redaction_id, self._version)

    def load(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Nodes by their hashes, the new ones included."""
        if not self._fresh:
            return self._stored(hashes)
        missing = [name for name in hashes if name not in self._fresh]
        found = dict(self._stored(missing)) if missing else {}
        return found | {name: self._fresh[name] for name in hashes if name in self._fresh}

    def save(self) -> None:
        """Store the new nodes, and what a resolution had to find out at length."""
        self._states.save(self._txn, self._room_nid, self._fresh)
        if self._edges is not None:
            self._edges.save()

    def build(self, numbers: Mapping[StateKey, int]) -> bytes:
        """The root of a state that is given whole."""
        nids = self._intern(numbers.keys())
        root, nodes = state_tree.build({nids[key]: number for key, number in numbers.items()})
        self._fresh |= nodes
        return root

    def update(self, root: bytes, changes: Mapping[StateKey, int | None]) -> bytes:
        """The root of a state with other events, by their numbers; None removes a key."""
        if not changes:
            return root
        nids = self._intern(changes.keys())
        numbers = {nids[key]: number for key, number in changes.items()}
        new, nodes = state_tree.update(root, numbers, self.load)
        self._fresh |= nodes
        return new

    def numbers(self, root: bytes, keys: Collection[StateKey]) -> dict[StateKey, int]:
        """Numbers of the events that a state has under these keys."""
        # A root never changes, and the same few keys are asked for with every event.
        known = self._looked_up.setdefault(root, {})
        missing = [key for key in keys if key not in known]
        if missing:
            known.update(self._look_up(root, missing))
        return {key: number for key in keys if (number := known[key]) is not None}

    def _look_up(self, root: bytes, keys: Collection[StateKey]) -> dict[StateKey, int | None]:
        unknown = [key for key in keys if key not in self._nids]
        if unknown:
            self._nids |= self._states.lookup(self._txn, unknown)
        nids = {self._nids[key]: key for key in keys if key in self._nids}
        found: dict[StateKey, int | None] = dict.fromkeys(keys)
        for nid, number in state_tree.get(root, nids, self.load).items():
            found[nids[nid]] = number
        return found

    def state(self, root: bytes, keys: Collection[StateKey]) -> dict[StateKey, Event]:
        """The events that a state has under these keys."""
        numbers = self.numbers(root, keys)
        found = self.events_of(numbers.values())
        return {key: found[number] for key, number in numbers.items()}

    def all_numbers(self, root: bytes) -> dict[StateKey, int]:
        """The whole of a state."""
        entries = dict(state_tree.items(root, self.load))
        names = self._names(entries.keys())
        return {names[nid]: number for nid, number in entries.items()}

    def diff(self, old: bytes, new: bytes) -> dict[StateKey, tuple[int | None, int | None]]:
        """Numbers of the events under the keys in which two states differ."""
        if old == new:
            return {}
        found = state_tree.diff(old, new, self.load)
        names = self._names(found.keys())
        self._nids.update((names[nid], nid) for nid in found)
        return {names[nid]: pair for nid, pair in found.items()}

    def diff_known(
        self, old: bytes, new: bytes, near: bytes, entries: Mapping[StateKey, int]
    ) -> dict[StateKey, tuple[int | None, int | None]]:
        """`diff` of states of which the new one is, but for little, the state `near`, which has
        these entries: quick where the old one has few.
        """
        if state_tree.count(old, self.load) * 4 > len(entries):
            return self.diff(old, new)
        before = self.all_numbers(old)
        found: dict[StateKey, tuple[int | None, int | None]] = {
            key: (before.get(key), number)
            for key, number in entries.items()
            if before.get(key) != number
        }
        found |= {key: (number, None) for key, number in before.items() if key not in entries}
        for key, (_, now) in self.diff(near, new).items():
            was = before.get(key)
            if was == now:
                found.pop(key, None)
            else:
                found[key] = (was, now)
        return found

    def events_of(self, numbers: Collection[int]) -> dict[int, Event]:
        """Events by their numbers."""
        missing = [number for number in numbers if number not in self._by_nid]
        for start in range(0, len(missing), _BATCH):
            for row in events.texts_by_nids(self._txn, missing[start : start + _BATCH]):
                self.tell(row)
        found = zip(numbers, map(self._by_nid.get, numbers), strict=True)
        return {number: event for number, event in found if event is not None}

    def number_of(self, event_id: str) -> int | None:
        """The number of an event."""
        return self.numbers_of([event_id]).get(event_id)

    def numbers_of(
        self, event_ids: Collection[str], given: Mapping[str, Event] = _NONE
    ) -> dict[str, int]:
        """Numbers of events by their IDs; unknown ones are left out.

        Parameters: `given`, events at hand, which then need not be read when they are asked for.
        """
        known, by_id = self._numbers, self._by_id
        missing = [name for name in event_ids if name not in by_id and name not in known]
        for start in range(0, len(missing), _BATCH):
            for row in events.numbers(self._txn, missing[start : start + _BATCH]):
                # An event of another room is none of this one's.
                if row.room_nid != self._room_nid:
                    continue
                known[row.event_id] = row.event_nid
                if row.event_id in given and not row.is_redacted:
                    is_rejected = row.status == events.REJECTED
                    self.add(given[row.event_id], row.event_nid, rejected=is_rejected)
                elif row.status == events.REJECTED:
                    self._rejected.add(row.event_id)
        return {
            name: by_id[name][0] if name in by_id else known[name]
            for name in event_ids
            if name in by_id or name in known
        }

    def resolve(self, roots: Collection[bytes]) -> bytes:
        """The root of the resolution of states: they are taken together by the room's version."""
        distinct = frozenset(roots)
        if len(distinct) == 1:
            return next(iter(distinct))
        found = self._resolved.get(distinct)
        if found is None:
            found = self._resolved[distinct] = self._resolve(sorted(distinct))
        return found

    def _resolve(self, roots: Sequence[bytes]) -> bytes:
        conflicted, conflicted_sets = self.conflicts(roots)
        return self.resolve_conflicts(roots, conflicted, conflicted_sets)

    def resolve_conflicts(
        self,
        roots: Sequence[bytes],
        conflicted: Collection[StateKey],
        conflicted_sets: Sequence[Mapping[StateKey, str]],
        steps: list[Step] | None = None,
    ) -> bytes:
        """The root of the resolution of states whose conflicts are known (see `conflicts`).

        `steps`, if given, is told what the resolution looked at.
        """
        if not conflicted:
            return roots[0]
        changes = state_res.resolve_conflicts(
            conflicted_sets,
            _Unconflicted(self, roots[0], conflicted),
            self.event,
            self._version,
            get_events=self.event_map,
            is_rejected=self.is_rejected,
            full_conflicted_set=lambda id_sets, subgraph: self._full_conflicted_set(
                roots[0], id_sets, subgraph
            ),
            steps=steps,
        )
        known = self.numbers_of(changes.values())
        return self.update(
            roots[0],
            {key: known[changes[key]] if key in changes else None for key in conflicted},
        )

    def _full_conflicted_set(
        self, root: bytes, id_sets: Sequence[Set[str]], subgraph: bool
    ) -> set[str]:
        """`auth_chain.full_conflicted_set`, for which only numbers are read: found by these."""
        number_sets = [{self._by_id[name][0] for name in names} for names in id_sets]

        def unconflicted() -> set[int]:
            return set(state_tree.values(root, self.load)).difference(*number_sets)

        full = full_conflicted_set(number_sets, unconflicted, self, subgraph=subgraph)
        # What they rest on is asked for next: all is read at once.
        found = self.events_of(full | self.auth_nodes(full))
        return {found[number].event_id for number in full if number in found}

    def auth_edges(self, numbers: Set[int]) -> dict[int, tuple[int, ...]]:
        """The auth events of each of these events, as far as they are known (`AuthEdges`)."""
        added = self._added.intersection(numbers)
        found = self._stored_edges().of_each(numbers - added if added else numbers)
        return found | self._added_edges(added) if added else found

    def auth_nodes(self, numbers: Collection[int]) -> set[int]:
        """The auth events of all of these together (`AuthEdges`)."""
        added = self._added.intersection(numbers)
        if added:
            numbers = [number for number in numbers if number not in added]
        return self._stored_edges().of_all(numbers).union(*self._added_edges(added).values())

    def _stored_edges(self) -> RoomEdges:
        if self._edges is None:
            self._edges = self._states.auth.of_room(self._txn, self._room_nid, self._by_nid.get)
        return self._edges

    def _added_edges(self, added: Collection[int]) -> dict[int, tuple[int, ...]]:
        """Of events that are perhaps not in the database yet."""
        return {
            number: tuple(self.numbers_of(self._by_nid[number].auth_event_ids).values())
            for number in added
        }

    def conflicts(self, roots: Sequence[bytes]) -> tuple[set[StateKey], list[dict[StateKey, str]]]:
        """The keys in which states differ, and the event IDs that each has under them."""
        # By key, the numbers of the events that each state has; the first one's stand for those
        # of the states that do not differ from it.
        differences = [self.diff(roots[0], other) for other in roots[1:]]
        first = {key: old for found in differences for key, (old, _) in found.items()}
        columns = [first] + [
            {key: found[key][1] if key in found else old for key, old in first.items()}
            for found in differences
        ]
        numbers = {number for column in columns for number in column.values() if number is not None}
        names = {number: event.event_id for number, event in self.events_of(numbers).items()}
        sets = [
            {key: names[number] for key, number in column.items() if number is not None}
            for column in columns
        ]
        return set(first), sets

    def event(self, event_id: str) -> Event | None:
        """An event by its ID, if it is known."""
        return self.event_map([event_id]).get(event_id)

    def event_map(self, event_ids: Collection[str]) -> Mapping[str, Event]:
        """Events by their IDs; unknown ones are left out."""
        self._fetch(event_ids)
        return {name: self._by_id[name][1] for name in event_ids if name in self._by_id}

    def is_rejected(self, event_id: str) -> bool:
        """Whether an event was rejected by its own auth events."""
        return event_id in self._rejected

    def _fetch(self, event_ids: Collection[str]) -> None:
        missing = [name for name in event_ids if name not in self._by_id]
        for start in range(0, len(missing), _BATCH):
            for row in events.texts(self._txn, missing[start : start + _BATCH]):
                # An event of another room is none of this one's.
                if row.room_nid == self._room_nid:
                    self.tell(row)

    def tell(self, row: events.EventRow | events.EventText) -> None:
        """Tell of an event of this room that was read from the database."""
        self._keep(Event.for_rules(row.json, self._version, row.event_id), row.event_nid)
        if row.status == events.REJECTED:
            self._rejected.add(row.event_id)
        else:
            self._rejected.discard(row.event_id)

    def _intern(self, keys: Collection[StateKey]) -> dict[StateKey, int]:
        unknown = [key for key in keys if key not in self._nids]
        if unknown:
            self._nids |= self._states.intern(self._txn, unknown)
        return self._nids

    def _names(self, nids: Collection[int]) -> dict[int, StateKey]:
        known = {number: key for key, number in self._nids.items()}
        found = {number: known[number] for number in nids if number in known}
        if len(found) < len(nids):
            missing = [number for number in nids if number not in found]
            found |= self._states.keys(self._txn, missing)
        return found


class _Unconflicted(Mapping[StateKey, str]):
    """What states share, read where it is looked at."""

    def __init__(self, tree: RoomTree, root: bytes, conflicted: Collection[StateKey]) -> None:
        self._tree = tree
        self._root = root
        self._conflicted = conflicted
        self._known: dict[StateKey, str] | None = None
        self._looked_up: dict[StateKey, str | None] = {}

    def __getitem__(self, key: StateKey) -> str:
        found: str | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return self.get(cast("StateKey", key)) is not None

    def get(self, key: StateKey, default: Any = None) -> Any:
        """The ID of the event that all of them have under a key."""
        if key in self._conflicted:
            return default
        # The same few keys are asked for with every event that is resolved.
        if key not in self._looked_up:
            event = self._tree.state(self._root, [key]).get(key)
            self._looked_up[key] = event.event_id if event is not None else None
        return self._looked_up[key] or default

    def __iter__(self) -> Iterator[StateKey]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[StateKey, str]:
        if self._known is None:
            self._known = self._read_whole()
        return self._known

    def _read_whole(self) -> dict[StateKey, str]:
        numbers = self._tree.all_numbers(self._root)
        found = self._tree.events_of(numbers.values())
        return {
            key: found[number].event_id
            for key, number in numbers.items()
            if key not in self._conflicted and number in found
        }
