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
    score: int | None = None


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
        f"INSERT INTO reports ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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


class Wanted(NamedTuple):
    """Which reports to show: of a kind, and those that have what is not None."""

    kind: str
    reporter: str | None = None
    room_id: str | None = None
    user_id: str | None = None


def page(
    txn: Transaction, wanted: Wanted, start: int, limit: int, *, newest_first: bool
) -> tuple[list[Report], int]:
    """Some of the wanted reports in the order of their numbers, and how many there are in all."""
    given = [(name, value) for name, value in wanted._asdict().items() if value is not None]
    where = " AND ".join(f"{name} = ?" for name, _ in given)
    args = [value for _, value in given]
    order = "DESC" if newest_first else "ASC"
    rows = txn.all(
        f"SELECT {_COLUMNS} FROM reports WHERE {where} ORDER BY report_id {order} LIMIT ? OFFSET ?",
        [*args, limit, start],
    )
    total = int(txn.value(f"SELECT count(*) FROM reports WHERE {where}", args))
    return [Report(*raw) for raw in rows], total


def get(txn: Transaction, kind: str, report_id: int) -> Report | None:
    """One report."""
    sql = f"SELECT {_COLUMNS} FROM reports WHERE kind = ? AND report_id = ?"
    raw = txn.one(sql, (kind, report_id))
    return Report(*raw) if raw else None


def delete(txn: Transaction, kind: str, report_id: int) -> bool:
    """Remove a report; False if there is none."""
    sql = "DELETE FROM reports WHERE kind = ? AND report_id = ?"
    return txn.execute(sql, (kind, report_id)) == 1
