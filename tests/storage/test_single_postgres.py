"""Statements that write, over a connection of the reactor."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults

from storage import single_postgres
from storage.database import Database
from storage.errors import CommitUnknown, IntegrityViolation, InvalidText
from storage.single_postgres import PostgresSingle
from storage.transaction import Effects, Row, Transaction
from tests.storage.test_direct_postgres import turned
from tests.storage.test_postgres import PostgresTestCase, end_connections
from tests.support.databases import administer, migrated_database, open_test_database


class Note:
    """Writes a name, which must be new, and waits for some seconds before."""

    def __init__(self, name: str, seconds: float = 0.0, ballast: str = "") -> None:
        self.name = name
        self.ballast = ballast
        self.seconds = seconds

    @property
    def postgres(self) -> str:
        return (
            "INSERT INTO counters (name, value) SELECT ?, ?::bigint"
            " FROM (SELECT pg_sleep(?::float8)) AS slept WHERE ? <> 'x' RETURNING value"
        )

    def arguments(self) -> Sequence[str]:
        return [self.name, "7", str(self.seconds), self.ballast]

    def result(self, effects: Effects, row: Row) -> int:
        effects.notify("noted")
        return int(row[0])

    def in_steps(self, txn: Transaction) -> int:
        raise AssertionError("this is for PostgreSQL")


class SingleTest(PostgresTestCase):
    async def opened(self, **options: Any) -> Database:
        self.url = migrated_database(self, "postgres")
        db = await open_test_database(self, url=self.url, **{"connections": 10, **options})
        await db.write_single(Note("first"))
        await turned(lambda: self.link(db))
        return db

    def link(self, db: Database) -> Any:
        """The connection of the reactor."""
        assert isinstance(db._single, PostgresSingle)
        return db._single._link

    def backend(self, db: Database) -> int:
        """The process of the server behind it."""
        pid: int = self.link(db)._connection.info.backend_pid
        return pid

    def names(self) -> set[str]:
        return {row[0] for row in administer("SELECT name FROM counters", self.url)}

    def threads_are_for_nothing(self, db: Database) -> None:
        def refuse(*args: Any) -> Any:
            raise AssertionError("a thread is asked")

        self.patch(db._threads, "submit", refuse)

    async def test_no_thread_is_asked(self) -> None:
        db = await self.opened()
        hints: list[Any] = []
        db.on_commit(lambda channels, pos: hints.append(channels))
        self.threads_are_for_nothing(db)
        for number in range(20):
            self.assertEqual(await db.write_single(Note(f"n'{number}\\")), 7)
        self.assertEqual(hints, [("noted",)] * 20)
        self.assertLessEqual({f"n'{number}\\" for number in range(20)}, self.names())

    async def test_few_connections_are_all_for_threads(self) -> None:
        db = await open_test_database(self, "postgres", connections=5)
        self.assertIsNone(db._single)
        self.assertEqual(await db.write_single(Note("x")), 7)

    async def test_what_is_refused_is_told(self) -> None:
        db = await self.opened()
        before = self.backend(db)
        with self.assertRaises(IntegrityViolation):
            await db.write_single(Note("first"))
        for text in ("\x00", "\ud800"):
            with self.assertRaises(InvalidText):
                await db.write_single(Note(text))
        await db.write_single(Note("second"))
        self.assertEqual(self.backend(db), before)

    async def test_what_is_large_is_for_a_thread(self) -> None:
        db = await self.opened()
        self.assertEqual(await db.write_single(Note("large", 0.0, "y" * 10_000)), 7)
        self.threads_are_for_nothing(db)
        with self.assertRaises(AssertionError):
            await db.write_single(Note("larger", 0.0, "y" * 10_000))

    async def test_who_finds_it_busy_need_not_wait(self) -> None:
        db = await self.opened()
        asked = [ensureDeferred(db.write_single(Note(f"{n}", 0.02))) for n in range(5)]
        self.assertEqual(await gatherResults(asked), [7] * 5)
        self.assertEqual(len(self.names() & set("01234")), 5)

    async def test_a_slow_one_is_done_by_a_thread_once(self) -> None:
        self.patch(single_postgres, "PATIENCE_MS", 50)
        db = await self.opened()
        self.assertEqual(await db.write_single(Note("slow", 0.2)), 7)
        self.assertIn("slow", self.names())

    async def test_a_connection_that_is_lost_meanwhile(self) -> None:
        db = await self.opened()
        asked = ensureDeferred(db.write_single(Note("lost", 30)))
        administer(f"SELECT pg_terminate_backend({self.backend(db)})")
        with self.assertRaises(CommitUnknown):
            await asked
        self.assertEqual(await db.write_single(Note("next")), 7)
        await turned(lambda: self.link(db))
        self.threads_are_for_nothing(db)
        self.assertEqual(await db.write_single(Note("after")), 7)
        self.assertEqual(self.names() & {"lost", "next", "after"}, {"next", "after"})

    async def test_a_connection_that_says_nothing_is_given_up(self) -> None:
        self.patch(single_postgres, "PATIENCE_MS", 100)
        self.patch(single_postgres, "GRACE", 0.1)
        db = await self.opened()
        pid = self.backend(db)
        try:
            os.kill(pid, signal.SIGSTOP)
        except PermissionError:
            self.skipTest("The server is another user's.")
        try:
            with self.assertRaises(CommitUnknown):
                await db.write_single(Note("perhaps"))
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(await db.write_single(Note("next")), 7)

    async def test_an_idle_connection_that_was_closed_is_replaced(self) -> None:
        db = await self.opened()
        before = self.link(db)
        end_connections(self.url)
        await turned(lambda: self.link(db) is not None and self.link(db) is not before)
        self.threads_are_for_nothing(db)
        self.assertEqual(await db.write_single(Note("next")), 7)

    async def test_closing_waits_for_what_is_under_way(self) -> None:
        db = await self.opened()
        asked = ensureDeferred(db.write_single(Note("late", 0.1)))
        await db.close()
        self.assertEqual(await asked, 7)
        self.assertIn("late", self.names())

    async def test_statements_are_prepared_once(self) -> None:
        db = await self.opened()
        sent: list[str] = []
        link = self.link(db)
        cursor = link._cursor

        class Recording:
            def __getattr__(self, name: str) -> Any:
                return getattr(cursor, name)

            def execute(self, sql: str, args: Any = None) -> None:
                sent.append(sql.partition(" ")[0])
                cursor.execute(sql, args)

        link._cursor = Recording()
        for number in range(3):
            await db.write_single(Note(f"{number}"))
        self.assertEqual(sent, ["PREPARE", "EXECUTE", "EXECUTE"])

    async def test_a_large_one_leaves_the_connection_as_it_was(self) -> None:
        """The reactor may find in one turn that there is room to write and something to read."""
        self.patch(single_postgres, "LARGEST", 10_000_000)
        db = await self.opened()
        before = self.link(db)
        for number in range(10):
            await db.write_single(Note(f"{number}", 0.0, "y" * 3_000_000))
            before.doWrite()
            before.doRead()
            self.assertIs(self.link(db), before)
