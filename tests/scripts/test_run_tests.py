"""Counting what trial says."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from scripts import run_tests
from scripts.run_tests import Count, FailedTests, count_of, modules_on_a_database, run_trial


class CountTests(TestCase):
    def test_summaries_of_trial(self) -> None:
        self.assertEqual(count_of("PASSED (successes=12)\n"), Count(12, 0, 0))
        self.assertEqual(count_of("PASSED (skips=1, successes=12)\n"), Count(12, 0, 1))
        self.assertEqual(
            count_of("FAILED (failures=1, errors=2, unexpectedSuccesses=4, successes=3)"),
            Count(3, 7, 0),
        )
        self.assertEqual(count_of("PASSED (expectedFailures=2, successes=1)"), Count(3, 0, 0))
        self.assertEqual(count_of("FAILED (errors=1)"), Count(0, 1, 0))

    def test_other_lines_are_not_counted(self) -> None:
        for line in ("", "Ran 3 tests in 0.1s", "PASSED the salt (successes=3)", "x PASSED"):
            self.assertIsNone(count_of(line))

    def test_the_last_line(self) -> None:
        self.assertEqual(str(Count(3, 0, 0)), "3 passed, 0 failed")
        self.assertEqual(str(Count(3, 1, 2)), "3 passed, 1 failed, 2 skipped")

    def test_tests_of_whole_servers_run_on_each_database(self) -> None:
        found = modules_on_a_database()
        self.assertIn("tests.homeserver.test_app", found)
        self.assertNotIn("tests.config.test_load", found)


PROBLEMS = """\
===============================================================================
[SKIPPED]
not here

tests.a.test_a.ATest.test_skipped
===============================================================================
[FAIL]
Traceback (most recent call last):
twisted.trial.unittest.FailTest: not equal

tests.a.test_a.ATest.test_one
tests.a.test_a.ATest.test_two
===============================================================================
[ERROR]
Traceback (most recent call last):
tests.support.network.Failure: it is over

tests.a.test_a.ATest.test_one
-------------------------------------------------------------------------------
"""


class FailedTestsTest(TestCase):
    def found(self, output: str) -> FailedTests:
        failed = FailedTests()
        for line in output.splitlines(keepends=True):
            failed.add(line)
        failed.end()
        return failed

    def test_names(self) -> None:
        failed = self.found(PROBLEMS)
        self.assertEqual(
            failed.names, ["tests.a.test_a.ATest.test_one", "tests.a.test_a.ATest.test_two"]
        )
        self.assertTrue(failed.may_run_again)

    def test_what_is_not_run_again(self) -> None:
        self.assertFalse(self.found("").may_run_again)
        self.assertFalse(self.found(PROBLEMS + "[ERROR]\nthe process ended\n").may_run_again)
        many = "".join(f"tests.a.test_a.ATest.test_{number}\n" for number in range(4))
        self.assertFalse(self.found("[FAIL]\n" + many).may_run_again)


UNSTEADY = """
import os
from twisted.trial.unittest import TestCase

class UnsteadyTest(TestCase):
    def test_at_first(self):
        if not os.path.exists({path!r}):
            open({path!r}, "w").close()
            self.fail("at first")

    def test_always(self):
        self.assertFalse({always!r})

    def test_good(self):
        pass
"""


class AgainTest(TestCase):
    def run_tests(self, *, always: bool) -> Count:
        """Count of a run of three tests, one of which fails the first time."""
        root = Path(self.mktemp()).resolve()
        package = root / "tests" / "scripts"
        package.mkdir(parents=True)
        for directory in (package, package.parent):
            (directory / "__init__.py").write_text("")
        text = UNSTEADY.format(path=str(root / "ran"), always=always)
        (package / "test_it.py").write_text(text)
        self.patch(run_tests, "ROOT", root)
        # What is printed here is not to be taken for that of the run which this test is part of.
        self.patch(sys, "stdout", io.StringIO())
        return run_trial("sqlite", ["tests"], {"PYTHONPATH": str(root)}, jobs=2)

    def test_it_passes_then(self) -> None:
        count = self.run_tests(always=False)
        self.assertEqual((count.passed, count.failed), (3, 0))
        name = "tests.scripts.test_it.UnsteadyTest.test_at_first (sqlite)"
        self.assertEqual(count.unsteady, [name])

    def test_it_fails_again(self) -> None:
        count = self.run_tests(always=True)
        self.assertEqual((count.passed, count.failed), (1, 2))
        self.assertEqual(count.unsteady, [])
