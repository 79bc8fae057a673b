"""Tables `threepid_validations` and `threepid_validation_tokens`: proofs of owning an address."""

from __future__ import annotations

from typing import Any, NamedTuple

from storage.transaction import Transaction

REGISTER = "register"
PASSWORD = "password"
ADD = "add"


class ValidationRow(NamedTuple):
    """A validation session."""

    sid: str
    purpose: str
    medium: str
    address: str
    client_secret: str
    send_attempt: int
    next_link: str | None
    failures: int
    created_ts: int
    expires_ts: int
    validated_ts: int | None


_COLUMNS = (
    "sid, purpose, medium, address, client_secret, send_attempt, next_link, failures, created_ts,"
    " expires_ts, validated_ts"
)


def _row(raw: tuple[Any, ...] | None) -> ValidationRow | None:
    return ValidationRow(*raw) if raw else None


def begin(txn: Transaction, row: ValidationRow) -> ValidationRow:
    """Begin a session, or return the one of the same purpose, address and secret, locked.

    The caller sees by `sid` which it is. One that has expired is begun anew.
    """
    txn.execute(
        "DELETE FROM threepid_validation_tokens WHERE sid IN (SELECT sid FROM threepid_validations"
        " WHERE purpose = ? AND medium = ? AND address = ? AND client_secret = ?"
        " AND expires_ts <= ?)",
        (row.purpose, row.medium, row.address, row.client_secret, row.created_ts),
    )
    txn.execute(
        "DELETE FROM threepid_validations WHERE purpose = ? AND medium = ? AND address = ?"
        " AND client_secret = ? AND expires_ts <= ?",
        (row.purpose, row.medium, row.address, row.client_secret, row.created_ts),
    )
    raw = txn.one(
        f"INSERT INTO threepid_validations ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        # The update of nothing locks the row and has it returned.
        " ON CONFLICT (purpose, medium, address, client_secret)"
        " DO UPDATE SET medium = excluded.medium"
        f" RETURNING {_COLUMNS}",
        row,
    )
    assert raw is not None
    return ValidationRow(*raw)


def find(
    txn: Transaction, purpose: str, medium: str, address: str, client_secret: str, now_ms: int
) -> ValidationRow | None:
    """The session of a purpose, address and secret that has not expired."""
    return _row(
        txn.one(
            f"SELECT {_COLUMNS} FROM threepid_validations WHERE purpose = ? AND medium = ?"
            " AND address = ? AND client_secret = ? AND expires_ts > ?",
            (purpose, medium, address, client_secret, now_ms),
        )
    )


def sent(
    txn: Transaction, sid: str, token_hash: bytes, send_attempt: int, next_link: str | None
) -> None:
    """Note a token that is sent with this attempt; earlier ones stay good."""
    txn.execute(
        "INSERT INTO threepid_validation_tokens (sid, token_hash) VALUES (?, ?)", (sid, token_hash)
    )
    txn.execute(
        "UPDATE threepid_validations SET send_attempt = ?, next_link = ? WHERE sid = ?",
        (send_attempt, next_link, sid),
    )


def get(txn: Transaction, sid: str, client_secret: str) -> ValidationRow | None:
    """A session, also when expired; None if there is none, or the secret is another's."""
    raw = txn.one(f"SELECT {_COLUMNS} FROM threepid_validations WHERE sid = ?", (sid,))
    row = _row(raw)
    return row if row is not None and row.client_secret == client_secret else None


def has_token(txn: Transaction, sid: str, token_hash: bytes) -> bool:
    """Whether this token was sent for the session."""
    sql = "SELECT 1 FROM threepid_validation_tokens WHERE sid = ? AND token_hash = ?"
    return txn.one(sql, (sid, token_hash)) is not None


def failed(txn: Transaction, sid: str) -> None:
    """Count a wrong token."""
    txn.execute("UPDATE threepid_validations SET failures = failures + 1 WHERE sid = ?", (sid,))


def validated(txn: Transaction, sid: str, now_ms: int, expires_ts: int) -> None:
    """Note that the address is the client's, which counts until `expires_ts`."""
    txn.execute(
        "UPDATE threepid_validations SET validated_ts = COALESCE(validated_ts, ?), expires_ts = ?"
        " WHERE sid = ?",
        (now_ms, expires_ts, sid),
    )


def delete(txn: Transaction, sid: str) -> bool:
    """Use a session up; False if there is none any more."""
    txn.execute("DELETE FROM threepid_validation_tokens WHERE sid = ?", (sid,))
    return txn.execute("DELETE FROM threepid_validations WHERE sid = ?", (sid,)) == 1


def delete_of_address(txn: Transaction, medium: str, address: str, purpose: str) -> None:
    """End all sessions of a purpose for an address."""
    where = "medium = ? AND address = ? AND purpose = ?"
    txn.execute(
        "DELETE FROM threepid_validation_tokens WHERE sid IN"
        f" (SELECT sid FROM threepid_validations WHERE {where})",
        (medium, address, purpose),
    )
    txn.execute(f"DELETE FROM threepid_validations WHERE {where}", (medium, address, purpose))


def delete_expired(txn: Transaction, now_ms: int) -> int:
    """Remove expired sessions; returns how many."""
    txn.execute(
        "DELETE FROM threepid_validation_tokens WHERE sid IN"
        " (SELECT sid FROM threepid_validations WHERE expires_ts <= ?)",
        (now_ms,),
    )
    return txn.execute("DELETE FROM threepid_validations WHERE expires_ts <= ?", (now_ms,))
