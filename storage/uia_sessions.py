"""The `uia_sessions` table: user-interactive authentication in progress."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from storage.transaction import Transaction


class UiaSessionRow(NamedTuple):
    """An interactive authentication: what for, what is done, what came of it."""

    session_id: str
    operation: str
    body_hash: bytes | None
    completed: dict[str, Any]
    outcome: Any
    created_ts: int
    expires_ts: int
    details: dict[str, Any]


def insert(
    txn: Transaction,
    session_id: str,
    operation: str,
    now_ms: int,
    expires_ts: int,
    details: dict[str, Any] | None = None,
) -> UiaSessionRow:
    """Begin a session."""
    known = details or {}
    txn.execute(
        "INSERT INTO uia_sessions"
        " (session_id, operation, completed, created_ts, expires_ts, details)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (session_id, operation, "{}", now_ms, expires_ts, json.dumps(known)),
    )
    return UiaSessionRow(session_id, operation, None, {}, None, now_ms, expires_ts, known)


def get(txn: Transaction, session_id: str, now_ms: int) -> UiaSessionRow | None:
    """A session that has not expired."""
    raw = txn.one(
        "SELECT session_id, operation, body_hash, completed, outcome, created_ts, expires_ts,"
        " details FROM uia_sessions WHERE session_id = ? AND expires_ts > ?",
        (session_id, now_ms),
    )
    if raw is None:
        return None
    return UiaSessionRow(
        raw[0],
        raw[1],
        None if raw[2] is None else bytes(raw[2]),
        json.loads(raw[3]),
        None if raw[4] is None else json.loads(raw[4]),
        raw[5],
        raw[6],
        {} if raw[7] is None else json.loads(raw[7]),
    )


def set_pending(txn: Transaction, session_id: str, stage: str, auth: dict[str, Any]) -> None:
    """Keep what was handed in for a stage that is to be proved elsewhere."""
    raw = txn.one(
        f"SELECT details FROM uia_sessions WHERE session_id = ?{txn.dialect.for_update}",
        (session_id,),
    )
    if raw is None:
        return
    details = {} if raw[0] is None else json.loads(raw[0])
    details["pending"] = {**details.get("pending", {}), stage: auth}
    txn.execute(
        "UPDATE uia_sessions SET details = ? WHERE session_id = ?",
        (json.dumps(details), session_id),
    )


def complete_stage(
    txn: Transaction, session_id: str, stage: str, established: Any, body_hash: bytes | None
) -> dict[str, Any]:
    """Note that a stage is done and what it established; returns all stages done.

    `body_hash` is what the session is bound to from now on; None leaves that as it is.
    """
    # The update locks the row, so that two stages done at once are both kept.
    raw = txn.one(
        "UPDATE uia_sessions SET body_hash = COALESCE(body_hash, ?) WHERE session_id = ?"
        " RETURNING completed",
        (body_hash, session_id),
    )
    completed: dict[str, Any] = json.loads(raw[0]) if raw else {}
    completed.setdefault(stage, established)
    txn.execute(
        "UPDATE uia_sessions SET completed = ? WHERE session_id = ?",
        (json.dumps(completed), session_id),
    )
    return completed


def set_outcome(txn: Transaction, session_id: str, outcome: Any) -> None:
    """Note what came of the request."""
    txn.execute(
        "UPDATE uia_sessions SET outcome = ? WHERE session_id = ?",
        (json.dumps(outcome), session_id),
    )


def delete(txn: Transaction, session_id: str) -> bool:
    """End a session; False if it had ended."""
    return txn.execute("DELETE FROM uia_sessions WHERE session_id = ?", (session_id,)) == 1


def delete_expired(txn: Transaction, now_ms: int) -> int:
    """Remove expired sessions; returns how many."""
    return txn.execute("DELETE FROM uia_sessions WHERE expires_ts <= ?", (now_ms,))
