"""Aliases of this server's domain."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class AliasRow(NamedTuple):
    """A room alias."""

    alias: str
    room_nid: int
    creator: str


def insert(txn: Transaction, alias: str, room_nid: int, creator: str) -> bool:
    """Make an alias; False if it is taken."""
    return (
        txn.execute(
            "INSERT INTO aliases (alias, room_nid, creator) VALUES (?, ?, ?)"
            " ON CONFLICT (alias) DO NOTHING",
            (alias, room_nid, creator),
        )
        == 1
    )


def get(txn: Transaction, alias: str) -> AliasRow | None:
    """The alias of this name."""
    raw = txn.one("SELECT alias, room_nid, creator FROM aliases WHERE alias = ?", (alias,))
    return AliasRow(*raw) if raw else None


def of_room(txn: Transaction, room_nid: int) -> list[str]:
    """The aliases of a room, sorted."""
    rows = txn.all("SELECT alias FROM aliases WHERE room_nid = ? ORDER BY alias", (room_nid,))
    return [row[0] for row in rows]


def delete(txn: Transaction, alias: str) -> bool:
    """Remove an alias; False if there was none."""
    return txn.execute("DELETE FROM aliases WHERE alias = ?", (alias,)) == 1


def move(txn: Transaction, old_room_nid: int, new_room_nid: int) -> None:
    """Point all aliases of one room to another."""
    txn.execute("UPDATE aliases SET room_nid = ? WHERE room_nid = ?", (new_room_nid, old_room_nid))
