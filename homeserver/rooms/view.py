"""Events as one reader may see them: history visibility, then the client form.

Everything that shows events to a client goes through here: sync, messages, context, event,
relations, search. One `RoomView` serves one reader, one room and one read transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from homeserver.core import client_format, state_tree
from homeserver.core.client_text import client_form, membership_text, opening, transaction
from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject, StateKey
from homeserver.core.visibility import (
    FOREVER,
    EventFacts,
    Reader,
    Verdict,
    membership_of,
    verdict,
    visibility_of,
)
from homeserver.rooms.merging import DUMMY
from homeserver.web.responses import encode_json
from storage import erasures, events, memberships, state, timeline
from storage.events import EventRow
from storage.expiry import is_expired
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

_VISIBILITY: StateKey = ("m.room.history_visibility", "")
_SOON_MS = 600_000


class Placed(Protocol):
    """What decides whether the reader was in the room at an event; as `EventRow`."""

    @property
    def pos(self) -> int | None: ...
    @property
    def type(self) -> str: ...
    @property
    def state_key(self) -> str | None: ...
    @property
    def sender(self) -> str: ...
    @property
    def state_before(self) -> bytes | None: ...
    @property
    def state_after(self) -> bytes | None: ...


P = TypeVar("P", bound=Placed)


def _position(row: Placed) -> int:
    return row.pos or 0


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that the reader may see."""

    row: EventRow
    event: Event
    membership: str | None
    """The reader's membership at the event (`unsigned.membership`); None: not looked up."""
    is_pruned: bool = False
    """Whether the reader is shown it in its redacted form only, though nobody redacted it."""


class RoomView:
    """One room as one reader sees it.

    Parameters:
        txn: the read transaction that everything happens in.
        states: the state trees.
        room: the room's row.
        reader_id: the user who reads.
        device_id: their device, which sees its own transaction IDs.
        joined_at: the position of their last join, if they are known to be in the room since.
    """

    def __init__(
        self,
        txn: Transaction,
        states: StateStore,
        room: RoomRow,
        reader_id: str,
        device_id: str | None = None,
        joined_at: int | None = None,
    ) -> None:
        self.txn = txn
        self._states = states
        self.room = room
        self.version = ROOM_VERSIONS[room.version]
        self.reader_id = reader_id
        self.device_id = device_id
        self._stay = None if joined_at is None else Reader(joined_at, FOREVER)
        self._left_at: int | None = None
        """The depth of the room when the reader left it."""

    @property
    def stay(self) -> Reader:
        """The reader's latest stay in the room."""
        if self._stay is None:
            since, until = memberships.last_stay(self.txn, self.room.room_nid, self.reader_id)
            if since is not None and until is None:
                until = FOREVER
            self._stay = Reader(since, until)
        return self._stay

    def event(self, row: EventRow) -> Event:
        """The event of a row of this room."""
        return Event.from_json(row.json, self.version, row.event_id)

    @cached_property
    def _begins(self) -> int | None:
        """The time before which messages are too old to be shown."""
        begins = self._states.begins
        return None if begins is None else begins(self.txn, self.room.room_nid)

    def visible(self, rows: Sequence[EventRow]) -> list[Seen]:
        """Those of the rows that the reader may see, in the same order."""
        if self._states.begins is not None:
            rows = [row for row in rows if not is_expired(row, self.room, self._begins)]
        unclear = self._unclear(rows)
        facts = self._facts(unclear) if unclear else {}
        found = []
        for row in rows:
            if row.status != events.ACCEPTED or row.type == DUMMY:
                continue
            fact = facts.get(row.event_nid)
            if fact is None:
                found.append(Seen(row, self.event(row), self._own_membership(row)))
                continue
            decision = verdict(fact, self.stay)
            if decision is Verdict.HIDDEN:
                continue
            event = self.event(row)
            is_pruned = decision is Verdict.REDACTED
            if is_pruned:
                event = event.redacted()
            found.append(Seen(row, event, fact.membership_after or "leave", is_pruned))
        return found

    def _unclear(self, rows: Sequence[P]) -> list[P]:
        """Rows of events at which the reader may not have been joined.

        An event of another server may come while the reader is in the room, from a branch on
        which they are not. So its state has to be that around an event next to it at which they
        are joined, which most often it is, or is looked up.
        """
        since, until = self.stay
        local = domain_of(self.reader_id)
        good: set[bytes | None] = {self.room.state_root} if until == FOREVER else set()
        unclear = []
        for row in sorted(rows, key=_position, reverse=True):
            if row.pos == since and row.type == "m.room.member" and row.state_key == self.reader_id:
                continue  # The join itself.
            if not self._within_stay(row, since, until):
                unclear.append(row)
            elif (
                row.state_before in good
                or (row.state_after in good and row.state_key != self.reader_id)
                or domain_of(row.sender) == local
            ):
                good.add(row.state_before)
            else:
                unclear.append(row)
        return unclear

    def is_clear(self, rows: Sequence[EventRow]) -> bool:
        """Whether everybody of this server who was in the room before these events, and still is,
        may see all of them as they are, now and for the next minutes."""
        begins = self._begins
        if begins is not None and any(row.origin_server_ts < begins + _SOON_MS for row in rows):
            return False
        return not self._unclear(rows)

    def has_unclear(self, rows: Sequence[Placed]) -> bool:
        """Whether it takes a look at the states before events to say whether the reader, who is in
        the room and joined before them, may see them all."""
        return bool(self._unclear(rows))

    def may_see(self, row: EventRow) -> bool:
        """Whether the reader may see one event."""
        return bool(self.visible([row]))

    def was_joined(self, row: EventRow) -> bool:
        """Whether the event is within the reader's latest stay in the room."""
        return self._within_stay(row, *self.stay)

    def _within_stay(self, row: Placed, since: int | None, until: int | None) -> bool:
        # Whoever is joined at an event may see it, whatever the visibility: the common case, for
        # which no state is looked up.
        return (
            row.pos is not None
            and since is not None
            and until is not None
            and since < row.pos <= until
        )

    def _own_membership(self, row: EventRow) -> str:
        if row.type == "m.room.member" and row.state_key == self.reader_id:
            return membership_of(self.event(row).content) or "leave"
        return "join"

    def _facts(self, rows: Sequence[EventRow]) -> dict[int, EventFacts]:
        member: StateKey = ("m.room.member", self.reader_id)
        before = self.states_before(rows, [_VISIBILITY, member])
        erased = erasures.among(self.txn, {row.sender for row in rows})
        now: dict[StateKey, Event] = {}
        if len(before) < len(rows):
            # The state at events that only were fetched may be unknown: today's has to do.
            current = state.current(self.txn, self.room.room_nid, [_VISIBILITY])
            now = {key: self.event(row) for key, row in current.items()}
        facts = {}
        for row in rows:
            at_event = before.get(row.event_nid, now)
            shown, own = at_event.get(_VISIBILITY), at_event.get(member)
            facts[row.event_nid] = EventFacts.of(
                row.type,
                row.state_key,
                self.event(row).content if row.state_key is not None else None,
                position=self._position(row),
                visibility_before=visibility_of(shown.content if shown else None),
                membership_before=membership_of(own.content) if own else None,
                reader_id=self.reader_id,
                erased_at=erased.get(row.sender),
            )
        return facts

    def _position(self, row: EventRow) -> int:
        """The position of an event; of fetched history, at least on the right side of a leave."""
        pos = row.pos if row.pos is not None else 0
        until = self.stay.joined_until
        if pos > 0 or until is None or until == FOREVER:
            return pos
        if self._left_at is None:
            end = timeline.last_known(self.txn, self.room.room_nid, until)
            self._left_at = end.depth if end is not None else 0
        return until if row.depth > self._left_at else pos

    def states_before(
        self, rows: Sequence[EventRow], keys: Collection[StateKey]
    ) -> dict[int, dict[StateKey, Event]]:
        """State events of these keys before each event, by the event's number."""
        nids = self._states.lookup(self.txn, keys)
        names = {number: key for key, number in nids.items()}
        load = self._states.loader(self.txn, self.room.room_nid)
        wanted = {row.state_before for row in rows if row.state_before is not None}
        roots = state_tree.get_many(wanted, names, load)
        needed = {number for entries in roots.values() for number in entries.values()}
        found = events.get_by_nids(self.txn, needed)
        loaded = {number: self.event(row) for number, row in found.items()}
        return {
            row.event_nid: {
                names[key]: loaded[number]
                for key, number in roots[row.state_before].items()
                if number in loaded
            }
            for row in rows
            if row.state_before is not None
        }

    def numbers(self, root: bytes, keys: Collection[StateKey]) -> dict[StateKey, int]:
        """Numbers of the events of these keys in the state with this root."""
        nids = self._states.lookup(self.txn, keys)
        load = self._states.loader(self.txn, self.room.room_nid)
        entries = state_tree.get(root, nids.values(), load)
        return {key: entries[nid] for key, nid in nids.items() if nid in entries}

    def numbers_at(
        self, root: bytes, choose: Callable[[StateKey], bool] | None = None
    ) -> dict[StateKey, int]:
        """Numbers of the events of the whole state with this root, or of the keys chosen."""
        load = self._states.loader(self.txn, self.room.room_nid)
        entries = dict(state_tree.items(root, load))
        keys = self._states.keys(self.txn, entries.keys())
        return {key: entries[nid] for nid, key in keys.items() if choose is None or choose(key)}

    def numbers_changed(self, old: bytes, new: bytes) -> dict[StateKey, int | None]:
        """Numbers of the events by which the state `new` differs from `old`; None: key removed."""
        load = self._states.loader(self.txn, self.room.room_nid)
        changes = state_tree.diff(old, new, load)
        keys = self._states.keys(self.txn, changes.keys())
        return {key: changes[nid][1] for nid, key in keys.items()}

    def state_at(
        self,
        root: bytes,
        keys: Collection[StateKey] | None = None,
        *,
        choose: Callable[[StateKey], bool] | None = None,
    ) -> dict[StateKey, EventRow]:
        """Events of the state with this root: of these keys, of those chosen, or all."""
        load = self._states.loader(self.txn, self.room.room_nid)
        if keys is None:
            entries = dict(state_tree.items(root, load))
        else:
            entries = state_tree.get(root, self._states.lookup(self.txn, keys).values(), load)
        return self._state_rows(entries, choose)

    def state_change(
        self, old: bytes, new: bytes, *, choose: Callable[[StateKey], bool] | None = None
    ) -> dict[StateKey, EventRow]:
        """State events by which the state `new` differs from `old` (removed keys left out)."""
        load = self._states.loader(self.txn, self.room.room_nid)
        changes = state_tree.diff(old, new, load)
        return self._state_rows(
            {key: after for key, (_, after) in changes.items() if after is not None}, choose
        )

    def _state_rows(
        self, entries: Mapping[int, int], choose: Callable[[StateKey], bool] | None
    ) -> dict[StateKey, EventRow]:
        keys = self._states.keys(self.txn, entries.keys())
        if choose is not None:
            keys = {number: key for number, key in keys.items() if choose(key)}
        numbers = [entries[number] for number in keys]
        rows: dict[int, EventRow] = {}
        for start in range(0, len(numbers), 500):
            rows |= events.get_by_nids(self.txn, numbers[start : start + 500])
        return {
            key: rows[entries[number]] for number, key in keys.items() if entries[number] in rows
        }

    def render(
        self,
        seen: Sequence[Seen],
        now_ms: int,
        *,
        room_id: bool = True,
        federation_format: bool = False,
        relations: Mapping[str, JsonObject] | None = None,
    ) -> list[JsonObject]:
        """The client form of events (or the federation form, where a filter asks for it).

        Parameters: `now_ms` for `age`; `room_id` False where the response implies the room;
        `relations`, the bundled aggregations by event ID.
        """
        replaced = {} if federation_format else self._replaced([item.row for item in seen])
        return self._render(seen, replaced, now_ms, room_id, federation_format, relations)

    def render_text(
        self, seen: Sequence[Seen], now_ms: int, *, relations: Mapping[str, JsonObject]
    ) -> list[bytes]:
        """As `render`, encoded; most events are not parsed for it."""
        start = opening(self.room.room_id)
        found: list[bytes] = []
        closely: list[int] = []
        for item in seen:
            row, form = item.row, None
            is_plain = row.redacted_by is None and row.replaces_state is None
            if is_plain and not item.is_pruned and row.event_id not in relations:
                form = client_form(row.json, row.event_id)
            if form is None:
                closely.append(len(found))
                found.append(b"")
                continue
            more = membership_text(item.membership) if item.membership is not None else b""
            own = row.txn_device is not None and row.txn_device == self.device_id
            if own and row.sender == self.reader_id and row.txn_id is not None:
                more += transaction(row.txn_id)
            found.append(b"%b%b%d%b%b" % (start, form.head, now_ms - form.ts, more, form.tail))
        shown = self.render([seen[place] for place in closely], now_ms, relations=relations)
        for place, event in zip(closely, shown, strict=True):
            found[place] = encode_json(event)
        return found

    def _render(
        self,
        seen: Sequence[Seen],
        replaced: Mapping[str, Seen],
        now_ms: int,
        room_id: bool,
        federation_format: bool,
        relations: Mapping[str, JsonObject] | None,
    ) -> list[JsonObject]:
        if federation_format:
            return [client_format.to_federation(item.event) for item in seen]
        because = self._redactions([item.row for item in seen], now_ms)
        shown = []
        for item in seen:
            row = item.row
            own = row.txn_device is not None and row.txn_device == self.device_id
            old = replaced.get(row.replaces_state) if row.replaces_state else None
            shown.append(
                client_format.to_client(
                    item.event,
                    now_ms=now_ms,
                    room_id=room_id,
                    membership=item.membership,
                    transaction_id=row.txn_id if own and row.sender == self.reader_id else None,
                    prev_content=old.event.content if old else None,
                    replaces_state=row.replaces_state,
                    redacted_because=because.get(row.redacted_by) if row.redacted_by else None,
                    relations=relations.get(row.event_id) if relations else None,
                )
            )
        return shown

    def render_state(
        self,
        rows: Sequence[EventRow],
        now_ms: int,
        *,
        room_id: bool = True,
        federation_format: bool = False,
    ) -> list[JsonObject]:
        """Client form of state events that the reader may see because they may see the state.

        There may be very many, each from another time: of what would be looked up in the states
        before them, `prev_content` is left out, and `membership` unless it is known anyway.
        """
        since, until = self.stay
        seen = []
        for row in rows:
            own = row.type == "m.room.member" and row.state_key == self.reader_id
            known = own or self._within_stay(row, since, until)
            seen.append(Seen(row, self.event(row), self._own_membership(row) if known else None))
        return self._render(seen, {}, now_ms, room_id, federation_format, None)

    def _replaced(self, rows: Sequence[EventRow]) -> dict[str, Seen]:
        """Replaced state events that the reader may see."""
        names = {row.replaces_state for row in rows if row.replaces_state is not None}
        if not names:
            return {}
        old = events.get_many(self.txn, names)
        return {item.row.event_id: item for item in self.visible(list(old.values()))}

    def _redactions(self, rows: Sequence[EventRow], now_ms: int) -> dict[str, JsonObject]:
        """Client form of the redactions of events. Of those that the reader may not see, say
        because they came after their leave, only that they are there."""
        names = {row.redacted_by for row in rows if row.redacted_by is not None}
        if not names:
            return {}
        found = events.get_many(self.txn, names)
        shown = {row.event_id: self.event(row).redacted() for row in found.values()}
        shown |= {item.row.event_id: item.event for item in self.visible(list(found.values()))}
        return {
            name: client_format.to_client(event, now_ms=now_ms) for name, event in shown.items()
        }


class WholeView(RoomView):
    """A room as administrators see it who look into it: all of it, wherever they are."""

    def visible(self, rows: Sequence[EventRow]) -> list[Seen]:
        """Those of the rows that are part of the room."""
        return [
            Seen(row, self.event(row), None)
            for row in rows
            if row.status == events.ACCEPTED and row.type != DUMMY
        ]

    def was_joined(self, row: EventRow) -> bool:
        """Whether the reader may see the state at the event."""
        return True
