"""The `devices` table."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from storage.transaction import Transaction


class DeviceRow(NamedTuple):
    """A device of a local user."""

    user_id: str
    device_id: str
    display_name: str | None
    created_ts: int
    last_seen_ts: int | None
    last_seen_ip: str | None
    last_seen_user_agent: str | None


class Seen(NamedTuple):
    """When and from where a device was last heard of."""

    user_id: str
    device_id: str
    ts: int
    ip: str
    user_agent: str


_COLUMNS = (
    "user_id, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, last_seen_user_agent"
)


def get_device(txn: Transaction, user_id: str, device_id: str) -> DeviceRow | None:
    """One device of a user."""
    raw = txn.one(
        f"SELECT {_COLUMNS} FROM devices WHERE user_id = ? AND device_id = ?", (user_id, device_id)
    )
    return DeviceRow(*raw) if raw else None


def lock_device(txn: Transaction, user_id: str, device_id: str) -> bool:
    """Lock a device until the transaction ends; False if there is none.

    Whoever gives a device tokens, or deletes it, locks it first: no token outlives its device.
    """
    lock = txn.dialect.for_update
    sql = f"SELECT 1 FROM devices WHERE user_id = ? AND device_id = ?{lock}"
    return txn.one(sql, (user_id, device_id)) is not None


def get_devices(txn: Transaction, user_id: str) -> list[DeviceRow]:
    """All devices of a user, in the order of their IDs."""
    sql = f"SELECT {_COLUMNS} FROM devices WHERE user_id = ? ORDER BY device_id"
    return [DeviceRow(*raw) for raw in txn.all(sql, (user_id,))]


def count(txn: Transaction, user_id: str) -> int:
    """How many devices a user has."""
    return int(txn.value("SELECT count(*) FROM devices WHERE user_id = ?", (user_id,)))


_UNUSED = (
    "COALESCE(last_seen_ts, created_ts) < ? AND NOT EXISTS (SELECT 1 FROM dehydrated_devices d"
    " WHERE d.user_id = devices.user_id AND d.device_id = devices.device_id)"
)


def unused(txn: Transaction, before_ms: int, limit: int) -> list[tuple[str, str]]:
    """Users and devices not heard of since a time, dehydrated ones excepted."""
    rows = txn.all(
        f"SELECT user_id, device_id FROM devices WHERE {_UNUSED} LIMIT ?", (before_ms, limit)
    )
    return [(row[0], row[1]) for row in rows]


def is_unused(txn: Transaction, user_id: str, device_id: str, before_ms: int) -> bool:
    """Whether `unused` would tell of this device; locks it."""
    sql = (
        f"SELECT 1 FROM devices WHERE {_UNUSED} AND user_id = ? AND device_id = ?"
        f"{txn.dialect.for_update}"
    )
    return txn.one(sql, (before_ms, user_id, device_id)) is not None


def insert_device(txn: Transaction, row: DeviceRow) -> bool:
    """Add a device; False (and no change) if the user has one of this ID."""
    inserted = txn.execute(
        f"INSERT INTO devices ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (user_id, device_id) DO NOTHING",
        row,
    )
    return inserted == 1


def set_display_name(txn: Transaction, user_id: str, device_id: str, name: str | None) -> bool:
    """Rename a device; False if there is none."""
    sql = "UPDATE devices SET display_name = ? WHERE user_id = ? AND device_id = ?"
    return txn.execute(sql, (name, user_id, device_id)) == 1


def delete_devices(txn: Transaction, user_id: str, device_ids: Collection[str]) -> list[str]:
    """Delete devices of a user; returns those that there were."""
    if not device_ids:
        return []
    where, args = txn.any_of("device_id", device_ids)
    sql = f"DELETE FROM devices WHERE user_id = ? AND {where} RETURNING device_id"
    return sorted(row[0] for row in txn.all(sql, [user_id, *args]))


def record_seen(txn: Transaction, seen: Iterable[Seen]) -> None:
    """Note when devices were last heard of; devices that are gone are passed over."""
    for each in sorted(seen):  # in one order, so that two processes never wait for each other
        txn.execute(
            "UPDATE devices SET last_seen_ts = ?, last_seen_ip = ?, last_seen_user_agent = ?"
            " WHERE user_id = ? AND device_id = ?"
            " AND (last_seen_ts IS NULL OR last_seen_ts < ?)",
            (each.ts, each.ip, each.user_agent, each.user_id, each.device_id, each.ts),
        )
