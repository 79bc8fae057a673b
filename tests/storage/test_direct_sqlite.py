"""Point queries on SQLite: what may not hold the reactor up."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from storage import direct_sqlite
from storage.direct_sqlite import REST, SqliteDirect
from storage.point_query import point_query
from tests.storage.test_point_query import how_many, put, value_of
from tests.support.databases import chosen_kinds, open_test_database


@point_query(
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    " SELECT count(*) FROM n",
    lambda rows: int(rows[0][0]),
)
def count_to(number: int) -> Sequence[Any]:
    """As much work as one likes."""
    return (number,)


class DirectSqliteTest(TestCase):
    if "sqlite" not in chosen_kinds():
        skip = "SQLite is not among HEARTH_TEST_DATABASES"

    async def prepare(self) -> SqliteDirect:
        self.db = await open_test_database(self, "sqlite")
        direct = self.db._direct
        assert isinstance(direct, SqliteDirect)
        return direct

    def ways(self) -> tuple[int, int]:
        """How many queries ran directly, and how many in threads, since the last call."""
        counts = self.db.queries
        told = counts.direct.total(), counts.thread.total()
        counts.direct.clear()
        counts.thread.clear()
        return told

    async def test_no_thread_is_asked(self) -> None:
        await self.prepare()
        for _ in range(10):
            await self.db.query(value_of, "a")
        self.assertEqual(self.ways(), (10, 0))

    async def test_little_work_adds_up_to_nothing(self) -> None:
        await self.prepare()
        count = 2 * direct_sqlite.MOST_STEPS // 10
        for _ in range(count):
            await self.db.query(count_to, 3)
        self.assertEqual(self.ways(), (count, 0))

    async def test_many_rows_are_for_threads(self) -> None:
        await self.prepare()
        for number in range(3):
            await self.db.write(put, f"n{number}", 5)
        self.assertEqual(await self.db.query(how_many, 0), 3)
        self.assertEqual(self.ways(), (0, 1))
        self.assertEqual(await self.db.query(how_many, 5), 0)
        self.assertEqual(self.ways(), (1, 0))

    async def test_much_work_is_for_threads(self) -> None:
        await self.prepare()
        self.assertEqual(await self.db.query(count_to, 50), 50)
        self.assertEqual(self.ways(), (1, 0))
        self.assertEqual(await self.db.query(count_to, 100_000), 100_000)
        self.assertEqual(self.ways(), (0, 1))
        # Then for a while all of its kind, whatever they are, and no others.
        for _ in range(REST):
            self.assertEqual(await self.db.query(count_to, 50), 50)
        self.assertEqual(self.ways(), (0, REST))
        await self.db.query(count_to, 50)
        await self.db.query(value_of, "a")
        self.assertEqual(self.ways(), (2, 0))

    async def test_pages_that_are_not_in_memory_are_for_threads(self) -> None:
        direct = await self.prepare()
        times: list[float] = []
        direct._clock = lambda: times.pop(0) if times else 0.0
        slow = [0.0, 2 * direct_sqlite.SLOW]
        # One may have been interrupted by another process, now and then.
        for _ in range(3):
            times += slow
            for _ in range(1 + direct_sqlite.FEW):
                await self.db.query(value_of, "a")
        self.assertEqual(self.ways(), (3 + 3 * direct_sqlite.FEW, 0))
        times += slow + [0.0] * 10 + slow
        for _ in range(7):
            await self.db.query(value_of, "a")
        self.assertEqual(self.ways(), (7, 0))
        for _ in range(REST):
            await self.db.query(value_of, "a")
        self.assertEqual(self.ways(), (0, REST))
        await self.db.query(value_of, "a")
        self.assertEqual(self.ways(), (1, 0))

    def test_a_locked_database_does_not_stop_the_reactor(self) -> None:
        path = Path(self.mktemp()).resolve()
        other = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("CREATE TABLE counters (name TEXT, value BIGINT)")
        other.execute("INSERT INTO counters VALUES ('a', 1)")
        direct = SqliteDirect(path)
        self.addCleanup(direct.close)
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        self.assertIsNone(direct.rows(value_of, ("a",)))
        # It did not wait, as threads do for ten seconds, and goes on as soon as it can.
        self.assertLess(time.monotonic() - began, 5)
        other.execute("COMMIT")
        self.assertEqual(direct.rows(value_of, ("a",)), [(1,)])

    def test_a_database_that_cannot_be_opened_is_for_threads_to_tell_of(self) -> None:
        direct = SqliteDirect(Path(self.mktemp()) / "missing" / "hearth.db")
        self.assertIsNone(direct.rows(value_of, ("a",)))
        direct.close()
        self.assertIsNone(direct.rows(value_of, ("a",)))
