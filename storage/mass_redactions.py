"""Redactions of all that a user sent: what was asked for, how far it is. Table
`mass_redactions`."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from homeserver.core.types import JsonObject
from storage import events
from storage.transaction import Transaction

SCHEDULED, ACTIVE, COMPLETE, FAILED = "scheduled", "active", "complete", "failed"
KEPT_MS = 7 * 24 * 3600 * 1000
"""For how long one can ask what became of it."""


class MassRedaction(NamedTuple):
    """A request of an administrator; times in milliseconds, `failures` by event ID."""

    redact_id: str
    user_id: str
    asked_by: str
    request: JsonObject
    progress: JsonObject
    status: str
    changed_ts: int
    failures: dict[str, str]
    error: str | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done."""
        return self.status in (COMPLETE, FAILED)


_COLUMNS = ", ".join(MassRedaction._fields)
_JSON = [MassRedaction._fields.index(name) for name in ("request", "progress", "failures")]


def add(txn: Transaction, row: MassRedaction) -> None:
    """Note a new one. Those that are over for long are forgotten."""
    txn.execute(
        "DELETE FROM mass_redactions WHERE changed_ts < ? AND status IN (?, ?)",
        (row.changed_ts - KEPT_MS, COMPLETE, FAILED),
    )
    txn.execute(
        f"INSERT INTO mass_redactions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _raw(row)
    )


def get(txn: Transaction, redact_id: str) -> MassRedaction | None:
    """The one of this ID."""
    raw = txn.one(f"SELECT {_COLUMNS} FROM mass_redactions WHERE redact_id = ?", (redact_id,))
    return _row(raw) if raw else None


def newest(txn: Transaction, limit: int) -> list[MassRedaction]:
    """The ones that changed last."""
    sql = f"SELECT {_COLUMNS} FROM mass_redactions ORDER BY changed_ts DESC, redact_id LIMIT ?"
    return [_row(raw) for raw in txn.all(sql, (limit,))]


def update(txn: Transaction, row: MassRedaction) -> None:
    """Write how far it is."""
    *_, progress, status, changed_ts, failures, error = _raw(row)
    txn.execute(
        "UPDATE mass_redactions SET progress = ?, status = ?, changed_ts = ?, failures = ?,"
        " error = ? WHERE redact_id = ?",
        (progress, status, changed_ts, failures, error, row.redact_id),
    )


class Sent(NamedTuple):
    """Some events of a room, looked through from the newest on.

    `event_ids`: those that can be redacted, the newest first, with their positions; `upto`: the
    position down to which was looked, None at the end of the room.
    """

    event_ids: list[tuple[str, int]]
    upto: int | None


def sent_by(
    txn: Transaction,
    room_nid: int,
    sender: str,
    before: int | None,
    times: tuple[int | None, int | None],
    look_at: int,
) -> Sent:
    """What a user sent among `look_at` events of a room before a position.

    `times`: not earlier and not later than these milliseconds. Messages and the user's own
    membership; other state stays, which the room needs.
    """
    # Not by an index on senders, which every event would pay for.
    where, args = ("", []) if before is None else (" AND pos < ?", [before])
    part = (
        "SELECT event_id, pos, sender, type, state_key, status, redacted_by, origin_server_ts"
        f" FROM events WHERE room_nid = ? AND pos IS NOT NULL{where} ORDER BY pos DESC LIMIT ?"
    )
    part_args: list[Any] = [room_nid, *args, look_at]
    found = txn.one(f"SELECT count(*), MIN(pos) FROM ({part}) looked_at", part_args)
    assert found is not None
    conditions = ""
    more: list[Any] = []
    for comparison, ts in zip((">=", "<="), times, strict=True):
        if ts is not None:
            conditions += f" AND origin_server_ts {comparison} ?"
            more.append(ts)
    rows = txn.all(
        f"SELECT event_id, pos FROM ({part}) looked_at WHERE sender = ? AND status = ?"
        " AND redacted_by IS NULL AND type <> 'm.room.redaction'"
        f" AND (state_key IS NULL OR (type = 'm.room.member' AND state_key = ?)){conditions}"
        " ORDER BY pos DESC",
        [*part_args, sender, events.ACCEPTED, sender, *more],
    )
    return Sent([(row[0], row[1]) for row in rows], found[1] if found[0] == look_at else None)


def _row(raw: tuple[Any, ...]) -> MassRedaction:
    return MassRedaction._make(
        json.loads(value) if index in _JSON else value for index, value in enumerate(raw)
    )


def _raw(row: MassRedaction) -> tuple[Any, ...]:
    return tuple(json.dumps(value) if index in _JSON else value for index, value in enumerate(row))
