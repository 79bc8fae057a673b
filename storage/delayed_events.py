"""Events that are to be sent later. Table `delayed_events`. Times are milliseconds."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction

CHANNEL = "delayed_events"
"""Hints that an event is due earlier than was known."""


class DelayedRow(NamedTuple):
    """An event that waits, or that was sent, cancelled or refused (`finalised_ts`).

    `device_id` is "" where there is none, `txn_id` "" where the client gave none; `content` and
    `error` are JSON.
    """

    delay_id: str
    user_id: str
    device_id: str
    scope: str
    txn_id: str
    room_id: str
    event_type: str
    state_key: str | None
    content: str
    delay: int
    running_since: int
    finalised_ts: int | None = None
    event_id: str | None = None
    error: str | None = None
    sticky_ms: int | None = None


_COLUMNS = ", ".join(DelayedRow._fields)


def add(txn: Transaction, row: DelayedRow) -> str:
    """Schedule an event; its ID, or that of the one which the same transaction scheduled."""
    added = txn.execute(
        f"INSERT INTO delayed_events ({_COLUMNS}, send_ts, claimed_until)"
        f" VALUES ({', '.join('?' * len(row))}, ?, 0)"
        " ON CONFLICT (user_id, device_id, scope, txn_id) WHERE txn_id <> '' DO NOTHING",
        (*row, row.running_since + row.delay),
    )
    if added:
        txn.notify(CHANNEL)
        return row.delay_id
    found = same_transaction(txn, row)
    return row.delay_id if found is None else found


def same_transaction(txn: Transaction, row: DelayedRow) -> str | None:
    """The event that the same transaction of the client scheduled."""
    if not row.txn_id:
        return None
    found: str | None = txn.value(
        "SELECT delay_id FROM delayed_events"
        " WHERE user_id = ? AND device_id = ? AND scope = ? AND txn_id = ?",
        (row.user_id, row.device_id, row.scope, row.txn_id),
    )
    return found


def get(txn: Transaction, delay_id: str) -> DelayedRow | None:
    """One event."""
    row = txn.one(f"SELECT {_COLUMNS} FROM delayed_events WHERE delay_id = ?", (delay_id,))
    return DelayedRow(*row) if row else None


def of_user(txn: Transaction, user_id: str, *, finalised: bool, limit: int) -> list[DelayedRow]:
    """Events of a user: those that wait, or those that do not; the newest first."""
    condition = "finalised_ts IS NOT NULL" if finalised else "finalised_ts IS NULL"
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM delayed_events WHERE user_id = ? AND {condition}"
        " ORDER BY running_since DESC, delay_id LIMIT ?",
        (user_id, limit),
    )
    return [DelayedRow(*row) for row in rows]


def waiting(txn: Transaction, user_id: str) -> tuple[int, int]:
    """How many events of a user wait, and when the first of them is due (0: none)."""
    row = txn.one(
        "SELECT count(*), MIN(send_ts) FROM delayed_events"
        " WHERE user_id = ? AND finalised_ts IS NULL",
        (user_id,),
    )
    return (row[0], row[1] or 0) if row else (0, 0)


def restart(txn: Transaction, delay_id: str, now: int) -> bool:
    """Begin an event's delay anew; False if it does not wait any more."""
    restarted = txn.execute(
        "UPDATE delayed_events SET running_since = ?, send_ts = ? + delay"
        " WHERE delay_id = ? AND finalised_ts IS NULL AND claimed_until <= ?",
        (now, now, delay_id, now),
    )
    return restarted == 1


def claim(txn: Transaction, delay_id: str, now: int, until: int) -> DelayedRow | None:
    """Take an event that nobody is sending, due or not."""
    row = txn.one(
        "UPDATE delayed_events SET claimed_until = ? WHERE delay_id = ?"
        f" AND finalised_ts IS NULL AND claimed_until <= ? RETURNING {_COLUMNS}",
        (until, delay_id, now),
    )
    return DelayedRow(*row) if row else None


def claim_due(txn: Transaction, now: int, until: int, limit: int) -> list[DelayedRow]:
    """Take events that are due and that nobody is sending, the longest due first."""
    rows = txn.all(
        "WITH due AS MATERIALIZED (SELECT delay_id FROM delayed_events"
        " WHERE finalised_ts IS NULL AND send_ts <= ? AND claimed_until <= ?"
        f" ORDER BY send_ts LIMIT ?{txn.dialect.skip_locked})"
        " UPDATE delayed_events SET claimed_until = ?"
        f" WHERE delay_id IN (SELECT delay_id FROM due) RETURNING {_COLUMNS}",
        (now, now, limit, until),
    )
    found = [DelayedRow(*row) for row in rows]
    return sorted(found, key=lambda row: row.running_since + row.delay)


def next_due(txn: Transaction) -> int | None:
    """When the first event that waits is due, or was while somebody sends it; None: none waits."""
    sql = "SELECT send_ts FROM delayed_events WHERE finalised_ts IS NULL ORDER BY send_ts LIMIT 1"
    due: int | None = txn.value(sql)
    return due


def finalise(
    txn: Transaction, delay_id: str, now: int, event_id: str | None, error: str | None
) -> bool:
    """An event was sent, refused with `error`, or (neither) cancelled; False if it was before."""
    done = txn.execute(
        "UPDATE delayed_events SET finalised_ts = ?, event_id = ?, error = ?"
        " WHERE delay_id = ? AND finalised_ts IS NULL",
        (now, event_id, error, delay_id),
    )
    return done == 1


def forget_finalised(txn: Transaction, before: int) -> int:
    """Delete events that were finalised before a time."""
    return txn.execute(
        "DELETE FROM delayed_events WHERE finalised_ts IS NOT NULL AND finalised_ts < ?", (before,)
    )


def delete_all(txn: Transaction, user_id: str) -> None:
    """Delete the events of a user."""
    txn.execute("DELETE FROM delayed_events WHERE user_id = ?", (user_id,))
