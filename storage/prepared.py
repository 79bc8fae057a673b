"""Statements that PostgreSQL parses and plans once for each connection, not each time.

For the small statements that a request is made of, parsing and planning costs more than running.
So a statement that a session has run a few times is prepared (PostgreSQL, "PREPARE") when the
session is between two transactions, where a failure harms nothing, and from then on executed by
name. Nothing else changes: what cannot be prepared, and arguments of other types than PostgreSQL
inferred, go the usual way.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg2

from storage.dialect import to_format_style

PREPARE_AT = 10
"""How many times a session runs a statement as it is. PostgreSQL then makes five plans for the
values given before it may settle on one for all."""
MAX_PREPARED = 250
"""Statements of one session; each takes some ten kilobytes of the database's memory."""
MAX_COUNTED = 2000
FIRST_PLANS = 5.0
LAST_PLANS = 600.0
"""Seconds that plans are kept, at first and in the end: those made for small tables are bad for
tables that have grown, and PostgreSQL notices only when it analyses them."""

_PREPARABLE = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)

_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "bigint": (int, _NONE),
    "text": (str, _NONE),
    "bytea": (bytes, _NONE),
    "boolean": (bool, _NONE),
    "integer": (int, _NONE),
    "smallint": (int, _NONE),
    "double precision": (float, int, _NONE),
    # Also as text, see `storage.dialect.array_text`.
    "bigint[]": (list, str),
    "text[]": (list, str),
    "bytea[]": (list, str),
}
_NARROW = {"smallint": 1 << 15, "integer": 1 << 31}


class _Prepared(NamedTuple):
    name: str
    call: str
    """The EXECUTE statement."""
    types: tuple[tuple[type, ...], ...]
    """Which types each argument may have."""
    narrow: tuple[tuple[int, int], ...]
    """Arguments that must be smaller than a number, which a comparison would not ask."""

    def takes(self, args: Sequence[Any]) -> bool:
        if len(args) != len(self.types):
            return False
        for arg, types in zip(args, self.types, strict=True):
            kind = type(arg)
            if kind not in types and not (str in types and isinstance(arg, str)):
                return False
        return all(args[i] is None or -bound <= args[i] < bound for i, bound in self.narrow)


class Prepared:
    """The prepared statements of one session. Used by one thread at a time."""

    __slots__ = ("_counts", "_cursor", "_found", "_next_plans", "_number", "_wait", "_wanted")

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._counts: dict[str, int] = {}
        self._found: OrderedDict[str, _Prepared | None] = OrderedDict()
        """By text; None: cannot be."""
        self._wanted: list[str] = []
        self._number = 0
        self._wait = FIRST_PLANS
        self._next_plans = time.monotonic() + FIRST_PLANS

    def statement(self, sql: str, args: Sequence[Any]) -> str:
        """What to have psycopg2 execute with the arguments, for a statement with `?`."""
        prepared = self._found.get(sql)
        if prepared is not None:
            if prepared.takes(args):
                return prepared.call
        elif sql not in self._found:
            self._count(sql)
        return to_format_style(sql)

    def _count(self, sql: str) -> None:
        count = self._counts.get(sql, 0) + 1
        if count >= PREPARE_AT:
            self._counts.pop(sql, None)
            if _PREPARABLE.match(sql) is not None:
                self._wanted.append(sql)
            return
        if len(self._counts) >= MAX_COUNTED:
            self._counts.clear()
        self._counts[sql] = count

    def between(self) -> None:
        """The session is outside of any transaction: prepare what has come up.

        Raises psycopg2.Error when the connection is of no more use.
        """
        if self._wanted:
            wanted, self._wanted = self._wanted, []
            for sql in dict.fromkeys(wanted):
                self._prepare(sql)
        now = time.monotonic()
        if now >= self._next_plans:
            self._wait = min(self._wait * 2, LAST_PLANS)
            self._next_plans = now + self._wait
            if self._found:
                self._cursor.execute("DISCARD PLANS")

    def _prepare(self, sql: str) -> None:
        while len(self._found) >= MAX_PREPARED:
            _, oldest = self._found.popitem(last=False)
            if oldest is not None:
                self._cursor.execute(f"DEALLOCATE {oldest.name}")
        self._number += 1
        name = f"hearth_{self._number}"
        try:
            self._cursor.execute(f"PREPARE {name} AS {numbered(sql)}")
        except psycopg2.Error:
            if self._cursor.connection.closed:
                raise
            self._found[sql] = None
            return
        self._cursor.execute(
            "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = %s", (name,)
        )
        (types,) = self._cursor.fetchone()
        if all(kind in _TYPES for kind in types):
            marks = ", ".join(["%s"] * len(types))
            narrow = [(i, _NARROW[kind]) for i, kind in enumerate(types) if kind in _NARROW]
            allowed = tuple(_TYPES[kind] for kind in types)
            call = f"EXECUTE {name} ({marks})" if types else f"EXECUTE {name}"
            self._found[sql] = _Prepared(name, call, allowed, tuple(narrow))
        else:
            self._cursor.execute(f"DEALLOCATE {name}")
            self._found[sql] = None


def numbered(sql: str) -> str:
    """`?` to `$1`, `$2` and so on."""
    parts = sql.split("?")
    return "".join([f"{part}${i}" for i, part in enumerate(parts[:-1], 1)] + parts[-1:])
