"""The differences between SQLite and PostgreSQL, in one place.

SQL is written once, with `?` for arguments and no literal `?` or `%`. Schema files use BIGINT,
INTEGER, SMALLINT, TEXT, BLOB and BOOLEAN; `Dialect.schema` rewrites a statement for its database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

from storage.errors import InvalidText

_STRING = re.compile(r"('(?:[^']|'')*')")
_DEFINES_COLUMNS = re.compile(r"\s*(CREATE\s+TABLE|ALTER\s+TABLE)\b", re.IGNORECASE)
_FIRST_VALUES = re.compile(r"\bVALUES\s*(\([^()]*\))", re.IGNORECASE)
_ONLY = re.compile(r"^\s*--\s*only:\s*(\w+)\s*$", re.MULTILINE)
_MARK = re.compile(r"@only (\w+)@")
_COMMENT = re.compile(r"^\s*--.*$|\s--\s.*$", re.MULTILINE)

# Up to this many values a list is spelled out; above, SQLite gets one JSON argument, so that the
# statement cache is not filled with variants and the limit on arguments is never met.
_SPELLED_OUT = 32

_AS_TEXT = {str, int}
"""Types of which `array_text` makes arrays. (U+0000 is found by `check_text` in it, too.)"""


@lru_cache(maxsize=4096)
def to_format_style(sql: str) -> str:
    """`?` to `%s`, for psycopg2."""
    return sql.replace("?", "%s")


@lru_cache(maxsize=1024)
def split_values(sql: str) -> tuple[str, str] | None:
    """Split `INSERT … VALUES (?, ?) …` for `psycopg2.extras.execute_values`.

    Returns the statement with `VALUES %s` and the template of one row, or None when the
    statement has no VALUES or takes arguments anywhere else.
    """
    match = _FIRST_VALUES.search(sql)
    if match is None:
        return None
    rest = sql[: match.start(1)] + "%s" + sql[match.end(1) :]
    if "?" in rest:
        return None
    return rest, to_format_style(match.group(1))


def check_text(args: Collection[Any]) -> None:
    """Refuse U+0000, which PostgreSQL cannot store, on both databases. Raises InvalidText."""
    for arg in args:
        if type(arg) is str and "\x00" in arg:
            raise InvalidText("Text holds U+0000.")


def array_text(values: Iterable[Any]) -> str:
    """Texts or numbers as PostgreSQL reads an array (PostgreSQL, "Array Value Input").

    Much less work for psycopg2 than a list.
    """
    quoted = [str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return '{"' + '","'.join(quoted) + '"}' if quoted else "{}"


def bytes_text(values: Iterable[bytes]) -> str:
    """As `array_text`, of bytes."""
    quoted = [value.hex() for value in values]
    return '{"\\\\x' + '","\\\\x'.join(quoted) + '"}' if quoted else "{}"


def _array(values: Sequence[Any]) -> str | list[Any]:
    """Values of one kind, as psycopg2 is given them."""
    if set(map(type, values)) <= _AS_TEXT:
        return array_text(values)
    return list(values)


def statements(script: str, dialect_name: str) -> list[str]:
    """The statements of a migration file, without comments.

    A statement after a line `-- only: sqlite` (or `postgres`) is left out on the other database.
    """
    # Comments go first: they may hold quotes and semicolons.
    marked = _COMMENT.sub("", _ONLY.sub(r"@only \1@", script))
    found = []
    for part in re.split(r";[ \t]*(?:\n|$)", marked):
        only = _MARK.search(part)
        statement = _MARK.sub("", part).strip()
        if statement and (only is None or only.group(1) == dialect_name):
            found.append(statement)
    return found


def _outside_strings(statement: str, rewrite: Callable[[str], str]) -> str:
    parts = _STRING.split(statement)
    return "".join(part if part.startswith("'") else rewrite(part) for part in parts)


def _sqlite_schema(statement: str) -> str:
    # INTEGER PRIMARY KEY makes the column the row id: one b-tree instead of two.
    return re.sub(r"\bBIGINT( NOT NULL)? PRIMARY KEY\b", "INTEGER PRIMARY KEY", statement)


def _unchanged(statement: str) -> str:
    return statement


def _postgres_schema(statement: str) -> str:
    statement = re.sub(r"\bBLOB\b", "BYTEA", statement)
    statement = re.sub(r"\s+WITHOUT ROWID\b", "", statement)
    if _DEFINES_COLUMNS.match(statement):
        # Sorting and comparing by bytes, as SQLite does, whatever the database's collation.
        statement = re.sub(r"\bTEXT\b(?! COLLATE)", 'TEXT COLLATE "C"', statement)
    return statement


@dataclass(frozen=True, slots=True)
class Dialect:
    """One database's spelling.

    `name` is "sqlite" or "postgres". `skip_locked` ends a sub-select that claims rows: rows that
    another transaction is claiming are passed over.
    """

    name: str
    skip_locked: str
    for_update: str
    _schema: Callable[[str], str] = field(repr=False)

    def schema(self, statement: str) -> str:
        """A statement of a schema file in this database's spelling."""
        return _outside_strings(statement, self._schema)

    def any_of(self, column: str, values: Collection[Any]) -> tuple[str, list[Any]]:
        """A condition true for rows whose `column` is one of `values`, and its arguments."""
        # No stored text holds U+0000 (see `check_text`), so that such a value equals none of it.
        listed = [value for value in values if type(value) is not str or "\x00" not in value]
        if not listed:
            return "1 = 0", []
        if self.name == "postgres" and len(listed) == 1:
            # Of a list PostgreSQL supposes that it has ten, and so plans it anew each time.
            return f"{column} = ?", listed
        if self.name == "postgres":
            return f"{column} = ANY(?)", [_array(listed)]
        if len(listed) <= _SPELLED_OUT or isinstance(listed[0], bytes):
            return f"{column} IN ({','.join('?' * len(listed))})", listed
        return f"{column} IN (SELECT value FROM json_each(?))", [json.dumps(listed)]

    def row_is_one_of(self, query: str) -> str:
        """A condition true for rows whose `row_id` a query gives: found without an index.

        For rows that nobody can change meanwhile; the number of a row is of no use afterwards.
        """
        return f"ctid = ANY (ARRAY({query}))" if self.name == "postgres" else f"rowid IN ({query})"

    def rows_of(self, types: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
        """A query that gives these rows (one at least), and its arguments, to splice into SQL.

        `types`: "text" or "bigint", of each column. On PostgreSQL it is the same statement for
        any number of rows beyond one, so that it can be prepared.
        """
        if self.name == "postgres" and len(rows) > 1:
            marks = ", ".join([f"?::{kind}[]" for kind in types])
            return f"SELECT * FROM unnest({marks})", [_array(c) for c in zip(*rows, strict=True)]
        if self.name == "postgres":
            one = ", ".join(f"?::{kind}" for kind in types)
            return f"VALUES ({one})", list(rows[0])
        marks = ", ".join([f"({', '.join('?' * len(types))})"] * len(rows))
        return f"VALUES {marks}", list(chain.from_iterable(rows))

    @property
    def row_id(self) -> str:
        """The column that says where a row is, for `row_is_one_of`."""
        return "ctid" if self.name == "postgres" else "rowid"


SQLITE = Dialect("sqlite", "", "", _sqlite_schema)
POSTGRES = Dialect("postgres", " FOR UPDATE SKIP LOCKED", " FOR UPDATE", _postgres_schema)
PORTABLE = Dialect("sqlite", "", "", _unchanged)
"""SQLite with the schema as written, from which current.sql is made."""
