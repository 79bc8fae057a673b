"""Where users want to be told of events. Table `pushers`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from homeserver.core.types import JsonObject
from storage.transaction import Transaction

CHANGED = "pushers"
"""The cache that is invalidated when pushers are added or removed; keys are user IDs."""


class PusherRow(NamedTuple):
    """A pusher. `storage/schema/0027_push.sql` explains the columns."""

    pusher_nid: int
    user_id: str
    app_id: str
    pushkey: str
    kind: str
    app_display_name: str
    device_display_name: str
    profile_tag: str | None
    lang: str
    data: str
    device_id: str
    enabled: bool
    activated: bool
    ack_token: str | None
    ack_expires_ts: int | None
    secret: str
    gateway: str
    set_ts: int
    since: int
    badge: int | None
    mailed_ts: int | None
    mail_pause: int | None

    @property
    def settings(self) -> JsonObject:
        """What the client keeps in `data`."""
        settings: JsonObject = json.loads(self.data)
        return settings

    @property
    def is_active(self) -> bool:
        """Whether anything is sent to it."""
        return self.enabled and self.activated


_COLUMNS = ", ".join(PusherRow._fields)
_KEPT = (
    "pusher_nid",
    "user_id",
    "app_id",
    "pushkey",
    "device_id",
    "secret",
    "since",
    "badge",
    "mailed_ts",
    "mail_pause",
)


def _row(raw: Sequence[object]) -> PusherRow:
    row = PusherRow(*raw)  # type: ignore[arg-type]
    return row._replace(enabled=bool(row.enabled), activated=bool(row.activated))


def get(txn: Transaction, user_id: str, app_id: str, pushkey: str) -> PusherRow | None:
    """The user's pusher of this app and key."""
    raw = txn.one(
        f"SELECT {_COLUMNS} FROM pushers WHERE user_id = ? AND app_id = ? AND pushkey = ?",
        (user_id, app_id, pushkey),
    )
    return _row(raw) if raw else None


def by_number(txn: Transaction, pusher_nid: int) -> PusherRow | None:
    """One pusher."""
    raw = txn.one(f"SELECT {_COLUMNS} FROM pushers WHERE pusher_nid = ?", (pusher_nid,))
    return _row(raw) if raw else None


def by_numbers(txn: Transaction, pusher_nids: Collection[int]) -> list[PusherRow]:
    """Pushers by their numbers."""
    where, args = txn.any_of("pusher_nid", pusher_nids)
    return [_row(raw) for raw in txn.all(f"SELECT {_COLUMNS} FROM pushers WHERE {where}", args)]


def by_secret(txn: Transaction, pusher_nid: int, secret: str) -> PusherRow | None:
    """The pusher that a link in a message names."""
    row = by_number(txn, pusher_nid)
    return row if row is not None and row.secret == secret else None


def of_user(txn: Transaction, user_id: str) -> list[PusherRow]:
    """All pushers of a user, the oldest first."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM pushers WHERE user_id = ? ORDER BY pusher_nid", (user_id,)
    )
    return [_row(raw) for raw in rows]


def of_users(txn: Transaction, user_ids: Collection[str]) -> list[PusherRow]:
    """The pushers of several users to which anything is sent."""
    where, args = txn.any_of("user_id", user_ids)
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM pushers WHERE {where} AND enabled AND activated"
        " ORDER BY pusher_nid",
        args,
    )
    return [_row(raw) for raw in rows]


def count(txn: Transaction, user_id: str) -> int:
    """How many pushers a user has."""
    return int(txn.value("SELECT COUNT(*) FROM pushers WHERE user_id = ?", (user_id,)))


def new_number(txn: Transaction) -> int:
    """A number for a new pusher; never given again."""
    return int(
        txn.value(
            "INSERT INTO counters (name, value) VALUES ('pusher', 1) ON CONFLICT (name)"
            " DO UPDATE SET value = counters.value + 1 RETURNING value"
        )
    )


def put(txn: Transaction, row: PusherRow) -> None:
    """Add a pusher, or change what the client may change of the one of this app and key."""
    sets = ", ".join(f"{n} = excluded.{n}" for n in PusherRow._fields if n not in _KEPT)
    txn.execute(
        f"INSERT INTO pushers ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})"
        f" ON CONFLICT (user_id, app_id, pushkey) DO UPDATE SET {sets}",
        row,
    )
    txn.invalidate(CHANGED, row.user_id)


def activate(txn: Transaction, pusher_nid: int) -> None:
    """The client has heard what was sent to it."""
    txn.execute(
        "UPDATE pushers SET activated = TRUE, ack_token = NULL, ack_expires_ts = NULL"
        " WHERE pusher_nid = ?",
        (pusher_nid,),
    )


def set_badge(txn: Transaction, pusher_nid: int, badge: int) -> None:
    """The device was told this count."""
    txn.execute("UPDATE pushers SET badge = ? WHERE pusher_nid = ?", (badge, pusher_nid))


def set_mailed(txn: Transaction, pusher_nid: int, ts: int, pause: int) -> None:
    """A message was made; the next one comes `pause` ms later at the earliest."""
    txn.execute(
        "UPDATE pushers SET mailed_ts = ?, mail_pause = ? WHERE pusher_nid = ?",
        (ts, pause, pusher_nid),
    )


def others(txn: Transaction, user_id: str, app_id: str, pushkey: str) -> list[PusherRow]:
    """The pushers of other users with this app and key."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM pushers WHERE app_id = ? AND pushkey = ? AND user_id <> ?",
        (app_id, pushkey, user_id),
    )
    return [_row(raw) for raw in rows]


def delete(txn: Transaction, rows: Iterable[PusherRow]) -> None:
    """Remove pushers, with what waits for them."""
    for row in rows:
        for table in ("push_queue", "push_work", "pushers"):
            txn.execute(f"DELETE FROM {table} WHERE pusher_nid = ?", (row.pusher_nid,))
        txn.invalidate(CHANGED, row.user_id)


def delete_of_device(txn: Transaction, user_id: str, device_id: str) -> None:
    """A device is gone, and its pushers with it. E-mail goes on: it belongs to the account."""
    delete(
        txn,
        [
            row
            for row in of_user(txn, user_id)
            if row.device_id == device_id and row.kind != "email"
        ],
    )


def delete_all(txn: Transaction, user_id: str) -> None:
    """Remove all pushers of a user."""
    delete(txn, of_user(txn, user_id))


def delete_address(txn: Transaction, user_id: str, address: str) -> None:
    """An e-mail address is not the user's any more."""
    delete(
        txn,
        [row for row in of_user(txn, user_id) if row.kind == "email" and row.pushkey == address],
    )


def users(txn: Transaction) -> list[str]:
    """All users who have a pusher."""
    return [row[0] for row in txn.all("SELECT DISTINCT user_id FROM pushers")]


def oldest_since(txn: Transaction) -> int | None:
    """The position after which somebody is told of something; None: nobody is ever."""
    found: int | None = txn.value("SELECT MIN(since) FROM pushers")
    return found
