"""Messages that wait for devices. Tables `to_device_messages`, `to_device_transactions`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from storage.transaction import Transaction


class Queue(NamedTuple):
    """The waiting messages of a device: numbers of the first and the last; None: there are none."""

    user_id: str
    device_id: str
    first: int | None
    last: int | None


class Message(NamedTuple):
    """A waiting message; `message` is the JSON text of an object."""

    user_id: str
    device_id: str
    pos: int
    seq: int
    message: str


_NUMBER = (
    "(SELECT m.seq FROM to_device_messages m"
    " WHERE m.user_id = d.user_id AND m.device_id = d.device_id ORDER BY m.pos {} LIMIT 1)"
)


def queues(
    txn: Transaction, user_ids: Collection[str], device_ids: Collection[str] | None
) -> list[Queue]:
    """The queues of these users' devices, or of those devices that have one of these IDs.

    The devices cannot be deleted before the transaction ends, so that nothing is left in the
    queue of a device that is gone.
    """
    where, args = txn.any_of("d.user_id", user_ids)
    if device_ids is not None:
        named, more = txn.any_of("d.device_id", device_ids)
        where, args = f"{where} AND {named}", [*args, *more]
    # Writing transactions of SQLite run one after the other.
    lock = " FOR KEY SHARE OF d" if txn.dialect.name == "postgres" else ""
    rows = txn.all(
        f"SELECT d.user_id, d.device_id, {_NUMBER.format('')}, {_NUMBER.format('DESC')}"
        f" FROM devices d WHERE {where} ORDER BY d.user_id, d.device_id{lock}",
        args,
    )
    return [Queue(*row) for row in rows]


def add(txn: Transaction, messages: Iterable[Message]) -> None:
    """Put messages into queues."""
    txn.many(
        "INSERT INTO to_device_messages (user_id, device_id, pos, seq, message)"
        " VALUES (?, ?, ?, ?, ?)",
        messages,
    )


def drop_oldest(txn: Transaction, user_id: str, device_id: str, n: int) -> None:
    """Delete the `n` (at least 1) oldest messages of a queue that has as many."""
    txn.execute(
        "DELETE FROM to_device_messages WHERE user_id = ? AND device_id = ? AND pos <="
        " (SELECT pos FROM to_device_messages WHERE user_id = ? AND device_id = ?"
        " ORDER BY pos LIMIT 1 OFFSET ?)",
        (user_id, device_id, user_id, device_id, n - 1),
    )


def waiting(
    txn: Transaction, user_id: str, device_id: str, after: int, upto: int, limit: int
) -> list[tuple[int, str]]:
    """Positions and messages in `after < pos <= upto`, the oldest first, at most `limit`."""
    rows = txn.all(
        "SELECT pos, message FROM to_device_messages WHERE user_id = ? AND device_id = ?"
        " AND pos > ? AND pos <= ? ORDER BY pos LIMIT ?",
        (user_id, device_id, after, upto, limit),
    )
    return [(row[0], row[1]) for row in rows]


def has_any(txn: Transaction, user_id: str, device_id: str, upto: int) -> bool:
    """Whether a message waits whose position is at most `upto`."""
    found = txn.one(
        "SELECT 1 FROM to_device_messages WHERE user_id = ? AND device_id = ? AND pos <= ? LIMIT 1",
        (user_id, device_id, upto),
    )
    return found is not None


def delete(txn: Transaction, user_id: str, device_id: str, upto: int) -> int:
    """Delete the messages whose position is at most `upto`; how many there were."""
    return txn.execute(
        "DELETE FROM to_device_messages WHERE user_id = ? AND device_id = ? AND pos <= ?",
        (user_id, device_id, upto),
    )


def delete_device(txn: Transaction, user_id: str, device_id: str) -> None:
    """Delete what waits for a device, and its own transactions."""
    for table in ("to_device_messages", "to_device_transactions"):
        txn.execute(
            f"DELETE FROM {table} WHERE user_id = ? AND device_id = ?", (user_id, device_id)
        )


def begin_transaction(
    txn: Transaction, user_id: str, device_id: str, event_type: str, txn_id: str, now_ms: int
) -> bool:
    """Note a transaction of a sending device; False if it was noted before."""
    added = txn.execute(
        "INSERT INTO to_device_transactions (user_id, device_id, event_type, txn_id, sent_ts)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id, device_id, event_type, txn_id) DO NOTHING",
        (user_id, device_id, event_type, txn_id, now_ms),
    )
    return added == 1


def forget_transactions(txn: Transaction, user_id: str, device_id: str, before_ms: int) -> None:
    """Delete a device's transactions older than a time."""
    txn.execute(
        "DELETE FROM to_device_transactions WHERE user_id = ? AND device_id = ? AND sent_ts < ?",
        (user_id, device_id, before_ms),
    )
