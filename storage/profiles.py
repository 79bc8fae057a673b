"""The `profiles` table: one row for each field of a local user's profile."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from storage.point_query import point_query
from storage.transaction import Row, Transaction


def get_profile(txn: Transaction, user_id: str) -> dict[str, Any]:
    """All fields of a profile; empty for a user without one."""
    rows = txn.all("SELECT field, value FROM profiles WHERE user_id = ? ORDER BY field", (user_id,))
    return {field: json.loads(value) for field, value in rows}


def _profile(rows: list[Row]) -> dict[str, Any] | None:
    if not rows:
        return None
    return {field: json.loads(value) for field, value in rows if field is not None}


@point_query(
    "SELECT p.field, p.value FROM users u LEFT JOIN profiles p ON p.user_id = u.user_id"
    " WHERE u.user_id = ? AND u.deactivated_ts IS NULL ORDER BY p.field",
    _profile,
    most=100,
)
def of_active(user_id: str) -> Sequence[Any]:
    """All fields of the profile of a user whose account is not closed; None if there is none."""
    return (user_id,)


def get_profiles(
    txn: Transaction, user_ids: Collection[str], fields: Collection[str]
) -> dict[str, dict[str, Any]]:
    """These fields of several users; users without any of them are left out."""
    if not user_ids or not fields:
        return {}
    users, user_args = txn.any_of("user_id", user_ids)
    names, name_args = txn.any_of("field", fields)
    found: dict[str, dict[str, Any]] = {}
    sql = f"SELECT user_id, field, value FROM profiles WHERE {users} AND {names}"
    for user_id, field, value in txn.all(sql, [*user_args, *name_args]):
        found.setdefault(user_id, {})[field] = json.loads(value)
    return found


def get_all(txn: Transaction, user_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """All fields of several users; users without any are left out."""
    if not user_ids:
        return {}
    where, args = txn.any_of("user_id", user_ids)
    found: dict[str, dict[str, Any]] = {}
    sql = f"SELECT user_id, field, value FROM profiles WHERE {where}"
    for user_id, field, value in txn.all(sql, args):
        found.setdefault(user_id, {})[field] = json.loads(value)
    return found


def put_field(txn: Transaction, user_id: str, field: str, value: Any) -> None:
    """Set one field."""
    txn.execute(
        "INSERT INTO profiles (user_id, field, value) VALUES (?, ?, ?)"
        " ON CONFLICT (user_id, field) DO UPDATE SET value = excluded.value",
        (user_id, field, json.dumps(value, ensure_ascii=False)),
    )


def delete_field(txn: Transaction, user_id: str, field: str) -> bool:
    """Remove one field; False if it was not set."""
    sql = "DELETE FROM profiles WHERE user_id = ? AND field = ?"
    return txn.execute(sql, (user_id, field)) == 1


def delete_profile(txn: Transaction, user_id: str) -> None:
    """Remove all fields."""
    txn.execute("DELETE FROM profiles WHERE user_id = ?", (user_id,))
