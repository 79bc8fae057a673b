"""Device lists of other servers' users. Tables `remote_device_lists`, `remote_devices`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from storage.transaction import Transaction

UNASKED = -1
"""In place of the position at which a list was fetched: never, and nobody asked for it."""
ASKED_FOR = 0
"""Never, and somebody asked in vain, or got an answer that may be old."""


class RemoteList(NamedTuple):
    """What is known of a user's devices, and how well; see the table. Keys are JSON."""

    user_id: str
    stream_id: int | None
    heard: int
    stale: bool
    fetched_pos: int
    master_key: str | None
    self_signing_key: str | None


class RemoteDevice(NamedTuple):
    """A device; `keys` is JSON, None if it has none."""

    device_id: str
    display_name: str | None
    keys: str | None


_COLUMNS = "user_id, stream_id, heard, stale, fetched_pos, master_key, self_signing_key"


def get_lists(txn: Transaction, user_ids: Collection[str]) -> dict[str, RemoteList]:
    """The lists of these users, as far as there are any."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(f"SELECT {_COLUMNS} FROM remote_device_lists WHERE {where}", args)
    return {row[0]: _list(row) for row in rows}


def stale_lists(txn: Transaction, server_name: str) -> list[str]:
    """Users of a server whose lists must be fetched."""
    end = f":{server_name}"
    rows = txn.all("SELECT user_id FROM remote_device_lists WHERE stale ORDER BY user_id")
    return [row[0] for row in rows if row[0].endswith(end)]


def lock_list(txn: Transaction, user_id: str) -> RemoteList | None:
    """A user's list, its row locked until the transaction ends."""
    lock = txn.dialect.for_update
    row = txn.one(f"SELECT {_COLUMNS} FROM remote_device_lists WHERE user_id = ?{lock}", (user_id,))
    return _list(row) if row else None


def _list(row: tuple[object, ...]) -> RemoteList:
    found = RemoteList(*row)  # type: ignore[arg-type]
    return found._replace(stale=bool(found.stale))


def put_list(txn: Transaction, row: RemoteList) -> None:
    """Set what is known of a list; its devices stay."""
    txn.execute(
        f"INSERT INTO remote_device_lists ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (user_id) DO UPDATE SET stream_id = excluded.stream_id,"
        " heard = excluded.heard, stale = excluded.stale, fetched_pos = excluded.fetched_pos,"
        " master_key = excluded.master_key, self_signing_key = excluded.self_signing_key",
        row,
    )


def mark_stale(txn: Transaction, user_id: str, *, asked: bool = False) -> None:
    """Note that a change was missed; `asked`: or that somebody could not be told of the list."""
    fetched_pos = ASKED_FOR if asked else UNASKED
    txn.execute(
        f"INSERT INTO remote_device_lists ({_COLUMNS}) VALUES (?, NULL, 1, ?, ?, NULL, NULL)"
        " ON CONFLICT (user_id) DO UPDATE SET stale = excluded.stale,"
        " heard = remote_device_lists.heard + 1, fetched_pos = CASE"
        " WHEN remote_device_lists.fetched_pos < excluded.fetched_pos THEN excluded.fetched_pos"
        " ELSE remote_device_lists.fetched_pos END",
        (user_id, True, fetched_pos),
    )


def delete_list(txn: Transaction, user_id: str) -> None:
    """Forget a user's devices."""
    for table in ("remote_devices", "remote_device_lists"):
        txn.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))


def get_devices(txn: Transaction, user_ids: Collection[str]) -> dict[str, dict[str, RemoteDevice]]:
    """Known devices by user and ID."""
    found: dict[str, dict[str, RemoteDevice]] = {user_id: {} for user_id in user_ids}
    if not user_ids:
        return found
    where, args = txn.any_of("user_id", user_ids)
    for user_id, *device in txn.all(
        f"SELECT user_id, device_id, display_name, keys FROM remote_devices WHERE {where}", args
    ):
        found[user_id][device[0]] = RemoteDevice(*device)
    return found


def put_devices(txn: Transaction, user_id: str, devices: Iterable[RemoteDevice]) -> None:
    """Add or replace devices."""
    txn.many(
        "INSERT INTO remote_devices (user_id, device_id, display_name, keys) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_id, device_id)"
        " DO UPDATE SET display_name = excluded.display_name, keys = excluded.keys",
        [(user_id, *device) for device in devices],
    )


def delete_device(txn: Transaction, user_id: str, device_id: str) -> None:
    """Delete a device."""
    txn.execute(
        "DELETE FROM remote_devices WHERE user_id = ? AND device_id = ?", (user_id, device_id)
    )


def replace_devices(txn: Transaction, user_id: str, devices: Iterable[RemoteDevice]) -> None:
    """Set all devices of a user."""
    txn.execute("DELETE FROM remote_devices WHERE user_id = ?", (user_id,))
    put_devices(txn, user_id, devices)


def shared(txn: Transaction, user_ids: Collection[str]) -> set[str]:
    """Those of the users who are in a room with a user of this server."""
    if not user_ids:
        return set()
    where, args = txn.any_of("b.user_id", user_ids)
    rows = txn.all(
        f"SELECT DISTINCT b.user_id FROM memberships b WHERE {where} AND b.membership = 'join'"
        " AND EXISTS (SELECT 1 FROM memberships a WHERE a.room_nid = b.room_nid"
        " AND a.membership = 'join' AND a.is_local)",
        args,
    )
    return {row[0] for row in rows}


def usable_lists(txn: Transaction, user_ids: Collection[str]) -> dict[str, RemoteList]:
    """Those lists of these users that are as their servers have them.

    Their users have been in one room with a user of this server ever since the list was fetched,
    so that their servers have told of all changes. Stays are told by the positions of member
    events, also by those that only change a name: a list may be fetched without need.
    """
    if not user_ids:
        return {}
    where, args = txn.any_of("l.user_id", user_ids)
    columns = ", ".join(f"l.{column}" for column in _COLUMNS.split(", "))
    rows = txn.all(
        f"SELECT {columns} FROM remote_device_lists l WHERE {where} AND NOT l.stale"
        " AND l.fetched_pos > 0 AND EXISTS (SELECT 1 FROM memberships b"
        " JOIN memberships a ON a.room_nid = b.room_nid"
        " WHERE b.user_id = l.user_id AND b.membership = 'join' AND b.pos <= l.fetched_pos"
        " AND a.is_local AND a.membership = 'join' AND a.pos <= l.fetched_pos)",
        args,
    )
    return {row[0]: _list(row) for row in rows}
