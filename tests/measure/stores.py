"""Databases with the newest schema for measurements that need no server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from storage import migrate
from storage.database import backend_for
from tests.support.databases import administer, named


def _migrate(url: str) -> str:
    session = backend_for(url).connect(writable=True)
    try:
        migrate.migrate(session, migrate.find())
    finally:
        session.close()
    return url


@contextmanager
def migrated_sqlite() -> Iterator[str]:
    """The URL of a new SQLite database."""
    with TemporaryDirectory(prefix="hearth-measure-") as directory:
        yield _migrate(f"sqlite:///{directory}/measured.db")


@contextmanager
def migrated_postgres(name: str = "hearth_measured") -> Iterator[str]:
    """The URL of a new PostgreSQL database."""
    administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    administer(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        yield _migrate(named(name))
    finally:
        administer(f"DROP DATABASE {name} WITH (FORCE)")
