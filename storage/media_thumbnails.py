"""Small forms of pictures. Table `media_thumbnails`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from storage import media_contents
from storage.point_query import point_query
from storage.transaction import Row, Transaction


class Form(NamedTuple):
    """Which thumbnail: `source` is the hash of the picture, or server/ID of one that was fetched
    from there; sizes in pixels as asked for; `method` is crop or scale."""

    source: str
    width: int
    height: int
    method: str
    animated: bool


class Thumbnail(NamedTuple):
    """A thumbnail and where its bytes are. `is_clean`: the scanner has seen them."""

    sha256: str
    size: int
    content_type: str
    last_access_ts: int
    store_name: str
    is_clean: bool


_KEY = "source = ? AND width = ? AND height = ? AND method = ? AND animated = ?"


def _thumbnail(rows: list[Row]) -> Thumbnail | None:
    return Thumbnail(*rows[0]) if rows else None


@point_query(
    "SELECT t.sha256, t.size, t.content_type, t.last_access_ts, c.name, c.is_clean"
    " FROM media_thumbnails t JOIN media_contents c ON c.sha256 = t.sha256"
    f" WHERE {_KEY}",
    _thumbnail,
)
def find(form: Form) -> Sequence[Any]:
    """A thumbnail that was made before."""
    return form


def add(txn: Transaction, form: Form, sha256: str, size: int, content_type: str, now: int) -> bool:
    """Add a thumbnail; False if it is there. Its content is counted by the caller."""
    return (
        txn.execute(
            "INSERT INTO media_thumbnails (source, width, height, method, animated, sha256, size,"
            " content_type, last_access_ts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (*form, sha256, size, content_type, now),
        )
        > 0
    )


def touch(txn: Transaction, seen: Iterable[tuple[Form, int]]) -> None:
    """Note when thumbnails were last asked for."""
    for form, ts in seen:
        txn.execute(
            f"UPDATE media_thumbnails SET last_access_ts = ? WHERE {_KEY} AND last_access_ts < ?",
            (ts, *form, ts),
        )


def total(txn: Transaction) -> int:
    """The size of all thumbnails."""
    return int(txn.value("SELECT COALESCE(sum(size), 0) FROM media_thumbnails"))


def least_used(txn: Transaction, before: int, limit: int) -> list[tuple[Form, int]]:
    """Thumbnails not asked for since `before`, the longest unused first, with their sizes."""
    rows = txn.all(
        "SELECT source, width, height, method, animated, size FROM media_thumbnails"
        " WHERE last_access_ts < ? ORDER BY last_access_ts LIMIT ?",
        (before, limit),
    )
    return [(Form(*row[:5]), row[5]) for row in rows]


def delete(txn: Transaction, form: Form) -> str | None:
    """Forget a thumbnail; what the store is to remove."""
    row = txn.one(f"DELETE FROM media_thumbnails WHERE {_KEY} RETURNING sha256", form)
    return None if row is None else media_contents.release(txn, row[0])
