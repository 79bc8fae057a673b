"""The one clock that numbers everything clients are told about.

Table `clock`, one row. The row lock taken by `advance` is held until the transaction ends, so
positions become visible in their order: whoever sees position n sees everything up to n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.transaction import Transaction


def position(txn: Transaction) -> int:
    """The last committed position that this transaction sees."""
    return int(txn.value("SELECT pos FROM clock"))


def advance(txn: Transaction, n: int) -> int:
    """Take `n` positions; the last of them. Use `Transaction.next_pos`, which remembers them."""
    if n < 1:
        raise ValueError("At least one position must be taken.")
    return int(txn.value("UPDATE clock SET pos = pos + ? RETURNING pos", (n,)))


def advance_numbered(txn: Transaction, n: int) -> tuple[int, str]:
    """`advance` for PostgreSQL, and the transaction's number there."""
    if n < 1:
        raise ValueError("At least one position must be taken.")
    sql = "UPDATE clock SET pos = pos + ? RETURNING pos, pg_current_xact_id()::text"
    row = txn.one(sql, (n,))
    assert row is not None, "the clock has one row"
    return int(row[0]), str(row[1])
