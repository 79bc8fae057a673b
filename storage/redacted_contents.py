"""What redacted events were before (MSC2815). Table `redacted_contents`."""

from __future__ import annotations

from storage.transaction import Transaction


def keep(txn: Transaction, event_nid: int, sender: str, json: str) -> None:
    """Keep the federation form of an event that is being redacted.

    Its time begins when `delete_old` first sees it: what the redaction says may be wrong.
    """
    txn.execute(
        "INSERT INTO redacted_contents (event_nid, sender, json, redacted_ts) VALUES (?, ?, ?, 0)"
        " ON CONFLICT (event_nid) DO NOTHING",
        (event_nid, sender, json),
    )


def get(txn: Transaction, event_nid: int) -> str | None:
    """What an event was before it was redacted."""
    found: str | None = txn.value(
        "SELECT json FROM redacted_contents WHERE event_nid = ?", (event_nid,)
    )
    return found


def delete_old(txn: Transaction, now_ms: int, kept_ms: int) -> int:
    """Forget what was kept for as long as this; how many events."""
    txn.execute("UPDATE redacted_contents SET redacted_ts = ? WHERE redacted_ts = 0", (now_ms,))
    return txn.execute("DELETE FROM redacted_contents WHERE redacted_ts <= ?", (now_ms - kept_ms,))


def erase(txn: Transaction, user_id: str) -> None:
    """Forget what a user sent."""
    txn.execute("DELETE FROM redacted_contents WHERE sender = ?", (user_id,))
