"""Files that other servers did not give. Table `media_failures`."""

from __future__ import annotations

from typing import NamedTuple

from storage.transaction import Transaction


class MediaFailure(NamedTuple):
    """What is answered instead of the file until `until_ts`; how often in a row it failed."""

    status: int
    errcode: str
    attempts: int
    until_ts: int


def get(txn: Transaction, server_name: str, media_id: str) -> MediaFailure | None:
    """The last failure of a file, also when its time is over."""
    row = txn.one(
        "SELECT status, errcode, attempts, until_ts FROM media_failures"
        " WHERE server_name = ? AND media_id = ?",
        (server_name, media_id),
    )
    return None if row is None else MediaFailure(*row)


def put(txn: Transaction, server_name: str, media_id: str, failure: MediaFailure) -> None:
    """Note a failure."""
    txn.execute(
        "INSERT INTO media_failures (server_name, media_id, status, errcode, attempts, until_ts)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (server_name, media_id) DO UPDATE SET"
        " status = excluded.status, errcode = excluded.errcode, attempts = excluded.attempts,"
        " until_ts = excluded.until_ts",
        (server_name, media_id, *failure),
    )


def remove(txn: Transaction, server_name: str, media_id: str) -> None:
    """It was given after all."""
    txn.execute(
        "DELETE FROM media_failures WHERE server_name = ? AND media_id = ?",
        (server_name, media_id),
    )


def prune(txn: Transaction, before: int) -> None:
    """Forget what is long over."""
    txn.execute("DELETE FROM media_failures WHERE until_ts < ?", (before,))
