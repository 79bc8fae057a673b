"""Every point query finds its rows by an index."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Any

import storage
from storage.point_query import PointQuery
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database

ONE_ROW = {"clock", "c", "u", "CONSTANT", "json_each"}
"""The clock, what is made of arguments, and what they are called in statements."""
FIRST_ONLY = {
    "storage.user_news.newest": {"membership_log", "device_list_changes", "profile_changes"}
    | {"receipts"}
}
"""Tables of which a query takes the last row, in the order in which they are stored."""


def declared() -> dict[str, PointQuery[..., Any]]:
    """All point queries, by module and name."""
    found = {}
    for module in pkgutil.iter_modules(storage.__path__, "storage."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, PointQuery) and value.__module__ == module.name:
                found[f"{module.name}.{name}"] = value
    return found


EXAMPLES: dict[str, Any] = {
    "str": "x",
    "str | None": "x",
    "bytes": b"x",
    "int": 1,
    "bool": True,
    "list[str]": ["x"],
    "list[int]": [1],
    "Form": ("x", 1, 1, "x", True),
    "Connection": ("x", "x", "x"),
}
"""Arguments by the annotation of the parameter."""


def example(query: PointQuery[..., Any]) -> list[Any]:
    """Arguments of the right types."""
    parameters = inspect.signature(query.arguments).parameters.values()
    return [EXAMPLES[parameter.annotation] for parameter in parameters]


@on_each_database
class QueryPlansTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open()

    def plan(self, txn: Transaction, query: PointQuery[..., Any]) -> str:
        args = query.given(txn.dialect, *example(query))
        if txn.dialect.name == "sqlite":
            return "\n".join(row[3] for row in txn.all(f"EXPLAIN QUERY PLAN {query.sqlite}", args))
        # Of tables without rows it reads all otherwise.
        txn.execute("SET LOCAL enable_seqscan = off")
        return "\n".join(row[0] for row in txn.all(f"EXPLAIN {query.postgres}", args))

    async def test_no_table_is_read_as_a_whole(self) -> None:
        queries = declared()
        self.assertGreater(len(queries), 10)
        for name, query in queries.items():
            plan = await self.db.write(self.plan, query)
            scanned = set(re.findall(r"(?:SCAN|Seq Scan on) (\w+)", plan))
            first_only = FIRST_ONLY.get(name, set()) if self.kind == "sqlite" else set()
            self.assertEqual(scanned - ONE_ROW - first_only, set(), f"{name}:\n{plan}")
            if first_only:
                self.assertNotIn("TEMP B-TREE", plan)

    async def test_all_of_them_run_in_both_ways(self) -> None:
        for name, declaration in declared().items():
            args = example(declaration)
            query = PointQuery(declaration.postgres, declaration.arguments, list, declaration.most)
            expected = await self.db.read(query, *args)
            for _ in range(3):
                self.assertEqual(await self.db.query(query, *args), expected, name)
