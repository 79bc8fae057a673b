"""What pages said of themselves: table `url_previews`. Times are milliseconds."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from storage.transaction import Transaction


class PreviewRow(NamedTuple):
    """What a page said at a time, as JSON; `media_id` is its picture's."""

    url_hash: str
    fetched_ts: int
    expires_ts: int
    url: str
    preview: str
    media_id: str | None


_COLUMNS = ", ".join(PreviewRow._fields)


def key_of(url: str) -> str:
    """What a URL is found by."""
    return sha256(url.encode()).hexdigest()


def add(txn: Transaction, row: PreviewRow) -> None:
    """Keep what a page said."""
    txn.execute(
        f"INSERT INTO url_previews ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (url_hash, fetched_ts) DO NOTHING",
        row,
    )


def at(txn: Transaction, url: str, ts: int) -> PreviewRow | None:
    """What a page said at a time: the last that was fetched by then, unless it was too old."""
    row = txn.one(
        f"SELECT {_COLUMNS} FROM url_previews WHERE url_hash = ? AND fetched_ts <= ?"
        " ORDER BY fetched_ts DESC LIMIT 1",
        (key_of(url), ts),
    )
    if row is None:
        return None
    found = PreviewRow(*row)
    return found if found.expires_ts > ts and found.url == url else None


def delete_before(txn: Transaction, fetched_ts: int, limit: int) -> int:
    """Forget what was fetched before a time; how many rows."""
    return txn.execute(
        "DELETE FROM url_previews WHERE (url_hash, fetched_ts) IN (SELECT url_hash, fetched_ts"
        " FROM url_previews WHERE fetched_ts < ? ORDER BY fetched_ts LIMIT ?)",
        (fetched_ts, limit),
    )
