"""Events, states and auth chains for the other servers of a room.

Server-server API, "Backfilling and retrieving missing events", "Retrieving events", "Retrieving
event authorization information". Answers are joined from the stored JSON of the events, without
parsing it: a state may have ten thousand members. Rejected events are never among them, and what
the asking server may not see is redacted; see `homeserver.rooms.server_access`.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Iterable, Sequence

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors, state_tree
from homeserver.core.visibility import Verdict
from homeserver.rooms import server_access
from homeserver.rooms.server_access import ServerView
from storage import auth_chains, events, partial_rooms, timeline
from storage.auth_chains import AuthChains
from storage.database import Database
from storage.events import EventRow
from storage.state import StateStore
from storage.timeline import Place, Span
from storage.transaction import Transaction

MAX_BACKFILL = 100
MAX_MISSING = 100
"""Events in one answer."""

_LOOKED_AT = 10
"""Events that are walked over for each one of an answer: rejected ones are not in it."""
_TIME_BATCH = 20
_MAX_BY_TIME = 1000


class ServedHistory:
    """Answers to servers that are in a room; each as JSON, or its parts.

    All methods raise MatrixError: 404 `M_NOT_FOUND` for a room or an event that is not known
    here, 403 `M_FORBIDDEN` if the server is not in the room or its ACL denies the server.
    """

    def __init__(
        self,
        db: Database,
        states: StateStore,
        chains: AuthChains,
        server_name: str,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._states = states
        self._chains = chains
        self._server_name = server_name
        self._clock = clock

    async def event(self, server: str, event_id: str) -> bytes:
        """A transaction of this event alone."""

        def read(txn: Transaction) -> list[str]:
            view, row = server_access.find_event(txn, self._states, event_id, server)
            return view.texts([row])

        return self._transaction(await self._db.read(read))

    async def state(self, server: str, room_id: str, event_id: str) -> bytes:
        """The state before an event, and its auth chain.

        A server that may see the event may see the state it was sent in. Else, also what tells
        of nothing but who was there is redacted.
        """

        def read(txn: Transaction) -> bytes:
            view, row, root = self._place(txn, server, room_id, event_id)
            state = auth_chains.texts_by_nids(txn, self._numbers(view, root))
            chain_ids = self._chains.chain(txn, state, texts=state)
            chain = auth_chains.texts_of(txn, chain_ids)
            if view.verdicts([row])[row.event_nid] is Verdict.HIDDEN:
                state, chain = (
                    {name: view.redacted(name, text) for name, text in texts.items()}
                    for texts in (state, chain)
                )
            return _object(auth_chain=_array(chain.values()), pdus=_array(state.values()))

        return await self._db.read(read)

    async def state_ids(self, server: str, room_id: str, event_id: str) -> bytes:
        """As `state`, but the IDs alone."""

        def read(txn: Transaction) -> bytes:
            view, _, root = self._place(txn, server, room_id, event_id)
            state = auth_chains.ids_by_nids(txn, self._numbers(view, root))
            chain = self._chains.chain(txn, state)
            return _object(
                auth_chain_ids=json.dumps(sorted(chain)).encode(),
                pdu_ids=json.dumps(state).encode(),
            )

        return await self._db.read(read)

    async def event_auth(self, server: str, room_id: str, event_id: str) -> bytes:
        """The whole auth chain of an event, without the event."""

        def read(txn: Transaction) -> bytes:
            view = server_access.enter(txn, self._states, room_id, server)
            row = view.find(event_id)
            chain = self._chains.chain(txn, [event_id], texts={event_id: row.json})
            return _object(auth_chain=_array(auth_chains.texts_of(txn, chain).values()))

        return await self._db.read(read)

    async def backfill(
        self, server: str, room_id: str, event_ids: Collection[str], limit: int
    ) -> bytes:
        """A transaction of these events and their ancestors, newest first, at most `limit` (and
        100) of them. Events that are not known, or of other rooms, are left out."""

        def read(txn: Transaction) -> list[str]:
            view = server_access.enter(txn, self._states, room_id, server)
            return view.texts(_ancestors(view, event_ids, min(limit, MAX_BACKFILL)))

        return self._transaction(await self._db.read(read))

    async def missing(
        self,
        server: str,
        room_id: str,
        *,
        earliest: Collection[str],
        latest: Collection[str],
        limit: int,
        min_depth: int,
    ) -> bytes:
        """Ancestors of the `latest` events that are not in `earliest`, breadth first, at most
        `limit` (and 100), none above `min_depth`; oldest first."""

        def read(txn: Transaction) -> bytes:
            view = server_access.enter(txn, self._states, room_id, server)
            rows = _between(view, earliest, latest, min(limit, MAX_MISSING), min_depth)
            rows.sort(key=_order)
            return _object(events=_array(view.texts(rows)))

        return await self._db.read(read)

    async def by_time(
        self, server: str, room_id: str, ts: int, *, backwards: bool
    ) -> tuple[str, int]:
        """ID and time (milliseconds) of the nearest event not before `ts`, or not after it, that
        the server may see; of equal times the first, or the last, in the order of the graph."""

        def read(txn: Transaction) -> EventRow | None:
            view = server_access.enter(txn, self._states, room_id, server)
            for skip in range(0, _MAX_BY_TIME, _TIME_BATCH):
                rows = timeline.by_time(
                    txn,
                    view.room.room_nid,
                    ts,
                    backwards=backwards,
                    until=None,
                    limit=_TIME_BATCH,
                    skip=skip,
                )
                verdicts = view.verdicts(rows)
                for row in rows:
                    if verdicts[row.event_nid] is not Verdict.HIDDEN:
                        return row
                if len(rows) < _TIME_BATCH:
                    break
            return None

        row = await self._db.read(read)
        if row is None:
            raise errors.not_found("There is no event on this side of this time.")
        return row.event_id, row.origin_server_ts

    def _place(
        self, txn: Transaction, server: str, room_id: str, event_id: str
    ) -> tuple[ServerView, EventRow, bytes]:
        """An event whose place is known, and the root of the state before it.

        Where members are not known yet, no state is told: it would pass for the whole of it.
        """
        view = server_access.enter(txn, self._states, room_id, server)
        row = view.find(event_id)
        is_partial = partial_rooms.get(txn, view.room.room_nid) is not None
        if row.state_before is None or is_partial:
            raise errors.not_found("The state at this event is not known here.")
        return view, row, row.state_before

    def _numbers(self, view: ServerView, root: bytes) -> list[int]:
        load = self._states.loader(view.txn, view.room.room_nid)
        return [number for _, number in state_tree.items(root, load)]

    def _transaction(self, texts: Iterable[str]) -> bytes:
        now_ms = int(self._clock.seconds() * 1000)
        return _object(
            origin=json.dumps(self._server_name).encode(),
            origin_server_ts=str(now_ms).encode(),
            pdus=_array(texts),
        )


def _array(texts: Iterable[str]) -> bytes:
    return f"[{','.join(texts)}]".encode()


def _object(**members: bytes) -> bytes:
    return b"{" + b",".join(b'"%s":%s' % (k.encode(), v) for k, v in members.items()) + b"}"


def _order(row: EventRow) -> tuple[int, int, str]:
    return row.depth, row.pos if row.pos is not None else 0, row.event_id


class _Graph:
    """Events of one room and their predecessors; outliers and what is not known are not in it.

    Most rooms are chains: the events above the deepest one are read at once, those that still are
    missing by their IDs.
    """

    def __init__(self, view: ServerView, expected: int) -> None:
        self._view = view
        self._expected = expected
        self._rows: dict[str, EventRow] = {}
        self._absent: set[str] = set()
        self._has_read_ahead = False

    def rows(self, event_ids: Collection[str]) -> list[EventRow]:
        """Those of the events that have a place in the room."""
        self._read(event_ids)
        if not self._has_read_ahead:
            self._read_ahead([self._rows[name] for name in event_ids if name in self._rows])
        return [self._rows[name] for name in event_ids if name in self._rows]

    def before(self, rows: Sequence[EventRow]) -> dict[str, None]:
        """IDs of the predecessors of events, in the order of the events."""
        return {name: None for row in rows for name in self._view.event(row).prev_event_ids}

    def _read(self, event_ids: Collection[str]) -> None:
        unknown = [n for n in event_ids if n not in self._rows and n not in self._absent]
        self._absent.update(unknown)
        self._keep(events.get_many(self._view.txn, unknown).values())

    def _read_ahead(self, rows: Sequence[EventRow]) -> None:
        if rows:
            self._has_read_ahead = True
            deepest = max(row.depth for row in rows)
            span = Span(upto=Place(deepest, 2**62))
            room_nid = self._view.room.room_nid
            txn, limit = self._view.txn, self._expected
            self._keep(timeline.page(txn, room_nid, span, backwards=True, limit=limit))

    def _keep(self, rows: Iterable[EventRow]) -> None:
        for row in rows:
            if row.room_nid == self._view.room.room_nid and row.state_before is not None:
                self._rows[row.event_id] = row


def _ancestors(view: ServerView, event_ids: Collection[str], limit: int) -> list[EventRow]:
    """Events and their ancestors, the deepest first."""
    graph = _Graph(view, limit)
    waiting: list[tuple[tuple[int, int, str], EventRow]] = []
    seen: set[str] = set()

    def add(names: Collection[str]) -> None:
        fresh = [name for name in names if name not in seen]
        seen.update(fresh)
        for row in graph.rows(fresh):
            depth, pos, name = _order(row)
            heapq.heappush(waiting, ((-depth, -pos, name), row))

    add(list(dict.fromkeys(event_ids)))
    found: list[EventRow] = []
    for _ in range(limit * _LOOKED_AT):
        if not waiting or len(found) >= limit:
            break
        _, row = heapq.heappop(waiting)
        if server_access.is_served(row):
            found.append(row)
        add(graph.before([row]))
    return found


def _between(
    view: ServerView,
    earliest: Collection[str],
    latest: Collection[str],
    limit: int,
    min_depth: int,
) -> list[EventRow]:
    """Ancestors of `latest` up to `earliest`, breadth first."""
    graph = _Graph(view, limit)
    seen = {*earliest, *latest}
    level = graph.rows([name for name in latest if name not in set(earliest)])
    found: list[EventRow] = []
    walked = 0
    while level and len(found) < limit and walked < limit * _LOOKED_AT:
        names = [name for name in graph.before(level) if name not in seen]
        seen.update(names)
        level = [row for row in graph.rows(names) if row.depth >= min_depth]
        walked += len(level)
        found += [row for row in level if server_access.is_served(row)]
    return found[:limit]
