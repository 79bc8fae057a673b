"""Point queries on PostgreSQL: lost, slow and dead connections, restarts, ways to connect."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread

from storage import async_connection, database, direct_postgres
from storage.database import Database, open_database, sleep
from storage.direct_postgres import PostgresDirect
from storage.errors import DatabaseUnavailable, TransactionTooSlow
from storage.point_query import point_query
from tests.storage.test_point_query import put, until_direct, value_of
from tests.storage.test_postgres import PostgresTestCase, end_connections
from tests.support.databases import (
    administer,
    migrated_database,
    open_test_database,
    reactor,
)
from tests.support.network import authority
from tests.support.services import PostgresCluster


@point_query("SELECT 1 FROM (SELECT pg_sleep(?)) s", len)
def slow(seconds: float) -> Sequence[Any]:
    """Takes so long."""
    return (seconds,)


@point_query("SELECT repeat(?, CAST(? AS INTEGER))", lambda rows: str(rows[0][0]))
def repeated(text: str, times: int) -> Sequence[Any]:
    """A text of any size."""
    return text, times


@point_query("SELECT count(*) FROM pg_prepared_statements WHERE name <> ?", lambda rows: rows[0][0])
def prepared(name: str) -> Sequence[Any]:
    """How many statements the connection has prepared, this one too."""
    return (name,)


def direct_of(db: Database) -> PostgresDirect:
    assert isinstance(db._direct, PostgresDirect)
    return db._direct


def backends(db: Database) -> list[int]:
    """The processes of the server behind the connections for queries."""
    return sorted(link._connection.info.backend_pid for link in direct_of(db)._links)


async def turned(condition: Callable[[], Any]) -> None:
    """Returns when `condition()` is true."""
    for _ in range(2000):
        if condition():
            return
        await sleep(reactor, 0.005)
    raise AssertionError("It does not happen.")


class QueryingTest(PostgresTestCase):
    async def opened(self, **options: Any) -> Database:
        self.url = migrated_database(self, "postgres")
        db = await open_test_database(self, url=self.url, **options)
        await db.write(put, "a", 1)
        await until_direct(db)
        return db

    def ways(self, db: Database) -> tuple[int, int]:
        """How many queries ran directly, and how many in threads, since the last call."""
        counts = db.queries
        told = counts.direct.total(), counts.thread.total()
        counts.direct.clear()
        counts.thread.clear()
        return told

    async def test_no_thread_is_asked(self) -> None:
        db = await self.opened()
        self.ways(db)
        asked = [ensureDeferred(db.query(value_of, "a")) for _ in range(50)]
        self.assertEqual(await gatherResults(asked), [1] * 50)
        self.assertEqual(self.ways(db), (50, 0))

    async def test_connections_are_bounded_and_opened_when_needed(self) -> None:
        db = await self.opened(connections=10)
        self.assertEqual(len(backends(db)), 1)
        for _ in range(3):
            asked = [ensureDeferred(db.query(slow, 0.005)) for _ in range(10)]
            await gatherResults(asked)
        self.assertEqual(len(backends(db)), 2)
        name = self.url.rpartition("/")[2]
        ((found,),) = administer(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")
        self.assertLessEqual(found, 10 + 1)  # one is of the tests' own

    async def test_few_connections_are_all_for_threads(self) -> None:
        db = await open_test_database(self, "postgres", connections=2)
        self.assertIsNone(db._direct)
        self.assertIsNone(await db.query(value_of, "a"))

    async def test_those_who_wait_are_served_in_turn(self) -> None:
        db = await self.opened()
        done: list[int] = []

        async def ask(number: int) -> None:
            await db.query(slow, 0.01 if number == 0 else 0.0)
            done.append(number)

        await gatherResults([ensureDeferred(ask(number)) for number in range(30)])
        self.assertEqual(done, [*range(30)])

    async def test_large_answers_and_questions(self) -> None:
        db = await self.opened()
        self.ways(db)
        self.assertEqual(await db.query(repeated, "x", 3_000_000), "x" * 3_000_000)
        self.assertEqual(await db.query(repeated, "y" * 3_000_000, 1), "y" * 3_000_000)
        self.assertEqual(await db.query(repeated, "zü" * 100_000, 2), "zü" * 200_000)
        self.assertEqual(self.ways(db), (3, 0))

    async def test_idle_connections_that_were_closed_are_replaced(self) -> None:
        db = await self.opened()
        before = backends(db)
        await deferToThread(end_connections, self.url)
        self.assertEqual(await db.query(value_of, "a"), 1)
        await until_direct(db)
        self.assertNotEqual(backends(db), before)

    async def test_a_query_that_is_cut_off_is_repeated(self) -> None:
        db = await self.opened()
        asked = [ensureDeferred(db.query(slow, 0.3)) for _ in range(3)]
        await sleep(reactor, 0.1)
        self.ways(db)
        await deferToThread(end_connections, self.url)
        self.assertEqual(await gatherResults(asked), [1, 1, 1])
        self.assertEqual(self.ways(db), (0, 3))
        await until_direct(db)

    async def test_a_slow_query_is_left_to_a_thread(self) -> None:
        self.patch(direct_postgres, "PATIENCE_MS", 50)
        db = await self.opened()
        before = backends(db)
        self.ways(db)
        self.assertEqual(await db.query(slow, 0.2), 1)
        self.assertEqual(self.ways(db), (0, 1))
        self.assertEqual(await db.query(slow, 0.0), 1)
        self.assertEqual(self.ways(db), (1, 0))
        self.assertEqual(backends(db), before)

    async def test_the_time_out_of_statements_holds(self) -> None:
        db = await self.opened(statement_timeout_ms=50)
        with self.assertRaises(TransactionTooSlow):
            await db.query(slow, 60.0)
        self.assertEqual(await db.query(value_of, "a"), 1)

    async def test_a_connection_that_says_nothing_is_given_up(self) -> None:
        self.patch(direct_postgres, "PATIENCE_MS", 100)
        self.patch(direct_postgres, "GRACE", 0.1)
        db = await self.opened()
        (silent,) = backends(db)
        try:
            os.kill(silent, signal.SIGSTOP)
        except PermissionError:
            self.skipTest("The server is another user's.")
        try:
            asked = [ensureDeferred(db.query(value_of, "a")) for _ in range(5)]
            self.assertEqual(await gatherResults(asked), [1] * 5)
            await until_direct(db)
            self.assertNotIn(silent, backends(db))
        finally:
            os.kill(silent, signal.SIGCONT)

    async def test_a_cancelled_query_leaves_its_connection_alone(self) -> None:
        db = await self.opened()
        before = backends(db)
        asked = [ensureDeferred(db.query(slow, 0.05)) for _ in range(3)]
        asked[0].cancel()  # under way
        asked[1].cancel()  # in the queue
        for each in asked[:2]:
            with self.assertRaises(CancelledError):
                await each
        self.assertEqual(await asked[2], 1)
        self.assertEqual(await db.query(value_of, "a"), 1)
        self.assertEqual(backends(db), before)
        self.assertEqual(direct_of(db)._queue, type(direct_of(db)._queue)())

    async def test_a_cancelled_query_does_not_keep_the_database_open(self) -> None:
        db = await self.opened()
        asked = ensureDeferred(db.query(slow, 1.0))
        asked.cancel()
        await db.close()
        with self.assertRaises(CancelledError):
            await asked

    async def test_statements_that_fail_leave_the_connection_alone_for_some_time(self) -> None:
        db = await self.opened()
        before = backends(db)
        self.assertEqual(await db.query(repeated, "x", 3), "xxx")
        self.ways(db)
        for count in range(1, direct_postgres.MAX_ERRORS):
            # Too large for its type.
            with self.assertRaises(Exception):  # noqa: B017
                await db.query(repeated, "x", 10**15)
            self.assertEqual(await db.query(repeated, "x", 3), "xxx")
            self.assertEqual(self.ways(db), (1, 1), count)
        self.assertEqual(backends(db), before)
        with self.assertRaises(Exception):  # noqa: B017
            await db.query(repeated, "x", 10**15)
        self.assertEqual(await db.query(repeated, "x", 3), "xxx")
        await until_direct(db)
        self.assertNotEqual(backends(db), before)

    async def test_plans_are_made_anew(self) -> None:
        db = await self.opened()
        (link,) = direct_of(db)._links
        link._next_plans = 0.0
        self.ways(db)
        self.assertEqual(await db.query(value_of, "a"), 1)
        self.assertEqual(await db.query(value_of, "a"), 1)
        self.assertEqual(self.ways(db), (2, 0))
        self.assertGreater(link._next_plans, 0.0)

    async def test_statements_are_prepared_once(self) -> None:
        db = await self.opened()
        for _ in range(20):
            await db.query(value_of, "a")
        self.assertEqual(await db.query(prepared, ""), 2)


class ClusterTest(PostgresTestCase):
    """With a server of its own, which is stopped, started, and reached in other ways."""

    def setUp(self) -> Any:
        self.directory = Path(tempfile.mkdtemp(prefix="hearth-direct-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.cluster = PostgresCluster(self.directory)
        self.cluster.create()
        self.addCleanup(self.cluster.stop, "immediate")

    async def opened(self, url: str | None = None, **options: Any) -> Database:
        db = await open_database(url or self.cluster.url, reactor=reactor, **options)
        self.addCleanup(lambda: ensureDeferred(db.close()))
        await db.write(put, "a", 1)
        await until_direct(db)
        return db

    async def restarted(self, mode: str) -> None:
        db = await self.opened()
        answers: list[int | None] = []
        stopping = False

        async def ask() -> None:
            while not stopping:
                answers.append(await db.query(value_of, "a"))
                await sleep(reactor, 0)

        load = gatherResults([ensureDeferred(ask()) for _ in range(10)])
        for _ in range(2):
            await deferToThread(self.cluster.stop, mode)
            await sleep(reactor, 0.1)
            await deferToThread(self.cluster.start)
            enough = len(answers) + 50
            while len(answers) < enough:
                await sleep(reactor, 0.005)
        stopping = True
        await load
        self.assertEqual(set(answers), {1})
        await until_direct(db)

    async def test_a_restart_is_not_noticed(self) -> None:
        await self.restarted("fast")

    async def test_a_crash_is_not_noticed(self) -> None:
        await self.restarted("immediate")

    async def test_a_server_that_stays_away_is_told(self) -> None:
        self.patch(database, "GIVE_UP_AFTER", 0.2)
        db = await self.opened()
        await deferToThread(self.cluster.stop)
        for _ in range(3):
            with self.assertRaises(DatabaseUnavailable):
                await db.query(value_of, "a")
        await deferToThread(self.cluster.start)
        self.assertEqual(await db.query(value_of, "a"), 1)
        await until_direct(db)

    async def test_no_answer_while_connecting(self) -> None:
        """A server that takes connections and says nothing."""
        self.patch(async_connection, "CONNECT_TIMEOUT", 0.2)
        db = await self.opened()
        postmaster = int((self.cluster.data / "postmaster.pid").read_text().split()[0])
        (link,) = direct_of(db)._links
        os.kill(postmaster, signal.SIGSTOP)
        try:
            direct_of(db).failed(link, None)
            # The connections that the threads have go on.
            self.assertEqual(await db.query(value_of, "a"), 1)
            await turned(lambda: direct_of(db)._failures)
            self.assertEqual(await db.query(value_of, "a"), 1)
        finally:
            os.kill(postmaster, signal.SIGCONT)
        await until_direct(db)

    async def test_closing_while_connecting(self) -> None:
        db = await self.opened()
        postmaster = int((self.cluster.data / "postmaster.pid").read_text().split()[0])
        (link,) = direct_of(db)._links
        os.kill(postmaster, signal.SIGSTOP)
        try:
            direct_of(db).failed(link, None)
            await db.close()
        finally:
            os.kill(postmaster, signal.SIGCONT)
        self.assertEqual(direct_of(db)._links, set())

    async def test_a_unix_socket(self) -> None:
        port = self._configured(f"unix_socket_directories = '{self.directory}'")
        url = f"postgresql://hearth@/postgres?host={self.directory}&port={port}"
        self.directory.chmod(0o777)
        await deferToThread(self.cluster.stop)
        await deferToThread(self.cluster.start)
        db = await self.opened(url)
        self.assertEqual(await db.query(repeated, "x", 200_000), "x" * 200_000)

    async def test_tls(self) -> None:
        certificate = authority().issue_cert("127.0.0.1")
        key = self.cluster.data / "server.key"
        key.write_bytes(certificate.private_key_pem.bytes())
        chain = self.cluster.data / "server.crt"
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        key.chmod(0o600)
        owner = self.cluster.data.stat()
        for path in (key, chain):
            os.chown(path, owner.st_uid, owner.st_gid)
        self._configured("ssl = on")
        await deferToThread(self.cluster.stop)
        await deferToThread(self.cluster.start)
        db = await self.opened(f"{self.cluster.url}?sslmode=require")
        (link,) = direct_of(db)._links
        self.assertTrue(link._connection.info.ssl_in_use)
        self.assertEqual(await db.query(repeated, "x", 3_000_000), "x" * 3_000_000)
        self.assertEqual(await db.query(repeated, "y" * 3_000_000, 1), "y" * 3_000_000)
        asked: list[Deferred[Any]] = [
            ensureDeferred(db.query(repeated, str(i), 1000)) for i in range(50)
        ]
        self.assertEqual(await gatherResults(asked), [str(i) * 1000 for i in range(50)])
        await deferToThread(end_connections, self.cluster.url)
        self.assertEqual(await db.query(value_of, "a"), 1)
        await until_direct(db)

    def _configured(self, setting: str) -> str:
        """Add a setting; returns the server's port."""
        with (self.cluster.data / "postgresql.conf").open("a") as conf:
            conf.write(f"{setting}\n")
        return (self.cluster.data / "port").read_text("ascii")
