"""Counting what trial says."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from scripts.run_tests import Count, count_of, modules_on_a_database


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
