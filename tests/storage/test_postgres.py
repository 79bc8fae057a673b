"""PostgreSQL alone: restarts, lost connections, deadlocks, what it refuses."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from storage import database, postgres
from storage.database import Database, backend_for, open_database, sleep
from storage.errors import (
    CommitUnknown,
    DatabaseUnavailable,
    IntegrityViolation,
    TransactionTooSlow,
    UnusableDatabase,
)
from storage.transaction import Transaction
from tests.support.databases import (
    administer,
    chosen_kinds,
    empty_database,
    migrated_database,
    open_test_database,
    reactor,
)
from tests.support.services import PostgresCluster, free_port


def put(txn: Transaction, name: str) -> int:
    pos = txn.next_pos()
    txn.execute("INSERT INTO counters (name, value) VALUES (?, ?)", (name, pos))
    return pos


def everything(txn: Transaction) -> dict[str, int]:
    return dict(txn.all("SELECT name, value FROM counters"))


def end_connections(url: str) -> None:
    """Have the server end all connections to the database."""
    name = url.rpartition("/")[2]
    administer(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND pid <> pg_backend_pid()",
    )


class PostgresTestCase(TestCase):
    if "postgres" not in chosen_kinds():
        skip = "PostgreSQL is not among HEARTH_TEST_DATABASES"


class RefusalTest(PostgresTestCase):
    def test_another_encoding_is_refused(self) -> None:
        url = empty_database(self, "postgres", "ENCODING 'LATIN1' LOCALE 'C'")
        with self.assertRaises(UnusableDatabase) as caught:
            backend_for(url).connect(writable=True)
        self.assertIn("LATIN1", str(caught.exception))
        self.assertIn("UTF8", str(caught.exception))

    def test_an_old_server_is_refused(self) -> None:
        self.patch(postgres, "MINIMUM_VERSION", 990000)
        with self.assertRaises(UnusableDatabase) as caught:
            backend_for(migrated_database(self, "postgres")).connect(writable=True)
        self.assertIn("99 or newer", str(caught.exception))

    async def test_an_unreachable_server_is_told_without_the_password(self) -> None:
        url = f"postgresql://someone:hunter2@127.0.0.1:{free_port()}/hearth"
        with self.assertRaises(DatabaseUnavailable) as caught:
            await open_database(url, reactor=reactor, wait_for=0)
        self.assertIn("hearth on 127.0.0.1", str(caught.exception))
        self.assertNotIn("hunter2", str(caught.exception))

    async def test_a_malformed_url_is_told_without_the_password(self) -> None:
        url = "postgresql://someone:hunter2@127.0.0.1/hearth?colour=blue"
        with self.assertRaises(UnusableDatabase) as caught:
            await open_database(url, reactor=reactor)
        self.assertIn("colour", str(caught.exception))
        self.assertNotIn("hunter2", str(caught.exception))


class FetchTest(TestCase):
    def test_many_rows_are_not_made_at_once(self) -> None:
        class Cursor:
            def __init__(self, count: int) -> None:
                self.rowcount = count
                self.rows = [(number,) for number in range(count)]
                self.most = 0

            def fetchmany(self, count: int) -> list[tuple[int]]:
                part, self.rows = self.rows[:count], self.rows[count:]
                self.most = max(self.most, len(part))
                return part

            def fetchall(self) -> list[tuple[int]]:
                return self.fetchmany(len(self.rows))

        for count in (0, 1, postgres.FETCH, postgres.FETCH + 1, 10 * postgres.FETCH):
            cursor = Cursor(count)
            self.assertEqual(postgres.fetch_all(cursor), [(number,) for number in range(count)])
            self.assertLessEqual(cursor.most, postgres.FETCH)


class ErrorTest(PostgresTestCase):
    async def test_a_slow_statement_is_cancelled(self) -> None:
        db = await open_test_database(self, "postgres", statement_timeout_ms=50)
        with self.assertRaises(TransactionTooSlow):
            await db.read(lambda txn: txn.one("SELECT pg_sleep(60)"))
        self.assertEqual(await db.read(everything), {})

    async def test_nothing_is_committed_after_an_error_that_was_caught(self) -> None:
        def careless(txn: Transaction) -> None:
            put(txn, "a")
            try:
                txn.execute("INSERT INTO counters (name, value) VALUES ('a', 1)")
            except IntegrityViolation:
                pass

        db = await open_test_database(self, "postgres")
        with self.assertRaises(IntegrityViolation):
            await db.write(careless)
        self.assertEqual(await db.read(everything), {})
        self.assertEqual(await db.position(fresh=True), 0)

    async def test_a_deadlock_is_resolved_by_a_second_try(self) -> None:
        db = await open_test_database(self, "postgres")
        for name in ("a", "b"):
            await db.write(put, name)
        both = threading.Barrier(2)
        attempts: list[str] = []

        def crossed(txn: Transaction, first: str, second: str) -> None:
            attempts.append(first)
            update = "UPDATE counters SET value = value + 100 WHERE name = ?"
            txn.execute(update, (first,))
            if len(attempts) <= 2:
                both.wait(20)
            txn.execute(update, (second,))

        await gatherResults(
            [
                ensureDeferred(db.write(crossed, "a", "b")),
                ensureDeferred(db.write(crossed, "b", "a")),
            ]
        )
        self.assertGreater(len(attempts), 2)
        self.assertEqual(await db.read(everything), {"a": 201, "b": 202})

    async def test_write_commits_are_not_ordered_by_threads(self) -> None:
        """Positions of concurrent writers have no holes, and are all known in the end."""
        db = await open_test_database(self, "postgres")
        await gatherResults([ensureDeferred(db.write(put, f"n{i}")) for i in range(30)])
        self.assertEqual(await db.position(), 30)
        self.assertEqual(sorted((await db.read(everything)).values()), [*range(1, 31)])


class LostConnectionTest(PostgresTestCase):
    async def test_idle_connections_that_were_closed_are_replaced(self) -> None:
        url = migrated_database(self, "postgres")
        db = await open_test_database(self, url=url)
        await gatherResults(
            [ensureDeferred(db.read(lambda txn: txn.one("SELECT pg_sleep(0.05)")))] * 3
        )
        await db.write(put, "a")
        await deferToThread(end_connections, url)
        await db.write(put, "b")
        self.assertEqual(await db.read(everything), {"a": 1, "b": 2})

    async def test_a_transaction_cut_off_in_the_middle_is_run_again(self) -> None:
        url = migrated_database(self, "postgres")
        db = await open_test_database(self, url=url)
        attempts: list[int] = []

        def cut_off(txn: Transaction, work: Any) -> Any:
            result = work(txn)
            attempts.append(1)
            if len(attempts) == 1:
                end_connections(url)
                txn.one("SELECT 1")
            return result

        self.assertEqual(await db.write(cut_off, lambda txn: put(txn, "a")), 1)
        self.assertEqual(len(attempts), 2)
        attempts.clear()
        self.assertEqual(await db.read(cut_off, everything), {"a": 1})
        self.assertEqual(len(attempts), 2)

    async def test_a_commit_that_did_not_arrive_is_run_again(self) -> None:
        url = migrated_database(self, "postgres")
        db = await open_test_database(self, url=url)
        attempts: list[int] = []

        def cut_off_at_the_end(txn: Transaction) -> int:
            pos = put(txn, "a")
            attempts.append(pos)
            if len(attempts) == 1:
                end_connections(url)  # the next thing sent is COMMIT
            return pos

        self.assertEqual(await db.write(cut_off_at_the_end), 1)
        self.assertEqual(len(attempts), 2)
        self.assertEqual(await db.read(everything), {"a": 1})

    async def test_a_commit_without_an_answer_that_happened_is_told_as_unknown(self) -> None:
        db = await open_test_database(self, "postgres")
        original = postgres.PostgresSession.commit
        attempts: list[int] = []

        def commit(session: postgres.PostgresSession) -> None:
            original(session)
            session.broken = True
            raise CommitUnknown("the answer was lost", session._transaction_id)

        def work(txn: Transaction) -> None:
            attempts.append(1)
            put(txn, "a")

        self.patch(postgres.PostgresSession, "commit", commit)
        with self.assertRaises(CommitUnknown):
            await db.write(work)
        self.assertEqual(len(attempts), 1)
        self.patch(postgres.PostgresSession, "commit", original)
        self.assertEqual(await db.read(everything), {"a": 1})
        self.assertEqual(await db.position(fresh=True), 1)

    def test_how_a_transaction_ended(self) -> None:
        backend = backend_for(migrated_database(self, "postgres"))
        session: Any = backend.connect(writable=True)
        self.addCleanup(session.close)
        put(session.begin(), "a")
        session.rollback()
        self.assertIs(backend.committed(session, session._transaction_id), False)
        put(session.begin(), "a")
        session.commit()
        self.assertIsNone(backend.committed(session, session._transaction_id))
        far_future = str(int(session._transaction_id) + 1_000_000)
        self.assertIs(backend.committed(session, far_future), False)


class RestartTest(PostgresTestCase):
    """The server is stopped and started under load, in a cluster of its own."""

    def setUp(self) -> Any:
        directory = Path(tempfile.mkdtemp(prefix="hearth-restart-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        self.cluster = PostgresCluster(directory)
        self.cluster.create()
        self.addCleanup(self.cluster.stop, "immediate")
        self.acknowledged: dict[str, int] = {}
        self.unknown: set[str] = set()
        self.stopping = False

    async def writer(self, db: Database, number: int) -> None:
        count = 0
        while not self.stopping:
            count += 1
            name = f"{number}-{count}"
            try:
                self.acknowledged[name] = await db.write(put, name)
            except CommitUnknown:
                self.unknown.add(name)

    async def reader(self, db: Database) -> None:
        while not self.stopping:
            before = dict(self.acknowledged)
            found = await db.read(everything)
            self.assertEqual({n: found.get(n) for n in before}, before)

    async def until_written(self, more: int) -> None:
        wanted = len(self.acknowledged) + more
        while len(self.acknowledged) < wanted:
            await sleep(reactor, 0.005)

    async def restarted(self, mode: str) -> None:
        db = await open_database(self.cluster.url, reactor=reactor, connections=8)
        try:
            load = gatherResults(
                [ensureDeferred(self.writer(db, i)) for i in range(10)]
                + [ensureDeferred(self.reader(db)) for _ in range(3)],
                consumeErrors=True,
            )
            await self.until_written(50)
            for _ in range(2):
                await deferToThread(self.cluster.stop, mode)
                await deferToThread(self.cluster.start)
                await self.until_written(50)
            self.stopping = True
            await load
            found = await db.read(everything)
            lost = {n: p for n, p in self.acknowledged.items() if found.get(n) != p}
            self.assertEqual(lost, {})
            self.assertEqual(set(found) - set(self.acknowledged) - self.unknown, set())
            self.assertEqual(len(set(found.values())), len(found))
            self.assertEqual(await db.position(fresh=True), max(found.values()))
        finally:
            await db.close()

    async def test_a_restart_loses_no_acknowledged_write(self) -> None:
        await self.restarted("fast")

    async def test_a_crash_loses_no_acknowledged_write(self) -> None:
        await self.restarted("immediate")

    async def test_a_server_that_comes_up_later_is_waited_for(self) -> None:
        self.cluster.stop()
        opening = ensureDeferred(open_database(self.cluster.url, reactor=reactor))
        waited: Deferred[None] = sleep(reactor, 0.1)
        await waited
        await deferToThread(self.cluster.start)
        db = await opening
        await db.write(put, "a")
        await db.close()

    async def test_a_server_that_stays_away_is_told(self) -> None:
        self.patch(database, "GIVE_UP_AFTER", 0.2)
        db = await open_database(self.cluster.url, reactor=reactor)
        self.cluster.stop()
        with capture_logs() as lines:
            with self.assertRaises(DatabaseUnavailable):
                await db.write(put, "a")
            with self.assertRaises(DatabaseUnavailable):
                await db.read(everything)
            self.cluster.start()
            await db.write(put, "b")
        # The operator is told once that it is away, and once that it is back.
        self.assertEqual([line["log_level"] for line in lines], ["warning", "info"])
        self.assertIn("Connection refused", lines[0]["reason"])
        self.assertEqual(await db.read(everything), {"b": 1})
        await db.close()
