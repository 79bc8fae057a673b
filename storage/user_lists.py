"""Lists of accounts for administrators. Tables `users`, `profiles`, `devices`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from storage import profiles
from storage.transaction import Transaction

_LAST_SEEN = "(SELECT MAX(d.last_seen_ts) FROM devices d WHERE d.user_id = u.user_id)"
_DISPLAYNAME = " LEFT JOIN profiles dn ON dn.user_id = u.user_id AND dn.field = 'displayname'"
_AVATAR = " LEFT JOIN profiles av ON av.user_id = u.user_id AND av.field = 'avatar_url'"

# The databases differ in where they put NULL.
ORDERS = {
    "name": "u.user_id",
    "displayname": "COALESCE(dn.value, '')",
    "avatar_url": "COALESCE(av.value, '')",
    "is_guest": "u.is_guest",
    "admin": "u.is_admin",
    "deactivated": "(u.deactivated_ts IS NOT NULL)",
    "user_type": "COALESCE(u.user_type, '')",
    "shadow_banned": "u.shadow_banned",
    "creation_ts": "u.created_ts",
    "last_seen_ts": f"COALESCE({_LAST_SEEN}, 0)",
    "locked": "u.locked",
}
"""What a list can be sorted by, in SQL."""


class Listed(NamedTuple):
    """An account in a list; times in milliseconds."""

    user_id: str
    user_type: str | None
    is_guest: bool
    is_admin: bool
    deactivated: bool
    shadow_banned: bool
    erased: bool
    locked: bool
    created_ts: int
    last_seen_ts: int | None
    displayname: str | None
    avatar_url: str | None


class Wanted(NamedTuple):
    """Which accounts to list; None: whatever it is.

    Parameters: `user_id`, a part of the user ID; `name`, a part of the localpart or the display
    name, in any case; `not_types`, types of account to leave out ("": those without one).
    """

    user_id: str | None = None
    name: str | None = None
    guests: bool | None = None
    admins: bool | None = None
    deactivated: bool | None = None
    locked: bool | None = None
    suspended: bool | None = None
    shadow_banned: bool | None = None
    not_types: Sequence[str] = ()


def page(
    txn: Transaction, wanted: Wanted, order_by: str, start: int, limit: int, *, backwards: bool
) -> tuple[list[Listed], int]:
    """Some of the wanted accounts, and how many there are in all.

    `order_by` is one of `ORDERS`; accounts that are alike in it come by their IDs.
    """
    where, args = _where(wanted)
    named = _DISPLAYNAME if wanted.name is not None else ""
    total = int(txn.value(f"SELECT count(*) FROM users u{named} WHERE {where}", args))
    if order_by == "displayname":
        named = _DISPLAYNAME
    elif order_by == "avatar_url":
        named += _AVATAR
    direction = "DESC" if backwards else "ASC"
    by_id = "" if order_by == "name" else ", u.user_id ASC"
    rows = txn.all(
        "SELECT u.user_id, u.user_type, u.is_guest, u.is_admin, u.deactivated_ts IS NOT NULL,"
        f" u.shadow_banned, u.erased, u.locked, u.created_ts, {_LAST_SEEN}"
        f" FROM users u{named} WHERE {where}"
        f" ORDER BY {ORDERS[order_by]} {direction}{by_id} LIMIT ? OFFSET ?",
        [*args, limit, start],
    )
    shown = profiles.get_profiles(txn, [row[0] for row in rows], ["displayname", "avatar_url"])
    return [_listed(row, shown.get(row[0], {})) for row in rows], total


def last_seen(txn: Transaction, user_id: str) -> int | None:
    """When a device of the user was last heard of."""
    sql = "SELECT MAX(last_seen_ts) FROM devices WHERE user_id = ?"
    found: int | None = txn.value(sql, (user_id,))
    return found


def _listed(row: tuple[Any, ...], profile: dict[str, Any]) -> Listed:
    return Listed._make(
        (
            *row[:2],
            *map(bool, row[2:8]),
            *row[8:10],
            profile.get("displayname"),
            profile.get("avatar_url"),
        )
    )


def _where(wanted: Wanted) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    args: list[Any] = []
    if wanted.name is not None:
        conditions.append(
            "(LOWER(u.user_id) LIKE ? ESCAPE '\\' OR LOWER(dn.value) LIKE ? ESCAPE '\\')"
        )
        # A stored name is JSON.
        encoded = json.dumps(wanted.name.lower(), ensure_ascii=False)[1:-1]
        args += [f"@%{_literal(wanted.name.lower())}%:%", f"%{_literal(encoded)}%"]
    elif wanted.user_id is not None:
        conditions.append("LOWER(u.user_id) LIKE ? ESCAPE '\\'")
        args.append(f"%{_literal(wanted.user_id.lower())}%")
    flags = {
        "u.is_guest": wanted.guests,
        "u.is_admin": wanted.admins,
        "u.locked": wanted.locked,
        "u.suspended": wanted.suspended,
        "u.shadow_banned": wanted.shadow_banned,
    }
    for column, value in flags.items():
        if value is not None:
            conditions.append(f"{column} = ?")
            args.append(value)
    if wanted.deactivated is not None:
        negation = "NOT " if wanted.deactivated else ""
        conditions.append(f"u.deactivated_ts IS {negation}NULL")
    for name in dict.fromkeys(wanted.not_types):
        conditions.append("COALESCE(u.user_type, '') <> ?")
        args.append(name)
    return " AND ".join(conditions) or "1 = 1", args


def _literal(text: str) -> str:
    """A text in a pattern of LIKE, standing for itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
