"""What can go wrong between the server and its database."""

from __future__ import annotations

from typing import Any


class StorageError(Exception):
    """Base of everything that `storage` raises about the database itself."""


class DatabaseUnavailable(StorageError):
    """The database cannot be reached, or stayed away for longer than callers are made to wait."""


class DatabaseFull(DatabaseUnavailable):
    """The database has no room to write; nothing was written. Waiting for it would not help."""


class DatabaseClosed(StorageError):
    """The database was closed by this server."""


class UnusableDatabase(StorageError):
    """The database answers, but cannot hold this server: version, encoding, permissions."""


class DatabaseTooNew(UnusableDatabase):
    """The database was migrated by a newer release; migrations only go forward."""


class IntegrityViolation(StorageError):
    """A constraint refused a row. On PostgreSQL the transaction cannot go on after it."""


class InvalidText(StorageError, ValueError):
    """A text argument holds U+0000 or a lone surrogate, which PostgreSQL cannot store."""


class TransactionTooSlow(StorageError):
    """A statement ran past the statement time-out and was cancelled by the database."""


class Retry(StorageError):
    """The transaction was rolled back for a reason that a second try may not meet."""


class Conflict(Retry):
    """Serialisation failure, deadlock, or a database locked by another process."""


class ConnectionLost(Retry):
    """The connection broke before COMMIT was sent: nothing of the transaction remains."""


class CommitUnknown(StorageError):
    """The connection broke while COMMIT was on its way: the transaction may be there or not.

    The caller must look before it writes again. `transaction_id` is PostgreSQL's, or None.
    """

    def __init__(self, message: str, transaction_id: str | None = None) -> None:
        super().__init__(message)
        self.transaction_id = transaction_id


def log_failure(log: Any, event: str, error: BaseException | None, **fields: object) -> None:
    """Log that work in the background failed: in one line if the database is away, which is said
    elsewhere and is no fault of the work, else with a traceback.

    Parameters: `log`, a structlog logger.
    """
    if isinstance(error, DatabaseUnavailable):
        log.warning(event, reason=str(error), **fields)
    else:
        log.error(event, exc_info=error, **fields)
