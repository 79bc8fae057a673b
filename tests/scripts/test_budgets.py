"""Budgets of core functions: what is too much, and what may be changed without a word."""

from __future__ import annotations

import json
import shutil
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scripts import budgets
from scripts.budgets import (
    Budgets,
    CannotMeasure,
    Costs,
    difference_of,
    instructions_of,
    problems,
    surroundings,
    updated,
)
from tests.guards import measured as measured_program
from tests.guards.functions import FUNCTIONS
from tests.guards.guarded import REFERENCE


def costs(instructions: float = 1000, blocks: float = 10, size: float = 5000) -> Costs:
    return {
        REFERENCE: {"instructions": 100_000},
        "f": {"instructions": instructions, "blocks": blocks, "bytes": size},
    }


class BudgetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.budgets = Budgets(surroundings(), costs())

    def test_within(self) -> None:
        for measured in (costs(), costs(1050), costs(500, 0, 10), costs(1000, 11, 5249)):
            self.assertEqual(problems(self.budgets, measured), [])

    def test_above(self) -> None:
        for measured, said in (
            (costs(1060), "f: 1,060 instructions, 6.0 % above 1,000"),
            (costs(1000, 12), "f: 12 blocks, 20.0 % above 10"),
            (costs(1000, 10, 6000), "f: 6,000 bytes, 20.0 % above 5,000"),
        ):
            self.assertEqual(problems(self.budgets, measured), [said])

    def test_no_blocks_at_all(self) -> None:
        self.budgets.costs["f"]["blocks"] = 0
        self.assertEqual(problems(self.budgets, costs(blocks=1)), [])
        self.assertEqual(len(problems(self.budgets, costs(blocks=2))), 1)

    def test_new_and_gone(self) -> None:
        measured = {**costs(), "g": {"instructions": 1.0}}
        self.assertEqual(len(problems(self.budgets, measured)), 1)
        del measured["f"], measured["g"]
        self.assertEqual(problems(self.budgets, measured), ["f has a budget and is no more"])

    def test_falls_by_itself(self) -> None:
        new, refused = updated(self.budgets, costs(900, 9, 4000), None)
        self.assertEqual((new.costs, refused), (costs(900, 9, 4000), []))

    def test_does_not_creep(self) -> None:
        """What is used of the headroom is not added to the budget."""
        new, refused = updated(self.budgets, costs(1040), None)
        self.assertEqual((new.costs, refused), (costs(1000), []))

    def test_rises_with_a_reason(self) -> None:
        new, refused = updated(self.budgets, costs(2000, 9), None)
        self.assertEqual((new.costs, new.reasons), (costs(1000, 9), {}))
        self.assertEqual(refused, ["f: 2,000 instructions instead of 1,000"])
        new, refused = updated(self.budgets, costs(2000, 9), "it does more")
        self.assertEqual((new.costs, new.reasons), (costs(2000, 9), {"f": "it does more"}))
        self.assertEqual(refused, [])
        again, _ = updated(new, costs(1500, 9), None)
        self.assertEqual((again.costs, again.reasons), (costs(1500, 9), {"f": "it does more"}))

    def test_new_functions_need_no_reason(self) -> None:
        new, refused = updated(self.budgets, {**costs(), "g": {"instructions": 5}}, None)
        self.assertEqual((new.costs["g"], refused), ({"instructions": 5}, []))

    def test_another_python(self) -> None:
        """Figures of another build, version or machine are not compared."""
        here = surroundings()
        self.assertIsNone(difference_of(self.budgets, here, costs()))
        for name in ("python", "orjson", "machine"):
            self.assertIn(name, difference_of(self.budgets, {**here, name: "x"}, costs()) or "")
        other = costs()
        other[REFERENCE]["instructions"] *= 1.02
        self.assertIn("built", difference_of(self.budgets, here, other) or "")
        other[REFERENCE]["instructions"] *= 0.99
        self.assertIsNone(difference_of(self.budgets, here, other))

    def test_counting(self) -> None:
        lines = [
            json.dumps({"name": "f", "calls": 10, "process": 1}),
            json.dumps({"name": "f", "calls": 20, "process": 2}),
        ]
        self.assertEqual(list(instructions_of(lines, {1: 5000, 2: 9005})), [("f", 400)])


class CommandTests(SynchronousTestCase):
    """The command, with measurements that are given."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.measured = costs()
        self.patch(budgets, "measure", lambda: self.measured)
        self.patch(budgets, "BUDGETS", self.path)
        self.printed = StringIO()
        self.patch(sys, "stdout", self.printed)

    def run_it(self, *arguments: str) -> int:
        return budgets.main(list(arguments))

    def last(self) -> str:
        return self.printed.getvalue().splitlines()[-1]

    def stored(self) -> Any:
        return json.loads(self.path.read_text())["functions"]["f"]

    def test_life(self) -> None:
        self.assertEqual(self.run_it("--check"), 0)
        self.assertIn("Not compared", self.last())
        self.assertEqual(self.run_it("--update"), 0)
        self.assertEqual(self.run_it("--check"), 0)
        self.assertIn("all within", self.last())
        self.measured = costs(1200)
        self.assertEqual(self.run_it(), 0)
        self.assertEqual(self.run_it("--check"), 1)
        self.assertIn("20.0 % above", self.last())
        self.assertEqual(self.run_it("--update"), 1)
        self.assertEqual(self.stored()["instructions"], 1000)
        self.assertEqual(self.run_it("--update", "--reason", "more rules"), 0)
        self.assertEqual(self.stored()["reason"], "more rules")
        self.assertEqual(self.run_it("--check"), 0)

    def test_another_python(self) -> None:
        self.run_it("--update")
        self.patch(budgets, "surroundings", lambda: {**surroundings(), "python": "Python 9"})
        self.measured = costs(5000)
        self.assertEqual(self.run_it("--check"), 0)
        self.assertIn("Python 9", self.last())
        self.assertEqual(self.run_it("--update"), 1)
        self.assertEqual(self.stored()["instructions"], 1000)
        self.assertEqual(self.run_it("--update", "--reason", "Python 9"), 0)
        self.assertEqual(self.stored()["instructions"], 5000)
        self.assertEqual(self.run_it("--check"), 0)

    def test_no_valgrind(self) -> None:
        def measure() -> Costs:
            raise CannotMeasure("there is no Valgrind")

        self.patch(budgets, "measure", measure)
        self.assertEqual(self.run_it("--check"), 0)
        self.assertEqual(self.printed.getvalue(), "Not measured: there is no Valgrind\n")


class FunctionTests(SynchronousTestCase):
    """The functions themselves."""

    def test_they_do_the_same_again(self) -> None:
        for name, guarded in FUNCTIONS.items():
            work = guarded.make()
            first = work()
            self.assertEqual(work(), first, name)

    def test_they_have_budgets(self) -> None:
        self.assertEqual(set(Budgets.read().costs), set(FUNCTIONS))

    def test_allocations(self) -> None:
        """What is kept is counted, what is let go of is not; the most at a time is."""
        kept = measured_program._kept(lambda: [object() for _ in range(10)])
        self.assertGreaterEqual(kept, 10)
        self.assertLess(kept, 14)
        self.assertLess(measured_program._kept(lambda: len([object() for _ in range(10)])), 2)
        self.assertGreater(measured_program._most(lambda: len(bytes(100_000))), 100_000)

    def test_no_valgrind(self) -> None:
        """Where it cannot be installed there is a reason, and no figure."""
        self.patch(shutil, "which", lambda name: None)
        self.patch(budgets, "install_packages", lambda names: f"Install {names[0]}.")
        with self.assertRaises(CannotMeasure) as caught:
            budgets.find_valgrind()
        self.assertEqual(str(caught.exception), "there is no Valgrind. Install valgrind.")

    def test_results_are_what_they_should_be(self) -> None:
        """What is measured is the function at work, not an error on its way."""
        wanted = FUNCTIONS["filter of a timeline"].make()()
        self.assertEqual(wanted, (True, False, False))
        resolved = FUNCTIONS["state resolution, version 2"].make()()
        assert isinstance(resolved, dict)
        self.assertIn(("m.room.topic", ""), resolved)
        self.assertGreater(len(resolved), 24)
        answer = FUNCTIONS["a whole request"].make()()
        assert isinstance(answer, bytes)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        differences = FUNCTIONS["state tree, difference"].make()()
        assert isinstance(differences, dict)
        self.assertEqual(len(differences), 5)
