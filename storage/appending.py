"""Messages that are added to rooms by one statement, which also proves that they may be.

Their rooms' heads were known in memory, and they are built, checked and signed already. What is
left is to find out whether the heads are still those, and to write, all in one round trip:

1. The rooms' rows are locked, in the order of their numbers as everywhere.
2. If `head_version` of each is the one that was built on, positions are taken from the clock;
   else nothing is written.
3. The events are inserted and the heads moved on.

On PostgreSQL the statement is a transaction of its own. It sees the database as it was when it
began, before it waited for locks; but rows that it locks or updates, it sees as they are then
(PostgreSQL, "Read Committed Isolation Level"). So the comparison is made on what locking returns,
and what the rest reads of a room is what was committed with the head that was built on, or before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from storage.events import ACCEPTED, EventRow
from storage.events import insert as insert_events
from storage.rooms import RoomRow
from storage.transaction import Effects, Row, Transaction

_SEPARATOR = "\x1e"


class Move(NamedTuple):
    """A room's row as it was built on, and as it becomes; the number of new events."""

    before: RoomRow
    after: RoomRow
    added: int


class Added(NamedTuple):
    """What became of it: the position before the first of the events, or None if nothing was
    written; the numbers of the rooms whose heads are others by now."""

    base: int | None
    stale: tuple[int, ...]


class NotSimple(Exception):
    """A row cannot be written in this way."""


class Append:
    """Adds messages to rooms if their heads are still those that they were built on.

    Parameters:
        moves: the rooms, each once. State is not changed by messages.
        rows: the events, room after room in the order of `moves`; `pos` counts from 1.
        channels: for hints, if it was done.
        told: called before them, on the reactor thread, with the position before the first event.

    Raises, when it runs:
        IntegrityViolation: an event of one of the transactions is there already; nothing was
            written.
        NotSimple: a row has something in it that messages written here do not have.
    """

    def __init__(
        self,
        moves: Sequence[Move],
        rows: Sequence[EventRow],
        channels: Collection[str] = (),
        told: Callable[[int], object] | None = None,
    ) -> None:
        self.moves = moves
        self.rows = rows
        self.channels = channels
        self._told = told

    @property
    def postgres(self) -> str:
        """See `storage.single.Single`."""
        return _STATEMENT

    def arguments(self) -> list[str]:
        """See `storage.single.Single`."""
        if not all(map(_is_simple, self.rows)):
            raise NotSimple
        return _arguments(self.moves, self.rows)

    def result(self, effects: Effects, row: Row) -> Added:
        """See `storage.single.Single`."""
        base, stale, _ = row
        if base is not None:
            effects.took_positions(base + 1, base + len(self.rows))
            self._done(effects, base)
        return Added(base, tuple(stale))

    def in_steps(self, txn: Transaction) -> Added:
        """See `storage.single.Single`."""
        if not all(map(_is_simple, self.rows)):
            raise NotSimple
        added = _step_by_step(txn, self.moves, self.rows)
        if added.base is not None:
            self._done(txn, added.base)
        return added

    def _done(self, effects: Effects, base: int) -> None:
        told = self._told
        if told is not None:
            effects.after_commit(lambda: told(base))
        effects.notify(*self.channels)


def _is_simple(row: EventRow) -> bool:
    return (
        row.state_key is None
        and row.status == ACCEPTED
        and row.replaces_state is None
        and row.redacted_by is None
        and row.relates_to is None
        and row.txn_id is not None
    )


_HEADS = (
    "room_nid",
    "built_on",
    "head_version",
    "depth",
    "notify_total",
    "highlight_total",
    "last_event",
)
_EVENTS = (
    "event_nid",
    "room_nid",
    "depth",
    "origin_server_ts",
    "contains_url",
    "notify",
    "notify_total",
    "highlight_total",
    "outgoing",
)
_TEXTS = ("event_id", "type", "sender", "json", "state_root", "txn_device", "txn_scope", "txn_id")


def _lists(numbers: Sequence[str], texts: Sequence[str]) -> str:
    """Columns of `unnest`. Texts come joined: PostgreSQL takes them apart in no time, and nothing
    needs to be quoted. One more separator, at the end, keeps a single empty text."""
    parts = ["(SELECT ?::bigint[])"] * len(numbers)
    parts += ["(SELECT string_to_array(?, chr(30)))"] * len(texts)
    return f"unnest({', '.join(parts)}) WITH ORDINALITY AS e ({', '.join((*numbers, *texts))}, n)"


_STATEMENT = f"""
WITH heads AS MATERIALIZED (
    SELECT * FROM {_lists(_HEADS, ["extremities"])} WHERE room_nid IS NOT NULL
), locked AS MATERIALIZED (
    SELECT room_nid, head_version FROM rooms
    WHERE room_nid = ANY (ARRAY(SELECT room_nid FROM heads)) ORDER BY room_nid FOR UPDATE
), stale AS MATERIALIZED (
    SELECT h.room_nid FROM heads h
    LEFT JOIN locked l ON l.room_nid = h.room_nid AND l.head_version = h.built_on
    WHERE l.room_nid IS NULL
), news AS MATERIALIZED (
    SELECT * FROM {_lists(_EVENTS, _TEXTS)} WHERE event_nid IS NOT NULL
), ticked AS (
    UPDATE clock SET pos = pos + (SELECT count(*) FROM news)
    WHERE NOT EXISTS (SELECT 1 FROM stale) AND NOT EXISTS (
        SELECT 1 FROM pending_redactions
        WHERE redacts = ANY (ARRAY(SELECT event_id FROM news))
    )
    RETURNING pos - (SELECT count(*) FROM news) AS base
), added AS (
    INSERT INTO events (
        event_nid, event_id, room_nid, pos, depth, type, sender, origin_server_ts, json, status,
        state_before, state_after, contains_url, notify, notify_total, highlight_total,
        txn_device, txn_scope, txn_id, outgoing
    )
    SELECT
        event_nid, event_id, room_nid, base + n, depth, type, sender, origin_server_ts, json,
        {ACCEPTED}, decode(state_root, 'hex'), decode(state_root, 'hex'), contains_url = 1,
        notify::smallint, notify_total, highlight_total, txn_device, txn_scope, txn_id,
        outgoing = 1
    FROM ticked, news
), moved AS (
    UPDATE rooms SET head_version = h.head_version, depth = h.depth, extremities = h.extremities,
        notify_total = h.notify_total, highlight_total = h.highlight_total,
        last_pos = ticked.base + h.last_event
    FROM ticked, heads h WHERE rooms.room_nid = h.room_nid
    RETURNING 1
)
SELECT base, ARRAY(SELECT room_nid FROM stale),
    -- Fails, and undoes all, should a head not have moved on.
    1 / (CASE WHEN base IS NULL OR (SELECT count(*) FROM moved) = (SELECT count(*) FROM heads)
        THEN 1 ELSE 0 END)
FROM (SELECT 1) AS one LEFT JOIN ticked ON TRUE
"""


def _arguments(moves: Sequence[Move], rows: Sequence[EventRow]) -> list[str]:
    heads, last = [], 0
    for before, after, added in moves:
        last += added
        heads.append(
            (
                after.room_nid,
                before.head_version,
                after.head_version,
                after.depth,
                after.notify_total,
                after.highlight_total,
                last,
            )
        )
    args = [_numbers(column) for column in zip(*heads, strict=True)]
    args.append(_texts([json.dumps(move.after.extremities) for move in moves]))
    args += [
        _numbers(column)
        for column in zip(
            *(
                (
                    row.event_nid,
                    row.room_nid,
                    row.depth,
                    row.origin_server_ts,
                    int(row.contains_url),
                    row.notify,
                    row.notify_total,
                    row.highlight_total,
                    int(row.outgoing),
                )
                for row in rows
            ),
            strict=True,
        )
    ]
    args += [
        _texts([row.event_id for row in rows]),
        _texts([row.type for row in rows]),
        _texts([row.sender for row in rows]),
        _texts([row.json for row in rows]),
        _texts([(row.state_after or b"").hex() for row in rows]),
        _texts([row.txn_device or "" for row in rows]),
        _texts([row.txn_scope or "" for row in rows]),
        _texts([row.txn_id or "" for row in rows]),
    ]
    return args


def _numbers(values: Sequence[int]) -> str:
    return f"{{{','.join(map(str, values))}}}"


def _texts(values: Sequence[str]) -> str:
    joined = _SEPARATOR.join(values)
    if joined.count(_SEPARATOR) != len(values) - 1:
        raise NotSimple  # one of them has the separator in it
    return joined + _SEPARATOR


def _step_by_step(txn: Transaction, moves: Sequence[Move], rows: Sequence[EventRow]) -> Added:
    where, args = txn.any_of("room_nid", [move.before.room_nid for move in moves])
    rooms = txn.all(f"SELECT room_nid, head_version FROM rooms WHERE {where}", args)
    found: dict[int, int] = dict(rooms)
    stale = tuple(
        move.before.room_nid
        for move in moves
        if found.get(move.before.room_nid) != move.before.head_version
    )
    if stale:
        return Added(None, stale)
    where, args = txn.any_of("redacts", [row.event_id for row in rows])
    if txn.one(f"SELECT 1 FROM pending_redactions WHERE {where} LIMIT 1", args) is not None:
        return Added(None, ())
    base = txn.next_pos(len(rows)) - len(rows)
    insert_events(txn, [row._replace(pos=base + (row.pos or 0)) for row in rows])
    heads, last = [], base
    for _, after, added in moves:
        last += added
        heads.append(
            (
                after.head_version,
                after.depth,
                json.dumps(after.extremities),
                after.notify_total,
                after.highlight_total,
                last,
                after.room_nid,
            )
        )
    txn.many(
        "UPDATE rooms SET head_version = ?, depth = ?, extremities = ?, notify_total = ?,"
        " highlight_total = ?, last_pos = ? WHERE room_nid = ?",
        heads,
    )
    return Added(base, ())
