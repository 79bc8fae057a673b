"""What connections of sliding sync were sent, by position. Table `sliding_positions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from storage.point_query import point_query
from storage.transaction import Transaction


class Connection(NamedTuple):
    """One of the connections of a device; `conn_id` is the client's name for it."""

    user_id: str
    device_id: str
    conn_id: str


class Kept(NamedTuple):
    """What is stored for a position."""

    connection: Connection
    state: str | None
    """None: it was not asked for."""
    used_ts: int


_OF = "user_id = ? AND device_id = ? AND conn_id = ?"


def get(txn: Transaction, position: int, *, with_state: bool) -> Kept | None:
    """What is stored for a position."""
    state = "state" if with_state else "NULL"
    raw = txn.one(
        f"SELECT user_id, device_id, conn_id, {state}, used_ts FROM sliding_positions"
        " WHERE position = ?",
        (position,),
    )
    return Kept(Connection(*raw[:3]), raw[3], raw[4]) if raw else None


@point_query(
    f"SELECT 1 FROM sliding_positions WHERE position = ? AND {_OF}", lambda rows: bool(rows)
)
def is_kept(connection: Connection, position: int) -> Sequence[Any]:
    """Whether a position is one of a connection's."""
    return (position, *connection)


def add(
    txn: Transaction, connection: Connection, position: int, parent: int, state: str, now: int
) -> None:
    """Store a new position; `now` in milliseconds."""
    txn.execute(
        "INSERT INTO sliding_positions"
        " (position, user_id, device_id, conn_id, parent, state, used_ts)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (position, *connection, parent, state, now),
    )


def of_connection(txn: Transaction, connection: Connection) -> list[tuple[int, int]]:
    """Positions of a connection and their parents, the oldest first.

    Processes take numbers in blocks: they do not tell what is newer.
    """
    rows = txn.all(
        f"SELECT position, parent FROM sliding_positions WHERE {_OF} ORDER BY used_ts, position",
        connection,
    )
    return [(row[0], row[1]) for row in rows]


def delete(txn: Transaction, positions: list[int]) -> None:
    """Forget positions."""
    if positions:
        where, args = txn.any_of("position", positions)
        txn.execute(f"DELETE FROM sliding_positions WHERE {where}", args)


def delete_connection(txn: Transaction, connection: Connection) -> None:
    """Forget a connection."""
    txn.execute(f"DELETE FROM sliding_positions WHERE {_OF}", connection)


def connections(txn: Transaction, user_id: str, device_id: str) -> list[str]:
    """The names of a device's connections, the one that was used longest ago first."""
    rows = txn.all(
        "SELECT conn_id FROM sliding_positions WHERE user_id = ? AND device_id = ?"
        " GROUP BY conn_id ORDER BY MAX(used_ts), MAX(position)",
        (user_id, device_id),
    )
    return [row[0] for row in rows]


def touch(txn: Transaction, position: int, now: int) -> None:
    """Note that a position was used."""
    txn.execute("UPDATE sliding_positions SET used_ts = ? WHERE position = ?", (now, position))


def delete_device(txn: Transaction, user_id: str, device_id: str) -> None:
    """Forget the connections of a device."""
    txn.execute(
        "DELETE FROM sliding_positions WHERE user_id = ? AND device_id = ?", (user_id, device_id)
    )


def delete_unused(txn: Transaction, before: int) -> None:
    """Forget what was not used since a time in milliseconds."""
    txn.execute("DELETE FROM sliding_positions WHERE used_ts < ?", (before,))
