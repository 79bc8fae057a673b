"""The `sso_sessions` table: people on their way to a single sign-on provider, and back."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from storage.transaction import Transaction

SENT = "sent"
NAMING = "naming"
CONFIRMING = "confirming"


class SsoSessionRow(NamedTuple):
    """Somebody's way; `details` are those of the stage."""

    browser_hash: bytes
    stage: str
    provider: str
    details: dict[str, Any]
    expires_ts: int


def insert(
    txn: Transaction, session_hash: bytes, row: SsoSessionRow, now_ms: int, most: int
) -> None:
    """Add a session. Where there are `most` already, the oldest makes room."""
    excess = int(txn.value("SELECT COUNT(*) FROM sso_sessions") or 0) - most + 1
    if excess > 0:
        txn.execute(
            "DELETE FROM sso_sessions WHERE session_hash IN"
            " (SELECT session_hash FROM sso_sessions ORDER BY created_ts LIMIT ?)",
            (excess,),
        )
    txn.execute(
        "INSERT INTO sso_sessions (session_hash, browser_hash, stage, provider, details,"
        " created_ts, expires_ts) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            session_hash,
            row.browser_hash,
            row.stage,
            row.provider,
            json.dumps(row.details),
            now_ms,
            row.expires_ts,
        ),
    )


_COLUMNS = "browser_hash, stage, provider, details, expires_ts"
_WHERE = "session_hash = ? AND browser_hash = ? AND stage = ? AND expires_ts > ?"


def get(
    txn: Transaction, session_hash: bytes, browser_hash: bytes, stage: str, now_ms: int
) -> SsoSessionRow | None:
    """The session of this browser, if it is at this stage and has not expired."""
    raw = txn.one(
        f"SELECT {_COLUMNS} FROM sso_sessions WHERE {_WHERE}",
        (session_hash, browser_hash, stage, now_ms),
    )
    return _row(raw)


def take(
    txn: Transaction, session_hash: bytes, browser_hash: bytes, stage: str, now_ms: int
) -> SsoSessionRow | None:
    """As `get`; the session is used up."""
    raw = txn.one(
        f"DELETE FROM sso_sessions WHERE {_WHERE} RETURNING {_COLUMNS}",
        (session_hash, browser_hash, stage, now_ms),
    )
    return _row(raw)


def _row(raw: tuple[Any, ...] | None) -> SsoSessionRow | None:
    if raw is None:
        return None
    return SsoSessionRow(bytes(raw[0]), raw[1], raw[2], json.loads(raw[3]), raw[4])


def delete_expired(txn: Transaction, now_ms: int) -> int:
    """Remove expired sessions; returns how many."""
    return txn.execute("DELETE FROM sso_sessions WHERE expires_ts <= ?", (now_ms,))
