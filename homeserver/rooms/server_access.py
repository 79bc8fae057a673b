"""Which rooms other servers may look into, and what of them they may see.

A server may look into a room that it has a user in, unless the room's ACL denies it. Of its
history it is sent the redacted form of what none of its users may see (Client-server API, "Room
History Visibility", "Server Access Control Lists").
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from homeserver.core import errors, state_tree
from homeserver.core.acl import ACL_TYPE, ServerAcl
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.types import JsonObject, StateKey
from homeserver.core.visibility import (
    FOREVER,
    EventFacts,
    HistoryVisibility,
    Reader,
    Verdict,
    membership_of,
    server_verdict,
    visibility_of,
)
from storage import erasures, events, memberships, room_servers, rooms, state
from storage.events import EventRow
from storage.expiry import is_expired
from storage.rooms import RoomRow
from storage.state import StateStore
from storage.transaction import Transaction

_ACL: StateKey = (ACL_TYPE, "")
_VISIBILITY: StateKey = ("m.room.history_visibility", "")
_OPEN = {HistoryVisibility.WORLD_READABLE, HistoryVisibility.SHARED}
_FIRST_USERS = 20
"""Users of a server that are looked for first in the state at an event; then ever more."""
_JOINS_LOOKED_AT = 50


def acl_allows(txn: Transaction, room_nid: int, server: str) -> bool:
    """Whether the room's current ACL lets a server take part."""
    row = state.current(txn, room_nid, [_ACL]).get(_ACL)
    return row is None or ServerAcl.of(json.loads(row.json).get("content")).allows(server)


def known_room(txn: Transaction, room_id: str) -> RoomRow:
    """A room that this server has the state of. Raises MatrixError 404 `M_NOT_FOUND`."""
    room = rooms.get(txn, room_id)
    if room is None or room.state_root is None or room.version not in ROOM_VERSIONS:
        raise errors.not_found("This room is not known here.")
    return room


def check_acl(txn: Transaction, room: RoomRow, server: str) -> None:
    """Raise MatrixError 403 `M_FORBIDDEN` if the room's ACL denies the server."""
    if not acl_allows(txn, room.room_nid, server):
        raise errors.forbidden("Your server is excluded from this room by its server ACL.")


def enter(txn: Transaction, states: StateStore, room_id: str, server: str) -> ServerView:
    """A room that a server may look into.

    Raises:
        MatrixError: 404 `M_NOT_FOUND` for a room that is not known here; 403 `M_FORBIDDEN` if
            its ACL denies the server, or the server has no user in it.
    """
    return _entered(txn, states, known_room(txn, room_id), server)


def find_event(
    txn: Transaction, states: StateStore, event_id: str, server: str
) -> tuple[ServerView, EventRow]:
    """An event of whatever room.

    Raises:
        MatrixError: as `enter`; 404 `M_NOT_FOUND` for an event that is not known, or rejected.
    """
    row = events.get(txn, event_id)
    room = rooms.get_many(txn, [row.room_nid]).get(row.room_nid) if row is not None else None
    if row is None or room is None or room.state_root is None or room.version not in ROOM_VERSIONS:
        raise errors.not_found("There is no such event.")
    view = _entered(txn, states, room, server)
    if not is_served(row):
        raise errors.not_found("There is no such event.")
    return view, row


def is_served(row: EventRow) -> bool:
    """Whether other servers are given the event at all: not if it was rejected."""
    return row.status in (events.ACCEPTED, events.SOFT_FAILED)


def _entered(txn: Transaction, states: StateStore, room: RoomRow, server: str) -> ServerView:
    check_acl(txn, room, server)
    if not room_servers.is_in(txn, room.room_nid, server):
        raise errors.forbidden("Your server is not in this room.")
    return ServerView(txn, states, room, server)


class ServerView:
    """One room as one server that is in it sees it, in one read transaction.

    Made by `enter`, or for a server that is known to be in the room.
    """

    def __init__(self, txn: Transaction, states: StateStore, room: RoomRow, server: str) -> None:
        self.txn = txn
        self.room = room
        self.version = ROOM_VERSIONS[room.version]
        self._states = states
        self._load = states.loader(txn, room.room_nid)
        self._server = server
        self._users: list[str] | None = None
        self._since: int | None = None
        self._contents: dict[int, JsonObject] = {}

    def event(self, row: EventRow) -> Event:
        """The event of a row of this room."""
        return Event.from_json(row.json, self.version, row.event_id)

    def find(self, event_id: str) -> EventRow:
        """An event of this room. Raises MatrixError 404 for others and for rejected ones."""
        row = events.get(self.txn, event_id)
        if row is None or row.room_nid != self.room.room_nid or not is_served(row):
            raise errors.not_found("There is no such event in this room.")
        return row

    def texts(self, rows: Sequence[EventRow]) -> list[str]:
        """JSON of events in the same order, redacted where the server may not see them."""
        verdicts = self.verdicts(rows)
        return [
            row.json
            if verdicts[row.event_nid] is Verdict.VISIBLE
            else self.redacted(row.event_id, row.json)
            for row in rows
        ]

    def redacted(self, event_id: str, text: str) -> str:
        """JSON of the redacted form of an event of this room."""
        return Event.from_json(text, self.version, event_id).redacted().to_json().decode()

    def verdicts(self, rows: Sequence[EventRow]) -> dict[int, Verdict]:
        """Whether the server may see each event, by the event's number."""
        shown = self._visibilities(rows)
        erased = erasures.among(self.txn, {row.sender for row in rows})
        found: dict[int, Verdict] = {}
        unclear = []
        for row in rows:
            if row.sender not in erased and not _OPEN.isdisjoint(shown[row.event_nid]):
                # It has a user in the room now, who is shown what came before.
                found[row.event_nid] = Verdict.VISIBLE
            else:
                unclear.append(row)
        if unclear:
            there = self._memberships(unclear)
            for row in unclear:
                found[row.event_nid] = server_verdict(
                    self._facts(row, shown[row.event_nid], erased.get(row.sender)),
                    there[row.event_nid],
                    self._stay(row.sender in erased),
                )
            self._spare_current_state(unclear, found)
        if self._states.begins is not None:
            begins = self._states.begins(self.txn, self.room.room_nid)
            expired = [row for row in rows if is_expired(row, self.room, begins)]
            found.update({row.event_nid: Verdict.HIDDEN for row in expired})
        return found

    def _facts(
        self,
        row: EventRow,
        shown: tuple[HistoryVisibility, HistoryVisibility],
        erased_at: int | None,
    ) -> EventFacts:
        own = row.type == "m.room.member" and self._is_own(row.state_key)
        return EventFacts(
            position=row.pos if row.pos is not None else 0,
            visibility_before=shown[0],
            visibility_after=shown[1],
            membership_before=None,  # among those that are looked up
            membership_after=membership_of(self.event(row).content) if own else None,
            erased_at=erased_at,
        )

    def _is_own(self, user_id: str | None) -> bool:
        return user_id is not None and user_id.partition(":")[2] == self._server

    def _visibilities(
        self, rows: Sequence[EventRow]
    ) -> dict[int, tuple[HistoryVisibility, HistoryVisibility]]:
        """The history visibility before and after each event, by the event's number."""
        nid = self._states.lookup(self.txn, [_VISIBILITY]).get(_VISIBILITY)
        roots = {row.state_before for row in rows if row.state_before is not None}
        setters: dict[bytes, int] = {}
        if nid is not None and roots:
            entries = state_tree.get_many(roots, [nid], self._load)
            setters = {root: entry[nid] for root, entry in entries.items() if nid in entry}
        self._read_contents(setters.values())
        now: HistoryVisibility | None = None
        found = {}
        for row in rows:
            if row.state_before is not None:
                setter = setters.get(row.state_before)
                before = visibility_of(self._contents[setter] if setter is not None else None)
            else:
                # Where the place of an event is not known, today's visibility has to do.
                now = now or self._current_visibility()
                before = now
            after = before
            if row.type == _VISIBILITY[0] and row.state_key == "":
                after = visibility_of(self.event(row).content)
            found[row.event_nid] = (before, after)
        return found

    def _current_visibility(self) -> HistoryVisibility:
        row = state.current(self.txn, self.room.room_nid, [_VISIBILITY]).get(_VISIBILITY)
        return visibility_of(self.event(row).content if row is not None else None)

    def _memberships(self, rows: Sequence[EventRow]) -> dict[int, set[str]]:
        """What memberships the server's users had before each event, by the event's number.

        Of very many users the ones longest in the room are looked at first: where one is joined,
        the others do not matter.
        """
        by_root: dict[bytes, set[str]] = {
            row.state_before: set() for row in rows if row.state_before is not None
        }
        open_roots = set(by_root)
        users = self._all_users()
        start, count = 0, _FIRST_USERS
        while open_roots and start < len(users):
            keys = [("m.room.member", user_id) for user_id in users[start : start + count]]
            start, count = start + count, count * 4
            nids = self._states.lookup(self.txn, keys).values()
            entries = state_tree.get_many(open_roots, nids, self._load)
            self._read_contents(number for entry in entries.values() for number in entry.values())
            for root, entry in entries.items():
                for number in entry.values():
                    membership = membership_of(self._contents[number])
                    if membership is not None:
                        by_root[root].add(membership)
            open_roots = {root for root in open_roots if "join" not in by_root[root]}
        return {
            row.event_nid: by_root[row.state_before] if row.state_before is not None else set()
            for row in rows
        }

    def _all_users(self) -> list[str]:
        if self._users is None:
            self._users = memberships.of_server(self.txn, self.room.room_nid, self._server)
        return self._users

    def _stay(self, needs_start: bool) -> Reader:
        """The stay of the server in the room, which lasts; since when counts for erased users."""
        if needs_start and self._since is None:
            stays = (
                memberships.last_stay(self.txn, self.room.room_nid, user_id)
                for user_id in self._all_users()[:_JOINS_LOOKED_AT]
            )
            joins = [since for since, until in stays if since is not None and until is None]
            self._since = min(joins, default=FOREVER)
        return Reader(self._since if self._since is not None else FOREVER, FOREVER)

    def _spare_current_state(self, rows: Sequence[EventRow], found: dict[int, Verdict]) -> None:
        """Who is in the room is shown its current state, whenever it was set."""
        hidden = [
            row
            for row in rows
            if row.state_key is not None and found[row.event_nid] is Verdict.HIDDEN
        ]
        keys = {(row.type, row.state_key) for row in hidden if row.state_key is not None}
        current = {row.event_nid for row in self._current(keys)}
        found.update({row.event_nid: Verdict.VISIBLE for row in hidden if row.event_nid in current})

    def _current(self, keys: Collection[StateKey]) -> Iterable[EventRow]:
        return state.current(self.txn, self.room.room_nid, keys).values() if keys else ()

    def _read_contents(self, numbers: Iterable[int]) -> None:
        missing = {number for number in numbers if number not in self._contents}
        rows = events.get_by_nids(self.txn, missing)
        for number in missing:
            row = rows.get(number)
            self._contents[number] = self.event(row).content if row is not None else {}
