"""What other servers have got, and which of them cannot be reached.

Tables `destination_shards`, `destinations`, `destination_events`. A destination without a row of
its own has got everything up to its shard's position, so that nothing is written for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from storage.transaction import Transaction


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
