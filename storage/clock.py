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
