"""No operation asks the database more often than its budget allows.

`statements.json` has for each operation, and each database, how many transactions it may take
(`hops`: each is a way to a thread and back) and how many statements, those of queries without a
transaction too. With HEARTH_LOWER_BUDGETS=1 the tests write down what has become less. Numbers rise
only by hand, with the reason in `why`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.guards import operations
from tests.guards.counting import Cost, Counted
from tests.support.databases import default_kind
from tests.support.server import make_server

PATH = Path(__file__).with_name("statements.json")


def budgets() -> dict[str, Any]:
    """By the name of the operation: `hops` and `statements` of each database, and `why`."""
    found: dict[str, Any] = json.loads(PATH.read_text("utf-8"))
    return found


class StatementsTest(TestCase):
    timeout = 60

    def check(self, costs: dict[str, Counted]) -> None:
        """Every operation has a budget, and keeps to it."""
        known = budgets()
        self.assertLessEqual(costs.keys(), known.keys(), "These have no budget.")
        kind = default_kind()
        over = []
        for name, counted in costs.items():
            budget = Cost(known[name]["hops"][kind], known[name]["statements"][kind])
            if counted.hops > budget.hops or counted.statements > budget.statements:
                over.append(f"{name}: {counted.cost}, budget {budget}: {dict(counted.names)}")
            known[name]["hops"][kind] = min(budget.hops, counted.hops)
            known[name]["statements"][kind] = min(budget.statements, counted.statements)
        if os.environ.get("HEARTH_LOWER_BUDGETS"):
            PATH.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", "utf-8")
        self.assertEqual(over, [])

    async def test_what_clients_do(self) -> None:
        self.check(await operations.of_clients(await make_server(self)))

    async def test_what_servers_do(self) -> None:
        self.check(await operations.of_servers(self))

    def test_budgets_have_reasons(self) -> None:
        for name, budget in budgets().items():
            self.assertEqual(budget.keys(), {"hops", "statements", "why"}, name)
            self.assertTrue(budget["why"].strip(), name)

    async def test_more_is_noticed(self) -> None:
        costs = {"typing": Counted(hops=1000, statements=1000)}
        with self.assertRaises(AssertionError):
            self.check(costs)
        with self.assertRaises(AssertionError):
            self.check({"no such operation": Counted()})
