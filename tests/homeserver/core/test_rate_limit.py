"""Token buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.core.rate_limit import MAX_RETRY_AFTER_MS, full_at_ms, take


class TakeTests(SynchronousTestCase):
    def test_burst_then_refusal(self) -> None:
        level, last = 3.0, 1000
        for _ in range(3):
            decision = take(level, last, 1000, 0.5, 3)
            self.assertTrue(decision.allowed)
            level, last = decision.level, decision.last_ms
        refused = take(level, last, 1000, 0.5, 3)
        self.assertEqual(refused, (False, 0.0, 1000, 2000))

    def test_refills_to_the_burst_only(self) -> None:
        self.assertEqual(take(0, 0, 10_000_000, 1, 5).level, 4)

    def test_a_refusal_takes_nothing(self) -> None:
        decision = take(0.5, 0, 0, 1, 5)
        self.assertEqual((decision.allowed, decision.level), (False, 0.5))
        self.assertEqual(decision.retry_after_ms, 500)

    def test_clock_going_backwards(self) -> None:
        decision = take(0, 5000, 1000, 1, 5)
        self.assertEqual(decision, (False, 0.0, 1000, 1000))

    def test_no_refill(self) -> None:
        self.assertTrue(take(1, 0, 0, 0, 1).allowed)
        self.assertEqual(take(0, 0, 10**9, 0, 1), (False, 0, 10**9, MAX_RETRY_AFTER_MS))
        self.assertFalse(take(0, 0, 10**9, 1, 0).allowed)

    def test_cost_above_the_burst_takes_it_all(self) -> None:
        self.assertEqual(take(2, 0, 0, 1, 2, cost=10)[:2], (True, 0.0))

    def test_the_wait_told_is_bounded(self) -> None:
        for rate in (1e-9, 5e-324):
            self.assertEqual(take(0, 0, 0, rate, 1).retry_after_ms, MAX_RETRY_AFTER_MS)
        self.assertIsNone(full_at_ms(0, 0, 5e-324, 1))

    @given(
        st.floats(-1, 20),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.floats(-1, 100),
        st.floats(0, 10),
        st.floats(0, 20),
    )
    def test_takes_from_what_is_there(
        self, level: float, last: int, now: int, rate: float, burst: float, cost: float
    ) -> None:
        gained = max(0, now - last) * max(0.0, rate) / 1000
        there = min(burst, max(0.0, level) + gained)
        decision = take(level, last, now, rate, burst, cost)
        cost = min(cost, burst)
        self.assertEqual(decision.allowed, burst > 0 and there + 1e-6 >= cost)
        self.assertEqual(decision.level, max(0.0, there - cost) if decision.allowed else there)

    @given(
        st.floats(0, 10),
        st.floats(0.01, 1000),
        st.floats(1, 10),
        st.floats(0.1, 5),
        st.integers(0, 2**45),
    )
    def test_waiting_as_told_is_enough(
        self, level: float, rate: float, burst: float, cost: float, now: int
    ) -> None:
        first = take(level, now, now, rate, burst, cost)
        if first.allowed:
            return
        again = now + first.retry_after_ms
        self.assertTrue(take(first.level, first.last_ms, again, rate, burst, cost).allowed)


class ForgetTests(SynchronousTestCase):
    def test_when_full_again(self) -> None:
        self.assertEqual(full_at_ms(5, 100, 1, 5), 100)
        self.assertEqual(full_at_ms(3, 100, 1, 5), 2100)
        self.assertIsNone(full_at_ms(3, 100, 0, 5))
