"""Used databases made like new, since PostgreSQL takes far longer to make one.

A template carries, in the schema `testing`, a copy of its initial rows and a function that brings
a copy of the template back to them. What it cannot undo is noticed: a database whose tables were
changed is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from tests.support import postgres_connections

_MOST_USES = 60
"""Rows that were deleted stay in the files, and slow reads down some day."""

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
_SHAPE = """
SELECT count(*), max(oid::bigint), (SELECT count(*) FROM pg_attribute),
    (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_db_role_setting)
FROM pg_class
"""
_DISCONNECT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid <> ALL (ARRAY{}::int[])
"""


def prepare(url: str) -> None:
    """Give the migrated database at `url` what its copies are brought back with."""
    connection = _Connection(url)
    body = []
    connection.run("CREATE SCHEMA testing")
    for (table,) in connection.run(_TABLES):
        body.append(f'DELETE FROM public."{table}";')
        if connection.run(f'SELECT 1 FROM public."{table}" LIMIT 1'):
            connection.run(f'CREATE TABLE testing."{table}" AS TABLE public."{table}"')
            body.append(f'INSERT INTO public."{table}" SELECT * FROM testing."{table}";')
    connection.run(
        "CREATE FUNCTION testing.undo() RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
        f"SET LOCAL session_replication_role = replica; {' '.join(body)} END $$"
    )
    connection.close()


@dataclass(slots=True)
class PostgresPool:
    """Copies of one template. `make` makes one and returns its URL, `drop` ends one."""

    make: Callable[[], str]
    drop: Callable[[str], None]
    _free: list[str] = field(default_factory=list)
    _uses: dict[str, int] = field(default_factory=dict)
    _connections: dict[str, _Connection] = field(default_factory=dict)
    """Kept, since planning takes longer than running what brings a database back."""
    _shape: Any = None

    def take(self) -> str:
        """The URL of a database like the template."""
        url = self._free.pop() if self._free else self._made()
        self._uses[url] += 1
        return url

    def give_back(self, url: str) -> None:
        """To be called when nothing needs what is in it any longer."""
        if self._uses[url] < _MOST_USES:
            with suppress(psycopg2.Error):
                if self._undone(url):
                    self._free.append(url)
                    return
        self._end(url)

    def close(self) -> None:
        """Drop what there is."""
        for url in list(self._uses):
            self._end(url)

    def _made(self) -> str:
        url = self.make()
        self._uses[url] = 0
        postgres_connections.begin(url)
        self._connections[url] = connection = _Connection(url)
        self._shape = self._shape or connection.run(_SHAPE)
        return url

    def _undone(self, url: str) -> bool:
        run = self._connections[url].run
        run(_DISCONNECT.format(postgres_connections.processes(url)))
        if run(_SHAPE) != self._shape:
            return False
        run("SELECT testing.undo()")
        return True

    def _end(self, url: str) -> None:
        del self._uses[url]
        postgres_connections.end(url)
        self._connections.pop(url).close()
        self.drop(url)


class _Connection:
    """Runs statements, each for itself."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url, options="-c lock_timeout=5000")
        self._connection.autocommit = True

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._connection.close()
