"""Reads so small that a thread would cost more than they do.

A `PointQuery` is one statement that finds a few rows by an index. The module that owns the table
declares it, with `point_query`. It runs in two ways:

- `await db.query(QUERY, …)`: by itself, without a thread where that can be done. One statement is
  one snapshot, which has every commit that this process was told of.
- `QUERY(txn, …)`: as part of a transaction, like any function.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from storage.dialect import Dialect, array_text
from storage.transaction import Row, Transaction

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_ANY = "= ANY(?)"
_LISTED = "IN (SELECT value FROM json_each(?))"


class PointQuery(Generic[P, T_co]):
    """See the module. Made by `point_query`.

    Attributes: `postgres` and `sqlite`, the statement for each; `most`, how many rows it is meant
    to find: SQLite runs what finds more in a thread.
    """

    __name__: str
    __qualname__: str

    def __init__(
        self,
        sql: str,
        arguments: Callable[P, Sequence[Any]],
        result: Callable[[list[Row]], T_co],
        most: int,
    ) -> None:
        functools.update_wrapper(self, arguments)
        self.postgres = sql
        self.sqlite = sql.replace(_ANY, _LISTED)
        self.arguments = arguments
        self.result = result
        self.most = most
        self.has_lists = _ANY in sql

    def __call__(self, txn: Transaction, /, *args: P.args, **kwargs: P.kwargs) -> T_co:
        given = self.given(txn.dialect, *args, **kwargs)
        sql = self.postgres if txn.dialect.name == "postgres" else self.sqlite
        return self.result(txn.all(sql, given))

    def given(self, dialect: Dialect, /, *args: P.args, **kwargs: P.kwargs) -> Sequence[Any]:
        """The arguments of the statement as the database takes them."""
        given = self.arguments(*args, **kwargs)
        if not self.has_lists:
            return given
        as_list = array_text if dialect.name == "postgres" else _json_list
        return [as_list(_storable(arg)) if isinstance(arg, list) else arg for arg in given]


def point_query(
    sql: str, result: Callable[[list[Row]], T], *, most: int = 1
) -> Callable[[Callable[P, Sequence[Any]]], PointQuery[P, T]]:
    """Make a query of a function that puts the arguments of its statement together.

    Parameters: `sql` has `?` for arguments, and `= ANY(?)` where an argument is a list (of texts or
    numbers); `result` makes the answer of the rows; `most`: see `PointQuery`.
    """
    return lambda arguments: PointQuery(sql, arguments, result, most)


def _storable(values: Iterable[Any]) -> list[Any]:
    # No stored text holds U+0000, so that such a value equals none of it.
    return [value for value in values if type(value) is not str or "\x00" not in value]


def _json_list(values: list[Any]) -> str:
    return json.dumps(values, ensure_ascii=False)
