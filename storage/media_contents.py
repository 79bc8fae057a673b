"""What files hold, kept once for each content. Tables `media_contents`, `media_blocked`.

A content is in the store under a name that was never used before and never will be again. So a
content that goes away and one with the same hash that comes at the same moment are two files, and
removing the one cannot harm the other.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from storage.transaction import Transaction


class Content(NamedTuple):
    """A row: `name` in the store, `size` in bytes, how many rows name it."""

    sha256: str
    name: str
    size: int
    refs: int
    is_clean: bool


_COLUMNS = ", ".join(Content._fields)


def add(txn: Transaction, sha256: str, name: str, size: int, now: int) -> str:
    """Name a content once more; the name under which the store has it.

    That is another than `name` where the content was there already: the new file is of no use.
    """
    return str(
        txn.value(
            "INSERT INTO media_contents (sha256, name, size, refs, is_clean, created_ts)"
            " VALUES (?, ?, ?, 1, ?, ?)"
            " ON CONFLICT (sha256) DO UPDATE SET refs = media_contents.refs + 1 RETURNING name",
            (sha256, name, size, False, now),
        )
    )


def add_reference(txn: Transaction, sha256: str) -> bool:
    """Name a content once more that is there; False if it is not."""
    return txn.execute("UPDATE media_contents SET refs = refs + 1 WHERE sha256 = ?", (sha256,)) > 0


def release(txn: Transaction, sha256: str, count: int = 1) -> str | None:
    """Name a content less often; its name in the store if it is to be removed from there."""
    row = txn.one(
        "UPDATE media_contents SET refs = refs - ? WHERE sha256 = ? RETURNING refs, name",
        (count, sha256),
    )
    if row is None or row[0] > 0:
        return None
    txn.execute("DELETE FROM media_contents WHERE sha256 = ?", (sha256,))
    return str(row[1])


def get(txn: Transaction, sha256: str) -> Content | None:
    """The row of a hash."""
    row = txn.one(f"SELECT {_COLUMNS} FROM media_contents WHERE sha256 = ?", (sha256,))
    return None if row is None else Content(*row)


def set_clean(txn: Transaction, sha256: str) -> None:
    """The scanner found nothing."""
    txn.execute("UPDATE media_contents SET is_clean = ? WHERE sha256 = ?", (True, sha256))


def known_names(txn: Transaction, names: Collection[str]) -> set[str]:
    """Those of the names that rows have."""
    where, args = txn.any_of("name", names)
    return {row[0] for row in txn.all(f"SELECT name FROM media_contents WHERE {where}", args)}


def after(txn: Transaction, sha256: str, limit: int) -> list[Content]:
    """Rows in the order of their hashes, behind this one."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM media_contents WHERE sha256 > ? ORDER BY sha256 LIMIT ?",
        (sha256, limit),
    )
    return [Content(*row) for row in rows]


def count_references(txn: Transaction, sha256: str) -> int:
    """How many rows name a hash, counted."""
    return int(
        txn.value(
            "SELECT (SELECT count(*) FROM media WHERE sha256 = ?)"
            " + (SELECT count(*) FROM media_thumbnails WHERE sha256 = ?)",
            (sha256, sha256),
        )
    )


def recount(txn: Transaction, sha256: str) -> str | None:
    """Set the count to what is counted; as `release`."""
    lock = txn.dialect.for_update
    row = txn.one(f"SELECT refs, name FROM media_contents WHERE sha256 = ?{lock}", (sha256,))
    if row is None:
        return None
    return release(txn, sha256, row[0] - count_references(txn, sha256))


def remove(txn: Transaction, sha256: str) -> None:
    """Forget a content whose file is gone."""
    txn.execute("DELETE FROM media_contents WHERE sha256 = ?", (sha256,))


def block(txn: Transaction, sha256: str, by: str, now: int) -> None:
    """Give this content to nobody, also when it comes again."""
    txn.execute(
        "INSERT INTO media_blocked (sha256, blocked_by, blocked_ts) VALUES (?, ?, ?)"
        " ON CONFLICT (sha256) DO NOTHING",
        (sha256, by, now),
    )


def unblock(txn: Transaction, sha256: str) -> bool:
    """Undo `block`."""
    return txn.execute("DELETE FROM media_blocked WHERE sha256 = ?", (sha256,)) > 0


def blocked_by(txn: Transaction, sha256: str) -> str | None:
    """Who blocked a content, if it is blocked."""
    by: str | None = txn.value("SELECT blocked_by FROM media_blocked WHERE sha256 = ?", (sha256,))
    return by
