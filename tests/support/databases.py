"""Databases for tests: a fresh one for each test, copied from a migrated template.

Which kinds of database the tests run on is chosen with HEARTH_TEST_DATABASES, a list such as
`sqlite,postgres` (the default is `sqlite`). A PostgreSQL server is given with
HEARTH_TEST_POSTGRES_URL (its user must be allowed to create databases), Redis with
HEARTH_TEST_REDIS_URL; without them this process starts its own and stops them when it ends.
"""

from __future__ import annotations

import atexit
import functools
import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from storage import migrate
from storage.bus import Bus
from storage.database import Database, backend_for, open_database, sleep
from tests.support import postgres_pool
from tests.support.postgres_pool import PostgresPool
from tests.support.services import POSTGRES_URL, REDIS_URL, PostgresCluster, RedisServer

reactor: Any = installed_reactor
KINDS = ("sqlite", "postgres")
_numbers = itertools.count(1)


def chosen_kinds() -> list[str]:
    """The kinds of database that tests run on. Raises ValueError for a kind not known."""
    text = os.environ.get("HEARTH_TEST_DATABASES") or default_kind()
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"HEARTH_TEST_DATABASES names {kind!r}; known are {', '.join(KINDS)}.")
    return kinds


def default_kind() -> str:
    """The kind for tests that run on one: HEARTH_TEST_DATABASE, else SQLite."""
    kind = os.environ.get("HEARTH_TEST_DATABASE") or "sqlite"
    if kind not in KINDS:
        raise ValueError(f"HEARTH_TEST_DATABASE is {kind!r}; known are {', '.join(KINDS)}.")
    return kind


@functools.cache
def scratch_directory() -> Path:
    """A directory of this process, removed when it ends."""
    path = Path(tempfile.mkdtemp(prefix="hearth-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@functools.cache
def postgres_url() -> str:
    """The maintenance database of the PostgreSQL server for tests."""
    given = os.environ.get(POSTGRES_URL)
    if given:
        return given
    cluster = PostgresCluster(scratch_directory())
    cluster.create()
    atexit.register(cluster.stop, "immediate")
    return cluster.url


@functools.cache
def redis_url() -> str:
    """The Redis server for tests."""
    given = os.environ.get(REDIS_URL)
    if given:
        return given
    server = RedisServer(scratch_directory())
    server.create()
    atexit.register(server.stop)
    return server.url


def administer(statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
    """Run a statement outside a transaction on the PostgreSQL server; its rows."""
    connection = psycopg2.connect(url or postgres_url())
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def named(name: str) -> str:
    """The URL of another database on the PostgreSQL server."""
    return urlunsplit(urlsplit(postgres_url())._replace(path=f"/{name}"))


def _migrate(url: str) -> None:
    session = backend_for(url).connect(writable=True)
    try:
        migrate.migrate(session, migrate.find())
    finally:
        session.close()


@functools.cache
def _settle() -> None:
    """Look for garbage more rarely, as a server does once it has started.

    What is imported lives on; a server of a test that has ended is garbage, of some megabytes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 5)


@functools.cache
def _sqlite_template() -> Path:
    path = scratch_directory() / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@functools.cache
def _postgres_template() -> str:
    name = f"hearth_template_{os.getpid()}"
    administer(f"DROP DATABASE IF EXISTS {name}")
    administer(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    _migrate(named(name))
    postgres_pool.prepare(named(name))
    atexit.register(administer, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    return name


def empty_database(test: TestCase, kind: str, options: str = "") -> str:
    """The URL of a database without tables. `options` are PostgreSQL's for CREATE DATABASE."""
    if kind == "sqlite":
        return f"sqlite:///{Path(test.mktemp()).resolve()}"
    url = _create(f"TEMPLATE template0 {options}")
    test.addCleanup(_drop, url)
    return url


def migrated_database(test: TestCase, kind: str | None = None) -> str:
    """The URL of a new database with the newest schema. It lives as long as the test."""
    _settle()
    if (kind or default_kind()) == "sqlite":
        path = Path(test.mktemp()).resolve()
        shutil.copyfile(_sqlite_template(), path)
        test.addCleanup(_remove, path)
        return f"sqlite:///{path}"
    pool = _postgres_pool()
    url = pool.take()
    test.addCleanup(pool.give_back, url)
    return url


@functools.cache
def _postgres_pool() -> PostgresPool:
    template = _postgres_template()
    pool = PostgresPool(lambda: _create(f"TEMPLATE {template}"), _drop)
    atexit.register(pool.close)
    return pool


def _create(options: str) -> str:
    name = f"hearth_test_{os.getpid()}_{next(_numbers)}"
    administer(f"CREATE DATABASE {name} {options}")
    return named(name)


def _remove(path: Path) -> None:
    """The files of thousands of tests would fill the memory they may be in."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _drop(url: str) -> None:
    name = urlsplit(url).path.lstrip("/")
    administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def open_test_database(
    test: TestCase,
    kind: str | None = None,
    *,
    url: str | None = None,
    bus: Bus | None = None,
    **options: Any,
) -> Database:
    """Open a new migrated database, or the one at `url`, and close it after the test.

    Cleanups run last first: what uses the database is to be stopped by a cleanup added later.
    """
    url = url or migrated_database(test, kind)
    database = await open_database(url, reactor=reactor, bus=bus, **{"connections": 5, **options})
    test.addCleanup(_close, database)
    return database


def _close(database: Database) -> Deferred[None]:
    return ensureDeferred(database.close())


class DatabaseTestCase(TestCase):
    """Tests of a class under `on_each_database`; `kind` is the kind of the running test."""

    kind: str

    def setUp(self) -> Any:
        return ensureDeferred(self.prepare())

    async def prepare(self) -> None:
        """Runs before each test; for subclasses."""

    def database_url(self) -> str:
        """A new migrated database of the kind of the test."""
        return migrated_database(self, self.kind)

    async def open(
        self, url: str | None = None, bus: Bus | None = None, **options: Any
    ) -> Database:
        """An open database of the kind of the test: a new one, or the one at `url`."""
        return await open_test_database(self, self.kind, url=url, bus=bus, **options)

    async def settled(self, db: Database) -> None:
        """Returns when no transaction is under way and none was begun by the end of another."""
        await sleep(reactor, 0)
        while not db._threads.is_idle:
            await sleep(reactor, 0.001)
        await sleep(reactor, 0)  # what the threads told at the end


C = TypeVar("C", bound=type[DatabaseTestCase])


def on_each_database(cls: C) -> C:
    """Class decorator: every test method runs once for each chosen kind of database.

    `test_x` becomes `test_x_sqlite` and `test_x_postgres`, with `self.kind` set.
    """
    for name in [name for name in vars(cls) if name.startswith("test_")]:
        method = getattr(cls, name)
        delattr(cls, name)
        for kind in chosen_kinds():
            setattr(cls, f"{name}_{kind}", _for_kind(method, name, kind))
    original: Any = cls.__init__

    def __init__(self: DatabaseTestCase, methodName: str = "runTest") -> None:
        original(self, methodName)
        # Before setUp, which may open a database.
        self.kind = methodName.rpartition("_")[2]

    cls.__init__ = __init__  # type: ignore[assignment,method-assign]
    return cls


def _for_kind(method: Callable[..., Any], name: str, kind: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: DatabaseTestCase) -> Any:
        return method(self)

    run.__name__ = f"{name}_{kind}"
    run.__qualname__ = f"{method.__qualname__}_{kind}"
    return run
