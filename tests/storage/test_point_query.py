"""Point queries through `storage.database`, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from storage import direct_sqlite
from storage.database import Database, sleep
from storage.errors import DatabaseClosed, InvalidText
from storage.point_query import PointQuery, point_query
from storage.transaction import Row, Transaction
from tests.support.databases import DatabaseTestCase, on_each_database, reactor


def _value(rows: list[Row]) -> int | None:
    return rows[0][0] if rows else None


@point_query("SELECT value FROM counters WHERE name = ?", _value)
def value_of(name: str) -> Sequence[Any]:
    """The value of a counter."""
    return (name,)


@point_query("SELECT name, value FROM counters WHERE name = ANY(?)", dict, most=10)
def values_of(names: list[str]) -> Sequence[Any]:
    """The values of several counters."""
    return (names,)


@point_query("SELECT name FROM counters WHERE value > ?", len, most=2)
def how_many(over: int) -> Sequence[Any]:
    """How many counters are over a number."""
    return (over,)


def put(txn: Transaction, name: str, value: int) -> None:
    txn.execute(
        "INSERT INTO counters (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


async def until_direct(db: Database, query: PointQuery[[str], Any] = value_of) -> None:
    """Ask until the answer comes without a thread."""
    before = db.queries.direct[query.__qualname__]
    for _ in range(1000):
        await db.query(query, "nobody")
        if db.queries.direct[query.__qualname__] > before:
            return
        await sleep(reactor, 0.005)
    raise AssertionError("No query is answered without a thread.")


@on_each_database
class PointQueryTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()

    async def test_what_is_there_is_found(self) -> None:
        await self.db.write(put, "a", 5)
        await until_direct(self.db)
        self.assertEqual(await self.db.query(value_of, "a"), 5)
        self.assertIsNone(await self.db.query(value_of, "b"))
        self.assertEqual(await self.db.query(value_of, name="a"), 5)

    async def test_as_part_of_a_transaction(self) -> None:
        def both(txn: Transaction) -> tuple[int | None, dict[str, int]]:
            put(txn, "a", 7)
            return value_of(txn, "a"), values_of(txn, ["a", "b"])

        self.assertEqual(await self.db.write(both), (7, {"a": 7}))

    async def test_lists(self) -> None:
        names = ["plain", 'quo"te', "apos'trophe", "back\\slash", "{,}", "", "käse", "NULL", "%s"]
        for number, name in enumerate(names):
            await self.db.write(put, name, number)
        await until_direct(self.db)
        wanted = {name: number for number, name in enumerate(names)}
        self.assertEqual(await self.db.query(values_of, names), wanted)
        self.assertEqual(
            await self.db.query(values_of, [*names[:2], "none", "n\x00l"]),
            {name: wanted[name] for name in names[:2]},
        )
        self.assertEqual(await self.db.query(values_of, []), {})
        self.assertEqual(await self.db.read(values_of, names), wanted)

    async def test_own_writes_are_seen(self) -> None:
        # However slow the machine is.
        self.patch(direct_sqlite, "SLOW", 60.0)
        await until_direct(self.db)
        for number in range(200):
            await self.db.write(put, "a", number)
            self.assertEqual(await self.db.query(value_of, "a"), number)
        self.assertGreater(self.db.queries.direct[value_of.__qualname__], 190)

    async def test_own_writes_are_seen_beside_what_finds_much(self) -> None:
        """A statement that is not read to its end does not keep an old snapshot."""
        await until_direct(self.db)
        for number in range(20):
            await self.db.write(put, f"n{number}", number + 1)
            self.assertEqual(await self.db.query(how_many, 0), number + 1)
            self.assertEqual(await self.db.query(value_of, f"n{number}"), number + 1)

    async def test_a_commit_is_seen_by_its_effects(self) -> None:
        found: list[Deferred[int | None]] = []

        def write(txn: Transaction, number: int) -> None:
            put(txn, "a", number)
            txn.after_commit(lambda: found.append(ensureDeferred(self.db.query(value_of, "a"))))

        await until_direct(self.db)
        for number in range(20):
            await self.db.write(write, number)
            self.assertEqual(await found[-1], number)

    async def test_many_at_once_are_answered_each_with_its_own(self) -> None:
        for number in range(20):
            await self.db.write(put, f"n{number}", number)
        await until_direct(self.db)
        asked = [ensureDeferred(self.db.query(value_of, f"n{i % 20}")) for i in range(400)]
        self.assertEqual(await gatherResults(asked), [i % 20 for i in range(400)])

    async def test_text_that_cannot_be_stored_is_refused(self) -> None:
        await until_direct(self.db)
        for text in ("nul\x00", "lone \ud800"):
            with self.assertRaises(InvalidText):
                await self.db.query(value_of, text)
        await until_direct(self.db)

    async def test_it_cannot_write(self) -> None:
        query = point_query(
            "INSERT INTO counters (name, value) VALUES (?, 1) RETURNING value", _value
        )(lambda name: (name,))
        with self.assertRaisesRegex(Exception, "read-?only"):
            await self.db.query(query, "a")
        self.assertIsNone(await self.db.query(value_of, "a"))

    async def test_a_statement_that_fails_is_told_as_by_a_transaction(self) -> None:
        await until_direct(self.db)
        wrong = point_query("SELECT value FROM no_such_table WHERE name = ?", _value)(
            lambda name: (name,)
        )
        for _ in range(3):
            with self.assertRaisesRegex(Exception, "no_such_table"):
                await self.db.query(wrong, "a")
        await self.db.write(put, "a", 1)
        self.assertEqual(await self.db.query(value_of, "a"), 1)

    async def test_what_the_caller_makes_of_it_may_fail(self) -> None:
        def fail(rows: list[Row]) -> None:
            raise LookupError("not what was hoped for")

        failing = point_query("SELECT value FROM counters WHERE name = ?", fail)(lambda n: (n,))
        await until_direct(self.db)
        with self.assertRaises(LookupError):
            await self.db.query(failing, "a")
        await until_direct(self.db)

    async def test_a_table_that_changes(self) -> None:
        query = point_query("SELECT * FROM counters WHERE name = ?", list)(lambda name: (name,))
        await self.db.write(put, "a", 1)
        await until_direct(self.db, query)
        self.assertEqual(await self.db.query(query, "a"), [("a", 1)])
        await self.db.write(lambda txn: txn.execute("ALTER TABLE counters ADD COLUMN more BIGINT"))
        self.assertEqual(await self.db.query(query, "a"), [("a", 1, None)])
        await until_direct(self.db, query)
        self.assertEqual(await self.db.query(query, "a"), [("a", 1, None)])

    async def test_a_closed_database_is_not_asked(self) -> None:
        db = await self.open()
        await until_direct(db)
        asked = [ensureDeferred(db.query(value_of, "a")) for _ in range(20)]
        await db.close()
        self.assertEqual(await gatherResults(asked), [None] * 20)
        with self.assertRaises(DatabaseClosed):
            await db.query(value_of, "a")

    async def test_a_database_that_was_never_asked_is_closed(self) -> None:
        db = await self.open()
        await db.close()
        db = await self.open()
        asked = ensureDeferred(db.query(value_of, "a"))
        await db.close()
        self.assertIsNone(await asked)
