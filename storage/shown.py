"""What answers show of rooms, in few columns: reading all of an event costs twice as much.

For many rooms at once, as `storage.windows`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from storage.dialect import array_text
from storage.transaction import Row, Transaction
from storage.windows import Wanted, newest_of_rooms

_PAIRS = 1000
_SPELLED = 200


class TimelineRow(NamedTuple):
    """An accepted event of a timeline; as `storage.events.EventRow`."""

    room_nid: int
    event_nid: int
    event_id: str
    pos: int
    type: str
    state_key: str | None
    sender: str
    json: str
    state_before: bytes | None
    state_after: bytes | None
    replaces_state: str | None
    redacted_by: str | None
    txn_device: str | None
    txn_id: str | None


class StateRow(NamedTuple):
    """An event of a room's current state; as `storage.events.EventRow`."""

    room_nid: int
    type: str
    state_key: str
    event_nid: int
    event_id: str
    pos: int | None
    json: str
    replaces_state: str | None
    redacted_by: str | None


_TIMELINE = ", ".join(TimelineRow._fields)
_STATE = ", ".join(
    ("c." if name in ("room_nid", "type", "state_key") else "e.") + name
    for name in StateRow._fields
)
_JOINED = "JOIN events e ON e.event_nid = c.event_nid"
_CURRENT = f"SELECT {_STATE} FROM current_state c {_JOINED} WHERE"


def newest(txn: Transaction, wanted: Sequence[Wanted]) -> dict[int, list[TimelineRow]]:
    """The newest accepted events of each room, the last known first."""
    found: dict[int, list[TimelineRow]] = {one.room_nid: [] for one in wanted}
    for raw in newest_of_rooms(txn, _TIMELINE, wanted):
        found[raw[0]].append(TimelineRow._make(raw))
    for rows in found.values():
        rows.sort(key=lambda row: row.pos, reverse=True)
    return found


def current(
    txn: Transaction, room_nids: Collection[int], limit: int, *, without: str | None
) -> list[StateRow] | None:
    """The current state of rooms, but for the events of one type. None if it is more than
    `limit` events."""
    if not room_nids:
        return []
    sql, args = _current(txn, room_nids, without)
    rows = txn.all(f"{sql} LIMIT ?", [*args, limit + 1])
    return None if len(rows) > limit else list(map(StateRow._make, rows))


def _current(
    txn: Transaction, room_nids: Collection[int], without: str | None
) -> tuple[str, list[Any]]:
    # Two ranges of the index, so that very many of that type cost nothing.
    ranges = [""] if without is None else [" AND c.type < ?", " AND c.type > ?"]
    bounds = [] if without is None else [without]
    if txn.dialect.name == "postgres":
        # Room by room (OFFSET 0): else it may read all events to find those of many rooms.
        each = " UNION ALL ".join(f"{_CURRENT} c.room_nid = w.asked_nid{part}" for part in ranges)
        sql = (
            "SELECT s.* FROM unnest(CAST(? AS BIGINT[])) AS w (asked_nid)"
            f" CROSS JOIN LATERAL ({each} OFFSET 0) AS s"
        )
        return sql, [array_text(room_nids), *bounds * 2]
    where, args = txn.any_of("c.room_nid", room_nids)
    sql = " UNION ALL ".join(f"{_CURRENT} {where}{part}" for part in ranges)
    return sql, [item for _ in ranges for item in (*args, *bounds)]


def members(txn: Transaction, wanted: Mapping[int, Collection[str]]) -> Iterator[StateRow]:
    """The current member events of these users of each room."""
    pairs = [(nid, name) for nid, names in sorted(wanted.items()) for name in sorted(names)]
    size = _PAIRS if txn.dialect.name == "postgres" else _SPELLED
    for start in range(0, len(pairs), size):
        yield from map(StateRow._make, _members(txn, pairs[start : start + size]))


def _members(txn: Transaction, pairs: Sequence[tuple[int, str]]) -> list[Row]:
    if txn.dialect.name == "postgres":
        return txn.all(
            # One by one (OFFSET 0): else it may read all member events to find those of many.
            "SELECT s.* FROM unnest(CAST(? AS BIGINT[]), CAST(? AS TEXT[])) AS w (nid, name)"
            f" CROSS JOIN LATERAL ({_CURRENT} c.room_nid = w.nid AND c.type = 'm.room.member'"
            " AND c.state_key = w.name OFFSET 0) AS s",
            [array_text(nid for nid, _ in pairs), array_text(name for _, name in pairs)],
        )
    values = ", ".join(["(?, ?)"] * len(pairs))
    return txn.all(
        f"{_CURRENT} c.type = 'm.room.member' AND (c.room_nid, c.state_key) IN (VALUES {values})",
        [item for pair in pairs for item in pair],
    )
