"""Files by the names that they go by: table `media`, one row for each mxc URI.

Times are milliseconds, sizes bytes. A row without hash is reserved: its file is to come.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from storage import media_contents
from storage.point_query import point_query
from storage.transaction import Row, Transaction

LOCAL = "local"
REMOTE = "remote"
PREVIEW = "preview"
"""Kinds: what users here sent; copies of other servers' files; pictures of previewed pages."""

CACHE = "media"
"""Invalidated, by `cache_key`, whenever what is known of a file changes."""


class MediaRow(NamedTuple):
    """A row. `authenticated`: only with an access token. `protected`: from quarantine by user or
    room. `expires_ts` is the end of a reservation."""

    server_name: str
    media_id: str
    kind: str
    sha256: str | None
    size: int
    content_type: str
    filename: str | None
    uploader: str | None
    created_ts: int
    last_access_ts: int
    expires_ts: int | None
    authenticated: bool
    quarantined_by: str | None
    protected: bool

    @property
    def uri(self) -> str:
        return f"mxc://{self.server_name}/{self.media_id}"


_COLUMNS = ", ".join(MediaRow._fields)
_M_COLUMNS = ", ".join(f"m.{field}" for field in MediaRow._fields)

# What may go. Of what is withheld the row must stay: it would be fetched again without it.
_FREE = "sha256 IS NOT NULL AND quarantined_by IS NULL AND protected = ?"


class Found(NamedTuple):
    """A file with what the store and the scanner know of it. `store_name` is None for a file that
    is to come; `blocked`: its content is given to nobody."""

    row: MediaRow
    store_name: str | None
    is_clean: bool
    blocked: bool


def cache_key(server_name: str, media_id: str) -> str:
    """The key of a file in caches."""
    return f"{server_name}/{media_id}"


def add(txn: Transaction, row: MediaRow) -> bool:
    """Add a row; False if the name is taken. Its content is counted by the caller."""
    marks = ", ".join("?" * len(row))
    return (
        txn.execute(
            f"INSERT INTO media ({_COLUMNS}) VALUES ({marks})"
            " ON CONFLICT (server_name, media_id) DO NOTHING",
            row,
        )
        > 0
    )


def _found(rows: list[Row]) -> Found | None:
    if not rows:
        return None
    *columns, name, is_clean, blocked = rows[0]
    return Found(MediaRow(*columns), name, bool(is_clean), blocked is not None)


@point_query(
    f"SELECT {_M_COLUMNS}, c.name, c.is_clean, b.sha256 FROM media m"
    " LEFT JOIN media_contents c ON c.sha256 = m.sha256"
    " LEFT JOIN media_blocked b ON b.sha256 = m.sha256"
    " WHERE m.server_name = ? AND m.media_id = ?",
    _found,
)
def find(server_name: str, media_id: str) -> Sequence[Any]:
    """A file by its name."""
    return (server_name, media_id)


def get(txn: Transaction, server_name: str, media_id: str) -> MediaRow | None:
    """A row by its name."""
    sql = f"SELECT {_COLUMNS} FROM media WHERE server_name = ? AND media_id = ?"
    row = txn.one(sql, (server_name, media_id))
    return None if row is None else MediaRow(*row)


def fill(txn: Transaction, row: MediaRow) -> bool:
    """Give a reserved name its file; False if it has one, or the reservation is gone."""
    filled = txn.execute(
        "UPDATE media SET sha256 = ?, size = ?, content_type = ?, filename = ?,"
        " last_access_ts = ?, expires_ts = NULL, authenticated = ?"
        " WHERE server_name = ? AND media_id = ? AND sha256 IS NULL",
        (
            row.sha256,
            row.size,
            row.content_type,
            row.filename,
            row.last_access_ts,
            row.authenticated,
            row.server_name,
            row.media_id,
        ),
    )
    txn.invalidate(CACHE, cache_key(row.server_name, row.media_id))
    return filled > 0


def count_reserved(txn: Transaction, uploader: str, now: int) -> tuple[int, int]:
    """How many names a user has reserved and not used, and when the first of them expires."""
    row = txn.one(
        "SELECT count(*), min(expires_ts) FROM media WHERE uploader = ? AND sha256 IS NULL"
        " AND expires_ts > ?",
        (uploader, now),
    )
    return (0, 0) if row is None else (int(row[0]), int(row[1] or 0))


def delete_expired(txn: Transaction, now: int, limit: int) -> int:
    """Forget names that were reserved and not used in time; how many."""
    return txn.execute(
        "DELETE FROM media WHERE sha256 IS NULL AND (server_name, media_id) IN (SELECT server_name,"
        " media_id FROM media WHERE sha256 IS NULL AND expires_ts <= ? LIMIT ?)",
        (now, limit),
    )


def used_by(txn: Transaction, uploader: str) -> tuple[int, int]:
    """Number and size of the files that a user has."""
    row = txn.one(
        "SELECT count(*), COALESCE(sum(size), 0) FROM media WHERE uploader = ?"
        " AND sha256 IS NOT NULL",
        (uploader,),
    )
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def total(txn: Transaction, kind: str) -> int:
    """The size of all files of a kind."""
    return int(txn.value("SELECT COALESCE(sum(size), 0) FROM media WHERE kind = ?", (kind,)))


def touch(txn: Transaction, seen: Iterable[tuple[str, str, int]]) -> None:
    """Note when files (server, ID, time) were last asked for."""
    for server_name, media_id, ts in seen:
        txn.execute(
            "UPDATE media SET last_access_ts = ? WHERE server_name = ? AND media_id = ?"
            " AND last_access_ts < ?",
            (ts, server_name, media_id, ts),
        )


def delete(txn: Transaction, row: MediaRow) -> list[str]:
    """Forget a file; what the store is to remove.

    Thumbnails go with the last row of their picture. Nothing happens if the name has another
    content by now: somebody else removed the file, and it was fetched again.
    """
    deleted = txn.execute(
        "DELETE FROM media WHERE server_name = ? AND media_id = ?"
        " AND (sha256 = ? OR (sha256 IS NULL AND ? IS NULL))",
        (row.server_name, row.media_id, row.sha256, row.sha256),
    )
    if not deleted:
        return []
    txn.invalidate(CACHE, cache_key(row.server_name, row.media_id))
    gone = delete_thumbnails(txn, cache_key(row.server_name, row.media_id))
    if row.sha256 is None:
        return gone
    if txn.one("SELECT 1 FROM media WHERE sha256 = ? LIMIT 1", (row.sha256,)) is None:
        gone += delete_thumbnails(txn, row.sha256)
    name = media_contents.release(txn, row.sha256)
    return gone if name is None else [*gone, name]


def delete_thumbnails(txn: Transaction, source: str) -> list[str]:
    """Forget the thumbnails of a picture; what the store is to remove."""
    hashes = txn.all("DELETE FROM media_thumbnails WHERE source = ? RETURNING sha256", (source,))
    names = [media_contents.release(txn, sha256) for (sha256,) in hashes]
    return [name for name in names if name is not None]


def least_used(txn: Transaction, kind: str, before: int, limit: int) -> list[MediaRow]:
    """Files of a kind that were not asked for since `before`, the longest unused first.

    Protected ones and those that are withheld are left out.
    """
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM media WHERE kind = ? AND last_access_ts < ? AND {_FREE}"
        " ORDER BY last_access_ts LIMIT ?",
        (kind, before, False, limit),
    )
    return [MediaRow(*row) for row in rows]


def old(
    txn: Transaction, kind: str, before: int, *, larger: int, keep_profiles: bool, limit: int
) -> list[MediaRow]:
    """Files of a kind not asked for since `before` and larger than so many bytes.

    `keep_profiles`: not the pictures of users and rooms.
    """
    kept = (
        " AND NOT EXISTS (SELECT 1 FROM profiles p WHERE p.field = 'avatar_url'"
        " AND p.value = '\"mxc://' || server_name || '/' || media_id || '\"')"
        " AND NOT EXISTS (SELECT 1 FROM media_references r JOIN events e"
        " ON e.event_nid = r.event_nid WHERE r.server_name = media.server_name"
        " AND r.media_id = media.media_id AND r.redacted_ts IS NULL"
        " AND e.type = 'm.room.avatar')"
        if keep_profiles
        else ""
    )
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM media WHERE kind = ? AND last_access_ts < ? AND size > ?"
        f" AND {_FREE}{kept} ORDER BY last_access_ts LIMIT ?",
        (kind, before, larger, False, limit),
    )
    return [MediaRow(*row) for row in rows]


def created_before(txn: Transaction, kind: str, before: int, limit: int) -> list[MediaRow]:
    """Files of a kind that came before this time, whenever they were asked for."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM media WHERE kind = ? AND created_ts < ? AND {_FREE}"
        " ORDER BY created_ts LIMIT ?",
        (kind, before, False, limit),
    )
    return [MediaRow(*row) for row in rows]


def of_hash(txn: Transaction, sha256: str) -> list[MediaRow]:
    """All names of a content."""
    return [
        MediaRow(*row)
        for row in txn.all(f"SELECT {_COLUMNS} FROM media WHERE sha256 = ?", (sha256,))
    ]


_ORDERS = {
    "media_id": "media_id",
    "created_ts": "created_ts",
    "last_access_ts": "last_access_ts",
    "media_length": "size",
    "media_type": "content_type",
    "upload_name": "filename",
    "quarantined_by": "quarantined_by",
    "safe_from_quarantine": "protected",
}
"""What a list of files may be sorted by."""


def of_user(
    txn: Transaction, uploader: str, order: str, *, backwards: bool, start: int, limit: int
) -> tuple[list[MediaRow], int]:
    """Some of the files of a user, and how many there are. `order` is a key of `_ORDERS`."""
    where = "uploader = ? AND sha256 IS NOT NULL"
    way = "DESC" if backwards else "ASC"
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM media WHERE {where}"
        f" ORDER BY {_ORDERS[order]} {way}, media_id {way} LIMIT ? OFFSET ?",
        (uploader, limit, start),
    )
    total = txn.value(f"SELECT count(*) FROM media WHERE {where}", (uploader,))
    return [MediaRow(*row) for row in rows], int(total)


def after(
    txn: Transaction, server_name: str, media_id: str, limit: int, uploader: str | None = None
) -> list[MediaRow]:
    """Files in the order of their names, behind this one; all, or those of one user."""
    only, args = ("", []) if uploader is None else (" AND uploader = ?", [uploader])
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM media WHERE (server_name, media_id) > (?, ?)"
        f" AND sha256 IS NOT NULL{only} ORDER BY server_name, media_id LIMIT ?",
        [server_name, media_id, *args, limit],
    )
    return [MediaRow(*row) for row in rows]


def quarantine(
    txn: Transaction, names: Collection[tuple[str, str]], by: str | None, *, even_protected: bool
) -> int:
    """Give these files to nobody, or to everybody again if `by` is None; how many changed."""
    changed = 0
    spared = "" if even_protected else " AND protected = FALSE"
    for server_name, media_id in names:
        state = "quarantined_by IS NULL" if by is not None else "quarantined_by IS NOT NULL"
        n = txn.execute(
            f"UPDATE media SET quarantined_by = ? WHERE server_name = ? AND media_id = ?"
            f" AND {state}{spared}",
            (by, server_name, media_id),
        )
        if n:
            txn.invalidate(CACHE, cache_key(server_name, media_id))
            changed += n
    return changed


def protect(txn: Transaction, server_name: str, media_id: str, protected: bool) -> bool:
    """Shield a file from quarantine by user or room, or no more; False if there is none."""
    return (
        txn.execute(
            "UPDATE media SET protected = ? WHERE server_name = ? AND media_id = ?",
            (protected, server_name, media_id),
        )
        > 0
    )


def forget_content(txn: Transaction, sha256: str) -> list[MediaRow]:
    """The file of a content is lost: forget all that names it; the rows that did."""
    rows = of_hash(txn, sha256)
    for row in rows:
        txn.execute(
            "DELETE FROM media WHERE server_name = ? AND media_id = ?",
            (row.server_name, row.media_id),
        )
        txn.invalidate(CACHE, cache_key(row.server_name, row.media_id))
    txn.execute("DELETE FROM media_thumbnails WHERE sha256 = ?", (sha256,))
    media_contents.remove(txn, sha256)
    return rows


def invalidate_hash(txn: Transaction, sha256: str) -> int:
    """Have every process look again at what it knows of a content; how many names it has."""
    rows = of_hash(txn, sha256)
    for row in rows:
        txn.invalidate(CACHE, cache_key(row.server_name, row.media_id))
    return len(rows)


def lost_previews(txn: Transaction) -> int:
    """Forget previews whose pictures are gone: their pages are asked again."""
    return txn.execute(
        "DELETE FROM url_previews WHERE media_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM media m"
        " WHERE m.kind = 'preview' AND m.media_id = url_previews.media_id)"
    )


class Usage(NamedTuple):
    """What a user has uploaded."""

    user_id: str
    displayname: str | None
    media_count: int
    media_length: int


def usage(
    txn: Transaction,
    order: str,
    *,
    backwards: bool,
    since: int,
    until: int | None,
    search: str | None,
    start: int,
    limit: int,
) -> tuple[list[Usage], int]:
    """What users have uploaded in a time, some of them, and how many there are.

    `order` is a field of `Usage`; `search` is looked for in user IDs and names.
    """
    conditions = ["m.uploader IS NOT NULL", "m.sha256 IS NOT NULL", "m.created_ts >= ?"]
    args: list[object] = [since]
    if until is not None:
        conditions.append("m.created_ts <= ?")
        args.append(until)
    if search:
        wanted = "".join("\\" + char if char in "\\%_" else char for char in search.lower())
        conditions.append(
            "(lower(m.uploader) LIKE ? ESCAPE '\\' OR lower(p.value) LIKE ? ESCAPE '\\')"
        )
        args += [f"%{wanted}%", f"%{wanted}%"]
    found = (
        "SELECT m.uploader AS user_id, p.value AS displayname, count(*) AS media_count,"
        " COALESCE(sum(m.size), 0) AS media_length FROM media m LEFT JOIN profiles p"
        " ON p.user_id = m.uploader AND p.field = 'displayname'"
        f" WHERE {' AND '.join(conditions)} GROUP BY m.uploader, p.value"
    )
    way = "DESC" if backwards else "ASC"
    column = order if order in Usage._fields else "user_id"
    rows = txn.all(
        f"SELECT * FROM ({found}) u ORDER BY {column} {way}, user_id {way} LIMIT ? OFFSET ?",
        [*args, limit, start],
    )
    total = txn.value(f"SELECT count(*) FROM ({found}) u", args)
    listed = [
        Usage(user, None if name is None else json.loads(name), int(count), int(size))
        for user, name, count, size in rows
    ]
    return listed, int(total)
