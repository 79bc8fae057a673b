"""What is read of many rooms at once is found by their numbers, however much there is of others,
and whether PostgreSQL has statistics or not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from homeserver.core.push_volume import Volume
from homeserver.core.types import StateKey
from storage import relations, shown, unread, windows
from storage.postgres import PostgresTransaction
from storage.rooms import RoomRow
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database

ROOMS = list(range(1, 101))
NAMES = {number: ["@a:x", "@b:x"] for number in ROOMS}
KEYS: list[StateKey] = [("m.room.name", ""), ("m.room.avatar", "")]


@on_each_database
class PlansTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()
        if self.kind != "postgres":
            self.skipTest("SQLite has no such choice: it takes the index that fits best.")

    async def plans(self, work: Callable[[Transaction], object]) -> list[str]:
        """The plans of what is asked for in a transaction."""

        asked: list[tuple[str, Any]] = []
        ask = PostgresTransaction.all

        def recorded(txn: PostgresTransaction, sql: str, args: Any = ()) -> Any:
            asked.append((sql, args))
            return ask(txn, sql, args)

        def explain(txn: Transaction) -> list[str]:
            # Of tables without rows it reads all otherwise.
            txn.execute("SET LOCAL enable_seqscan = off")
            return [
                "\n".join(row[0] for row in txn.all(f"EXPLAIN {sql}", args)) for sql, args in asked
            ]

        patched = self.patch(PostgresTransaction, "all", recorded)
        await self.db.read(work)
        patched.restore()
        found = await self.db.write(explain)
        self.assertTrue(found)
        return found

    async def check(self, work: Callable[[Transaction], object], table: str, column: str) -> None:
        """The table is read by conditions that have the column, one room or event at a time."""
        for plan in await self.plans(work):
            self.assertNotIn("Hash", plan)
            self.assertNotRegex(plan, rf"Seq Scan on {table}\b")
            lines = plan.splitlines()
            reads = [n for n, line in enumerate(lines) if re.search(rf"using {table}_\w+ on", line)]
            reads += [n for n, line in enumerate(lines) if f"Index Scan on {table}_" in line]
            self.assertTrue(reads, plan)
            for number in reads:
                self.assertRegex(lines[number + 1], rf"Index Cond: .*\b{column} = ", plan)

    async def test_state(self) -> None:
        await self.check(
            lambda txn: windows.current_state(txn, ROOMS, KEYS, ["m.space.child"]),
            "current_state",
            "room_nid",
        )
        await self.check(
            lambda txn: shown.current(txn, ROOMS, 10, without="m.room.member"),
            "current_state",
            "room_nid",
        )

    async def test_members(self) -> None:
        await self.check(
            lambda txn: windows.current_members(txn, NAMES), "current_state", "room_nid"
        )
        await self.check(lambda txn: list(shown.members(txn, NAMES)), "current_state", "room_nid")

    async def test_relations(self) -> None:
        ids = [f"${number}" for number in range(1000)]
        await self.check(lambda txn: relations.with_children(txn, ids), "events", r"\(?relates_to")

    async def test_unread_threads(self) -> None:
        """They are not looked for among all that notifies, by the index of who sent it."""
        rows = [RoomRow(n, f"!{n}", "11", 1, 1, (), None, 1, 0, 0, 9, 0, 0) for n in ROOMS]
        asked = [unread.Asked(row, 0, {}, Volume.EVERYTHING) for row in rows]
        (plan,) = await self.plans(lambda txn: unread._starts(txn, "@a:x", asked))
        own = re.findall(r"using events_own on .*\n *(.*)", plan)
        self.assertTrue(own)
        for condition in own:
            self.assertIn("sender = ", condition)
