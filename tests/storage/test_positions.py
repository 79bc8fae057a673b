"""Which positions a process has taken in."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from storage.positions import Positions


class PositionsTest(SynchronousTestCase):
    def test_own_commits_in_line_are_applied_at_once(self) -> None:
        positions = Positions(10)
        positions.own_commit(11, 11)
        positions.own_commit(12, 15)
        self.assertEqual((positions.applied, positions.behind), (15, False))

    def test_own_commits_told_out_of_order_wait_for_each_other(self) -> None:
        positions = Positions(0)
        positions.own_commit(3, 4)
        positions.own_commit(2, 2)
        self.assertEqual((positions.applied, positions.behind), (0, True))
        positions.own_commit(1, 1)
        self.assertEqual((positions.applied, positions.behind), (4, False))
        positions.looked(4)
        self.assertEqual(positions.foreign, 0)

    def test_a_gap_is_closed_by_a_look(self) -> None:
        positions = Positions(0)
        positions.own_commit(3, 3)
        positions.looked(2)
        self.assertEqual((positions.applied, positions.foreign), (3, 2))

    def test_what_others_tell_is_known_but_not_applied(self) -> None:
        positions = Positions(5)
        positions.heard_of(9)
        self.assertEqual((positions.applied, positions.known, positions.behind), (5, 9, True))
        positions.looked(9)
        self.assertFalse(positions.behind)

    def test_an_old_look_changes_nothing(self) -> None:
        positions = Positions(5)
        positions.own_commit(6, 6)
        positions.looked(5)
        self.assertEqual((positions.applied, positions.foreign), (6, 5))

    def test_a_look_that_covers_own_commits_only_finds_no_others(self) -> None:
        positions = Positions(0)
        positions.own_commit(2, 3)
        positions.looked(3)
        self.assertEqual(positions.foreign, 3)
        positions = Positions(0)
        positions.looked(1)
        positions.own_commit(2, 3)
        positions.looked(3)
        self.assertEqual(positions.foreign, 1)

    @given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12), st.randoms())
    def test_any_order_of_news_ends_at_the_clock(
        self, commits: list[tuple[int, bool]], r: Random
    ) -> None:
        pos, own = 0, []
        for size, is_own in commits:
            if is_own:
                own.append((pos + 1, pos + size))
            pos += size
        r.shuffle(own)
        positions = Positions(0)
        for first, last in own:
            positions.own_commit(first, last)
            self.assertLessEqual(positions.applied, pos)
        only_own = all(is_own for _, is_own in commits)
        self.assertEqual(positions.applied == pos, only_own or not pos)
        positions.looked(pos)
        self.assertEqual((positions.applied, positions.behind), (pos, False))
        self.assertEqual(positions.foreign > 0, not only_own)
