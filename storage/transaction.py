"""What a function that reads or writes the database is given.

Functions take a `Transaction` first and are composed freely within one transaction. They run in
a thread, may run again when the database asks for a retry, and so have no effects of their own:
those are registered with `after_commit`, `notify` and `invalidate` and happen on the reactor
thread once the transaction is committed, in the order invalidations, callbacks, hints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

from storage import clock
from storage.dialect import Dialect

Row = tuple[Any, ...]


class Effects:
    """What follows from a commit, gathered until then."""

    __slots__ = ("callbacks", "channels", "first_pos", "invalidations", "last_pos")

    def __init__(self) -> None:
        self.first_pos = 0
        self.last_pos = 0
        self.callbacks: list[Callable[[], object]] = []
        self.channels: dict[str, None] = {}
        self.invalidations: dict[tuple[str, str], None] = {}

    def took_positions(self, first: int, last: int) -> None:
        """Note that a statement has taken these positions from the clock."""
        if not self.first_pos:
            self.first_pos = first
        self.last_pos = last

    def after_commit(self, fn: Callable[[], object]) -> None:
        """Call `fn` on the reactor thread when the transaction is committed."""
        self.callbacks.append(fn)

    def notify(self, *channels: str) -> None:
        """Publish a hint on these channels when the transaction is committed.

        It carries the last position of the transaction, reaches this process at once and the
        others through the bus. A hint may be lost; what it speaks of is in the database.
        """
        for channel in channels:
            self.channels[channel] = None

    def invalidate(self, cache: str, key: str) -> None:
        """Tell every process that `key` of its cache `cache` is out of date.

        Kept in the database until every process had time to read it. Takes a position at the end
        of the transaction when it has none.
        """
        self.invalidations[(cache, key)] = None


class Transaction(Effects, ABC):
    """One open transaction, used in one thread.

    SQL is written once for both databases (see `storage.dialect`). Every method may raise
    `IntegrityViolation`, `InvalidText`, and `Retry`, which the caller lets pass.
    """

    __slots__ = ("dialect", "is_passed", "statements", "uncommitted")

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self.dialect = dialect
        self.statements = 0
        self.uncommitted: set[int] = set()
        """Numbers of state keys that it made: not to be remembered before it is committed."""
        self.is_passed = False
        """See `next_pos`."""

    @abstractmethod
    def execute(self, sql: str, args: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows that it changed."""

    def later(self, sql: str, args: Sequence[Any] = ()) -> None:
        """Run a statement without a result before the next one or COMMIT, as the database likes.

        What it raises may come from there.
        """
        self.execute(sql, args)

    @abstractmethod
    def one(self, sql: str, args: Sequence[Any] = ()) -> Row | None:
        """The first row, or None."""

    @abstractmethod
    def all(self, sql: str, args: Sequence[Any] = ()) -> list[Row]:
        """All rows."""

    @abstractmethod
    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row of arguments; an INSERT … VALUES as few statements.

        On PostgreSQL rows of one INSERT … ON CONFLICT DO UPDATE must have distinct keys.
        """

    def value(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None."""
        row = self.one(sql, args)
        return None if row is None else row[0]

    def any_of(self, column: str, values: Collection[Any]) -> tuple[str, list[Any]]:
        """A condition for "column is one of values" and its arguments, to splice into SQL."""
        return self.dialect.any_of(column, values)

    def next_pos(self, n: int = 1, *, passing: str | None = None) -> int:
        """Advance the clock by `n` and return the last of the new positions.

        To be called last, just before the rows that carry the positions are inserted: it locks
        the clock until the end of the transaction, which makes commits happen in this order.

        Parameters: `passing`, a reader of the log that is to be moved over them, if it can be;
        `is_passed` has whether it was.
        """
        last = clock.advance(self, n)
        self.took_positions(last - n + 1, last)
        self.is_passed = passing is not None and clock.pass_over(self, passing, n)
        return last


class StatementNeeded(Exception):
    """A function asked the database though it was to find that there is nothing to ask for."""


class NoStatements(Transaction):
    """In place of a transaction, for functions that need none at times; else StatementNeeded."""

    __slots__ = ()

    def execute(self, sql: str, args: Sequence[Any] = ()) -> NoReturn:
        raise StatementNeeded(sql)

    def one(self, sql: str, args: Sequence[Any] = ()) -> NoReturn:
        raise StatementNeeded(sql)

    def all(self, sql: str, args: Sequence[Any] = ()) -> NoReturn:
        raise StatementNeeded(sql)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> NoReturn:
        raise StatementNeeded(sql)
