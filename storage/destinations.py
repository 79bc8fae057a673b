"""What other servers have got, and which of them cannot be reached.

Tables `destination_shards`, `destinations`, `destination_events`. A destination without a row of
its own has got everything up to its shard's position, so that nothing is written for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple
from zlib import crc32

from storage.transaction import Transaction

SHARDS = 16
RETRY_NOW = "destination_retry"
"""Said of a destination (by `Transaction.invalidate`) that is to be tried again at once."""


def shard_of(server_name: str) -> int:
    """The shard of a destination; never changes."""
    return crc32(server_name.encode()) % SHARDS


class DestinationRow(NamedTuple):
    """See `storage/schema/0012_destinations.sql`; times in milliseconds."""

    server_name: str
    shard: int
    pos: int
    failing_since: int | None
    retry_at: int
    retry_interval: int


_COLUMNS = ", ".join(DestinationRow._fields)


def shard_positions(txn: Transaction, shards: Collection[int]) -> dict[int, int]:
    """How far these shards are; 0 for those that nobody served yet."""
    where, args = txn.any_of("shard", shards)
    rows = txn.all(f"SELECT shard, pos FROM destination_shards WHERE {where}", args)
    return dict.fromkeys(shards, 0) | {row[0]: row[1] for row in rows}


def put_shards(txn: Transaction, positions: Mapping[int, int]) -> None:
    """Write how far shards are."""
    txn.many(
        "INSERT INTO destination_shards (shard, pos) VALUES (?, ?)"
        " ON CONFLICT (shard) DO UPDATE SET pos = excluded.pos",
        sorted(positions.items()),
    )


def of_shards(txn: Transaction, shards: Collection[int]) -> list[DestinationRow]:
    """The destinations of these shards that have a row."""
    where, args = txn.any_of("shard", shards)
    return [
        DestinationRow(*row)
        for row in txn.all(f"SELECT {_COLUMNS} FROM destinations WHERE {where}", args)
    ]


def get(txn: Transaction, server_name: str) -> DestinationRow | None:
    """A destination's row; None for one that is neither behind nor unreachable."""
    row = txn.one(f"SELECT {_COLUMNS} FROM destinations WHERE server_name = ?", (server_name,))
    return None if row is None else DestinationRow(*row)


def put(txn: Transaction, rows: Iterable[DestinationRow]) -> None:
    """Write rows of destinations."""
    txn.many(
        f"INSERT INTO destinations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (server_name) DO UPDATE SET shard = excluded.shard, pos = excluded.pos,"
        " failing_since = excluded.failing_since, retry_at = excluded.retry_at,"
        " retry_interval = excluded.retry_interval",
        rows,
    )


def delete(txn: Transaction, server_names: Collection[str]) -> None:
    """These destinations are as far as their shards."""
    if server_names:
        where, args = txn.any_of("server_name", server_names)
        txn.execute(f"DELETE FROM destinations WHERE {where}", args)


def add_events(txn: Transaction, events: Iterable[tuple[str, int]]) -> None:
    """Note (server, position) of events that go to a server which is not in their room."""
    txn.many(
        "INSERT INTO destination_events (server_name, pos) VALUES (?, ?) ON CONFLICT DO NOTHING",
        events,
    )


def events_for(txn: Transaction, server_name: str, after: int, upto: int) -> list[int]:
    """Positions of such events in `after < pos <= upto`, in order."""
    rows = txn.all(
        "SELECT pos FROM destination_events WHERE server_name = ? AND pos > ? AND pos <= ?"
        " ORDER BY pos",
        (server_name, after, upto),
    )
    return [row[0] for row in rows]


def delete_events(txn: Transaction, server_name: str, upto: int) -> None:
    """The server has got these events."""
    txn.execute(
        "DELETE FROM destination_events WHERE server_name = ? AND pos <= ?", (server_name, upto)
    )


# For administrators

_KNOWN = (
    "(SELECT server_name FROM room_servers UNION SELECT server_name FROM destinations) known"
    " LEFT JOIN destinations d ON d.server_name = known.server_name"
)
_LAST_TRY = "CASE WHEN d.failing_since IS NULL THEN 0 ELSE d.retry_at - d.retry_interval END"
_INTERVAL = "CASE WHEN d.failing_since IS NULL THEN 0 ELSE d.retry_interval END"
ORDERS = {
    "destination": "known.server_name",
    "retry_last_ts": _LAST_TRY,
    "retry_interval": _INTERVAL,
    "failure_ts": "COALESCE(d.failing_since, 0)",
    "last_successful_stream_ordering": "COALESCE(d.pos, 0)",
}
"""What a list can be sorted by, in SQL."""


class KnownServer(NamedTuple):
    """Another server; times in milliseconds. `pos`: it has got everything up to here."""

    server_name: str
    last_try: int
    interval: int
    failing_since: int | None
    pos: int


def page(
    txn: Transaction,
    order_by: str,
    start: int,
    limit: int,
    *,
    backwards: bool,
    named: str | None = None,
) -> tuple[list[KnownServer], int]:
    """Some of the servers that share a room with this one or are behind, and how many there are.

    `named`: a part of their names.
    """
    direction = "DESC" if backwards else "ASC"
    where, args = "", list[object]()
    if named is not None:
        pattern = named.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        where, args = " WHERE known.server_name LIKE ? ESCAPE '\\'", [f"%{pattern}%"]
    total = int(txn.value(f"SELECT count(*) FROM {_KNOWN}{where}", args))
    rows = txn.all(
        f"SELECT known.server_name, {_LAST_TRY}, {_INTERVAL}, d.failing_since, d.pos FROM {_KNOWN}"
        f"{where} ORDER BY {ORDERS[order_by]} {direction}, known.server_name LIMIT ? OFFSET ?",
        [*args, limit, start],
    )
    return _with_positions(txn, rows), total


def known(txn: Transaction, server_name: str) -> KnownServer | None:
    """One such server."""
    rows = txn.all(
        f"SELECT known.server_name, {_LAST_TRY}, {_INTERVAL}, d.failing_since, d.pos FROM {_KNOWN}"
        " WHERE known.server_name = ?",
        (server_name,),
    )
    found = _with_positions(txn, rows)
    return found[0] if found else None


def rooms_page(
    txn: Transaction, server_name: str, start: int, limit: int, *, backwards: bool
) -> tuple[list[tuple[str, int]], int]:
    """IDs and last positions of some of the rooms that a server is in, and how many there are."""
    direction = "DESC" if backwards else "ASC"
    joined = "room_servers s JOIN rooms r ON r.room_nid = s.room_nid WHERE s.server_name = ?"
    rows = txn.all(
        f"SELECT r.room_id, r.last_pos FROM {joined}"
        f" ORDER BY r.room_id {direction} LIMIT ? OFFSET ?",
        (server_name, limit, start),
    )
    total = int(txn.value(f"SELECT count(*) FROM {joined}", (server_name,)))
    return [(row[0], row[1]) for row in rows], total


def retry_now(txn: Transaction, server_name: str) -> bool:
    """Have an unreachable server tried again at once, by whatever process serves it; False if it
    is not known to be unreachable."""
    done = txn.execute(
        "UPDATE destinations SET retry_at = 0, retry_interval = 0"
        " WHERE server_name = ? AND failing_since IS NOT NULL",
        (server_name,),
    )
    if done:
        txn.invalidate(RETRY_NOW, server_name)
    return done == 1


def _with_positions(txn: Transaction, rows: Iterable[tuple[object, ...]]) -> list[KnownServer]:
    positions = shard_positions(txn, range(SHARDS))
    found = []
    for name, last_try, interval, failing_since, pos in rows:
        if pos is None:
            pos = positions[shard_of(str(name))]
        found.append(KnownServer._make((name, last_try, interval, failing_since, pos)))
    return found
