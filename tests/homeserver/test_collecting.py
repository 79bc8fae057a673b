"""Python's garbage collector while large states are in hand."""

from __future__ import annotations

import gc

from twisted.trial.unittest import TestCase

from homeserver import collecting


class CollectingTest(TestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(700, 7, 5)

    def test_collections_are_rarer_until_the_last_one_is_done(self) -> None:
        one, other = collecting.large_states(), collecting.large_states()
        one.__enter__()
        self.assertEqual(gc.get_threshold(), (collecting.MANY, 7, 5))
        other.__enter__()
        one.__exit__(None, None, None)
        self.assertEqual(gc.get_threshold(), (collecting.MANY, 7, 5))
        other.__exit__(None, None, None)
        self.assertEqual(gc.get_threshold(), (700, 7, 5))

    def test_a_failure_ends_it(self) -> None:
        with self.assertRaises(ValueError), collecting.large_states():
            raise ValueError
        self.assertEqual(gc.get_threshold(), (700, 7, 5))

    def test_what_was_rarer_stays_so(self) -> None:
        for first in (0, collecting.MANY + 1):
            gc.set_threshold(first, 7, 5)
            with collecting.large_states():
                self.assertEqual(gc.get_threshold(), (first, 7, 5))
            self.assertEqual(gc.get_threshold(), (first, 7, 5))

    def test_objects_in_use_are_not_looked_at(self) -> None:
        began: list[int] = []

        def note(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                began.append(info["generation"])

        gc.collect()
        gc.callbacks.append(note)
        self.addCleanup(gc.callbacks.remove, note)
        kept: list[list[int]] = []
        with collecting.large_states():
            began.clear()
            kept += [[] for _ in range(50_000)]
            self.assertEqual(began, [])
            kept += [[] for _ in range(collecting.MANY)]
            self.assertNotEqual(began, [])
