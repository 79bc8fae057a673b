"""Which events name a file. Table `media_references`.

What encrypted events name, nobody here knows. So the table cannot tell that a file is not needed;
it can tell that a file was sent in the open, and that this was taken back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.media import LOCAL
from storage.transaction import Transaction

_SCHEME = "mxc://"


class Reference(NamedTuple):
    """An event that names a file."""

    server_name: str
    media_id: str
    event_nid: int
    room_nid: int
    sender: str


def add(txn: Transaction, references: Iterable[Reference]) -> None:
    """Note references; those that are known are passed over."""
    txn.many(
        "INSERT INTO media_references (server_name, media_id, event_nid, room_nid, sender,"
        " redacted_ts) VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
        references,
    )


def events(txn: Transaction, after: int, upto: int, limit: int) -> list[EventRow]:
    """Accepted events in `after < pos <= upto` that may name files, in order."""
    rows = txn.all(
        f"SELECT {COLUMNS} FROM events WHERE pos > ? AND pos <= ? AND status = {ACCEPTED}"
        " AND type <> 'm.room.encrypted' AND redacted_by IS NULL AND json LIKE ?"
        " ORDER BY pos LIMIT ?",
        (after, upto, f"%{_SCHEME}%", limit),
    )
    return [EventRow(*row) for row in rows]


def take_back(txn: Transaction, references: Collection[Reference]) -> None:
    """An event that named these files was redacted. When that was is set by `notice_redacted`."""
    txn.many(
        "INSERT INTO media_references (server_name, media_id, event_nid, room_nid, sender,"
        " redacted_ts) VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (server_name, media_id, event_nid)"
        " DO UPDATE SET redacted_ts = 0",
        references,
    )


def notice_purged(txn: Transaction) -> int:
    """Events that are not kept any more name nothing either; of how many references."""
    return txn.execute(
        "UPDATE media_references SET redacted_ts = 0 WHERE redacted_ts IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM events e WHERE e.event_nid = media_references.event_nid)"
    )


def notice_redacted(txn: Transaction, now: int) -> int:
    """Begin the time after which files of redacted events go; of how many references."""
    return txn.execute("UPDATE media_references SET redacted_ts = ? WHERE redacted_ts = 0", (now,))


def taken_back(txn: Transaction, before: int, limit: int) -> list[tuple[str, str]]:
    """Files sent in the open by those who uploaded them, all of whose events were redacted, the
    last before this time; protected ones and those in profiles or account data excepted."""
    return [
        (row[0], row[1])
        for row in txn.all(
            "SELECT DISTINCT m.server_name, m.media_id FROM media_references r JOIN media m"
            " ON m.server_name = r.server_name AND m.media_id = r.media_id"
            " AND m.uploader = r.sender"
            " WHERE r.redacted_ts > 0 AND r.redacted_ts < ? AND m.kind = ? AND m.protected = ?"
            " AND NOT EXISTS (SELECT 1 FROM media_references o WHERE"
            " o.server_name = m.server_name AND o.media_id = m.media_id"
            " AND (o.redacted_ts IS NULL OR o.redacted_ts = 0 OR o.redacted_ts >= ?))"
            " AND NOT EXISTS (SELECT 1 FROM profiles p WHERE p.field = 'avatar_url'"
            " AND p.value = '\"mxc://' || m.server_name || '/' || m.media_id || '\"')"
            " AND NOT EXISTS (SELECT 1 FROM account_data a WHERE a.user_id = m.uploader"
            " AND a.content LIKE ? || m.server_name || '/' || m.media_id || ?)"
            " LIMIT ?",
            (before, LOCAL, False, before, f"%{_SCHEME}", "%", limit),
        )
    ]


def forget(txn: Transaction, names: Collection[tuple[str, str]]) -> None:
    """Forget who named these files."""
    for name in names:
        txn.execute("DELETE FROM media_references WHERE server_name = ? AND media_id = ?", name)


def in_room(
    txn: Transaction, room_nid: int, after: Sequence[str], limit: int
) -> list[tuple[str, str]]:
    """Files (server, ID) that events of a room name, in order, behind this one."""
    rows = txn.all(
        "SELECT DISTINCT server_name, media_id FROM media_references"
        " WHERE room_nid = ? AND redacted_ts IS NULL AND (server_name, media_id) > (?, ?)"
        " ORDER BY server_name, media_id LIMIT ?",
        (room_nid, *after, limit),
    )
    return [(row[0], row[1]) for row in rows]
