"""Writing by one statement, which is a transaction of its own.

PostgreSQL takes it in one round trip: no BEGIN, no COMMIT, and no thread where the reactor itself
watches a connection that writes (`storage.single_postgres`). What cannot be done so for whatever
reason is done by a thread instead, unless it may have been done already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from storage.transaction import Effects, Row, Transaction

T = TypeVar("T", covariant=True)


class Single(Protocol[T]):
    """A statement that returns one row and writes."""

    @property
    def postgres(self) -> str:
        """The statement, with `?` for arguments; it is prepared."""

    def arguments(self) -> Sequence[str]:
        """Its arguments. Raises what the caller shall get."""

    def result(self, effects: Effects, row: Row) -> T:
        """What a row comes to; positions that were taken and hints are noted in the effects."""

    def in_steps(self, txn: Transaction) -> T:
        """The same in a transaction of SQLite's, where statements cost little."""


def in_thread(txn: Transaction, single: Single[T]) -> T:
    """Run it as a transaction's only work."""
    if txn.dialect.name != "postgres":
        return single.in_steps(txn)
    row = txn.one(single.postgres, single.arguments())
    assert row is not None, "the statement returns one row"
    return single.result(txn, row)
