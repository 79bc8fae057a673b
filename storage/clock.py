"""The one clock that numbers everything clients are told about, and readers of its log.

Table `clock`, one row. The row lock taken by `advance` is held until the transaction ends, so
positions become visible in their order: whoever sees position n sees everything up to n.

Table `log_readers`: up to which position each reader of the log has read (see
`storage.log_readers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


NEAR = 100
"""Positions without events that a reader is moved over, at most, before those that are taken."""

_MOVED = (
    "UPDATE log_readers SET pos = (SELECT pos FROM clock) WHERE name IN (SELECT r.name"
    " FROM log_readers r CROSS JOIN clock c WHERE r.name = ? AND r.pos BETWEEN c.pos - ? AND"
    " c.pos - ? AND NOT EXISTS (SELECT 1 FROM events e WHERE e.pos > r.pos AND e.pos <= c.pos - ?)"
)


def pass_over(txn: Transaction, name: str, n: int) -> bool:
    """Move a reader over the `n` positions that a transaction has taken last, as it looks after
    their events itself; whether it was.

    It is not, at once, where it has not read all events before them, or is just being moved: then
    they are left to it.
    """
    # As the clock is taken, all events before are there to be seen. Many more positions than that
    # have other things: of those that are near it is looked whether they have events.
    return txn.execute(f"{_MOVED}{txn.dialect.skip_locked})", (name, n + NEAR, n, n)) == 1


class Taken(NamedTuple):
    """Positions that were taken: the last of them, the transaction's number in PostgreSQL, and
    whether the reader was moved over them."""

    last: int
    number: str
    is_passed: bool


def advance_numbered(txn: Transaction, n: int, passing: str | None = None) -> Taken:
    """`advance` for PostgreSQL; `pass_over` with it, if a reader's name is given."""
    if n < 1:
        raise ValueError("At least one position must be taken.")
    if passing is None:
        sql = "UPDATE clock SET pos = pos + ? RETURNING pos, pg_current_xact_id()::text, FALSE"
        row = txn.one(sql, (n,))
    else:
        # What is sent together sees the clock as it is then.
        txn.later("UPDATE clock SET pos = pos + ?", (n,))
        row = txn.one(
            f"WITH passed AS ({_MOVED} FOR UPDATE OF r SKIP LOCKED) RETURNING 1)"
            " SELECT pos, pg_current_xact_id()::text, EXISTS (SELECT 1 FROM passed) FROM clock",
            (passing, n + NEAR, n, n),
        )
    assert row is not None, "the clock has one row"
    return Taken(*row)
