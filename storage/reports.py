"""What users reported to the administrators. Table `reports`."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class Report(NamedTuple):
    """A report. `kind` is event, room or user; `user_id` is who is meant, if anybody is."""

    report_id: int
    received_ts: int
    reporter: str
    kind: str
    room_id: str | None
    event_id: str | None
    user_id: str | None
    reason: str


_COLUMNS = ", ".join(Report._fields)


def add(txn: Transaction, report: Report) -> int:
    """Keep a report under a new number, which is returned."""
    number = int(
        txn.value(
            "INSERT INTO counters (name, value) VALUES ('reports', 1) ON CONFLICT (name)"
            " DO UPDATE SET value = counters.value + 1 RETURNING value"
        )
    )
    txn.execute(
        f"INSERT INTO reports ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        report._replace(report_id=number),
    )
    return number


def after(txn: Transaction, report_id: int, limit: int) -> list[Report]:
    """Reports behind a number, in their order."""
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM reports WHERE report_id > ? ORDER BY report_id LIMIT ?",
        (report_id, limit),
    )
    return [Report(*raw) for raw in rows]
