"""Statements that wait for the next one, and what is sent with what."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.trial.unittest import TestCase

from storage.database import Database, backend_for
from storage.errors import ConnectionLost, IntegrityViolation
from storage.transaction import Transaction
from tests.storage.test_postgres import PostgresTestCase, end_connections, everything
from tests.support.databases import migrated_database, open_test_database

INSERT = "INSERT INTO counters (name, value) VALUES (?, ?)"
UPDATE = "UPDATE counters SET value = value + ? WHERE name = ?"


class LaterTest(TestCase):
    """On every kind of database."""

    async def opened(self) -> Database:
        return await open_test_database(self)

    async def test_it_is_done_before_what_comes_next(self) -> None:
        def work(txn: Transaction) -> list[Any]:
            txn.later(INSERT, ("a", 1))
            txn.later(UPDATE, (5, "a"))
            seen: list[Any] = [everything(txn)]
            txn.later(UPDATE, (7, "a"))
            txn.many(INSERT, [(f"many {number}", number) for number in range(20)])
            seen.append(len(everything(txn)))
            txn.later(UPDATE, (1, "a"))
            txn.many(UPDATE, [(10, "a"), (20, "a")])
            seen.append(everything(txn)["a"])
            return seen

        db = await self.opened()
        self.assertEqual(await db.write(work), [{"a": 6}, 21, 44])

    async def test_it_is_done_before_the_end(self) -> None:
        def work(txn: Transaction) -> None:
            txn.later(INSERT, ("a", 1))
            txn.later(INSERT, ("50 % of it", 2))

        db = await self.opened()
        await db.write(work)
        self.assertEqual(await db.read(everything), {"a": 1, "50 % of it": 2})

    async def test_it_is_done_before_a_position_is_taken(self) -> None:
        def work(txn: Transaction) -> int:
            txn.later("UPDATE clock SET pos = pos + 10")
            pos = txn.next_pos(2)
            txn.later(INSERT, ("a", pos))
            return pos

        db = await self.opened()
        self.assertEqual(await db.write(work), 12)
        self.assertEqual(await db.read(everything), {"a": 12})

    async def test_if_it_fails_nothing_is_committed(self) -> None:
        def fails_at_the_end(txn: Transaction) -> None:
            txn.execute(INSERT, ("a", 1))
            txn.later(INSERT, ("b", 1))
            txn.later(INSERT, ("a", 2))
            txn.later(INSERT, ("c", 1))

        def fails_before(txn: Transaction) -> dict[str, int]:
            txn.later(INSERT, ("a", 1))
            txn.later(INSERT, ("a", 2))
            return everything(txn)

        db = await self.opened()
        for work in (fails_at_the_end, fails_before):
            with self.assertRaises(IntegrityViolation):
                await db.write(work)
            self.assertEqual(await db.read(everything), {})
        await db.write(lambda txn: txn.later(INSERT, ("a", 3)))
        self.assertEqual(await db.read(everything), {"a": 3})

    async def test_who_gives_up_has_done_nothing(self) -> None:
        def work(txn: Transaction) -> None:
            txn.later(INSERT, ("a", 1))
            raise KeyError("a")

        db = await self.opened()
        with self.assertRaises(KeyError):
            await db.write(work)
        self.assertEqual(await db.read(everything), {})

    async def test_much_need_not_wait(self) -> None:
        def work(txn: Transaction) -> None:
            for number in range(40):
                txn.later(INSERT, (str(number) * 3000, number))

        db = await self.opened()
        await db.write(work)
        self.assertEqual(len(await db.read(everything)), 40)


class MessagesTest(PostgresTestCase):
    """What PostgreSQL gets."""

    def opened(self) -> tuple[Any, list[bytes], str]:
        url = migrated_database(self, "postgres")
        session: Any = backend_for(url).connect(writable=True)
        self.addCleanup(session.close)
        sent: list[bytes] = []
        self.patch(session, "_cursor", Listening(session._cursor, sent))
        return session, sent, url

    def test_what_has_no_result_is_sent_with_what_comes_next(self) -> None:
        session, sent, _ = self.opened()
        txn = session.begin()
        txn.later(INSERT, ("a", 1))
        pos = txn.next_pos()
        txn.later(INSERT, ("b", pos))
        txn.many(INSERT, [(f"many {number}", number) for number in range(20)])
        txn.later(UPDATE, (1, "a"))
        session.commit()
        self.assertEqual(
            [message.count(b"; ") for message in sent],
            [2, 1, 1],
            "BEGIN, INSERT, UPDATE of the clock; INSERT, COPY; UPDATE, COMMIT",
        )
        self.assertEqual(txn.statements, 5)
        txn = session.begin()
        self.assertEqual((everything(txn)["a"], len(everything(txn))), (2, 22))

    def test_nothing_is_sent_where_nothing_is_done(self) -> None:
        session, sent, _ = self.opened()
        session.begin()
        session.commit()
        session.begin()
        session.rollback()
        self.assertEqual(sent, [])

    def test_who_has_written_gets_a_number_before_the_end(self) -> None:
        session, sent, _ = self.opened()
        session.begin().later(INSERT, ("a", 1))
        session.commit()
        self.assertEqual(len(sent), 2)
        self.assertIsNotNone(session._transaction_id)
        everything(session.begin())
        session.commit()
        self.assertIsNone(session._transaction_id, "it has written nothing")

    async def test_nothing_is_committed_after_an_error_that_was_caught(self) -> None:
        """Without positions, with what waits, and where the function goes on."""

        def careless(txn: Transaction, after: str) -> None:
            txn.execute(INSERT, ("a", 1))
            with contextlib.suppress(IntegrityViolation):
                txn.execute(INSERT, ("a", 1))
            if after == "later":
                txn.later(INSERT, ("b", 1))
            elif after:
                txn.execute(INSERT, ("b", 1))

        db = await open_test_database(self, "postgres")
        for after in ("", "later", "at once"):
            with self.assertRaises(IntegrityViolation):
                await db.write(careless, after)
            self.assertEqual(await db.read(everything), {})

    def test_a_connection_that_is_lost_before_the_number_is_known(self) -> None:
        """COMMIT was not sent: it is certain that nothing is committed."""
        session, _, url = self.opened()
        session.begin().later(INSERT, ("a", 1))
        end_connections(url)
        with self.assertRaises(ConnectionLost):
            session.commit()


class Listening:
    """A cursor of which is written down what it sends."""

    def __init__(self, cursor: Any, sent: list[bytes]) -> None:
        self._cursor = cursor
        self._sent = sent

    def execute(self, statement: Any, args: Any = None) -> None:
        self._sent.append(statement)
        self._cursor.execute(statement, args)

    def copy_expert(self, statement: Any, source: Any, size: int) -> None:
        self._sent.append(statement)
        self._cursor.copy_expert(statement, source, size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)
