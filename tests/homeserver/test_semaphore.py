"""Semaphores on which many wait."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from homeserver.semaphore import Semaphore

MANY = 5_000


class SemaphoreTest(TestCase):
    def test_turns_that_end_at_once(self) -> None:
        """However many wait, each has its turn, and every turn is given back."""
        semaphore = Semaphore(2)
        held = [self.successResultOf(semaphore.acquire()) for _ in range(2)]
        done: list[int] = []

        async def wait(number: int) -> None:
            await semaphore.acquire()
            try:
                done.append(number)
            finally:
                semaphore.release()

        waiting = [Deferred.fromCoroutine(wait(number)) for number in range(MANY)]
        self.assertEqual(done, [])
        for _ in held:
            semaphore.release()
        for each in waiting:
            self.successResultOf(each)
        self.assertEqual(done, list(range(MANY)))
        self.assertEqual(semaphore.tokens, 2)

    def test_no_more_than_the_limit(self) -> None:
        semaphore = Semaphore(3)
        running: set[int] = set()
        ends: list[Deferred[None]] = []

        async def work(number: int) -> None:
            await semaphore.acquire()
            running.add(number)
            self.assertLessEqual(len(running), 3)
            end: Deferred[None] = Deferred()
            ends.append(end)
            try:
                await end
            finally:
                running.discard(number)
                semaphore.release()

        waiting = [Deferred.fromCoroutine(work(number)) for number in range(20)]
        while ends:
            ends.pop().callback(None)
        for each in waiting:
            self.successResultOf(each)
        self.assertEqual((running, semaphore.tokens), (set(), 3))

    def test_whoever_gives_up_takes_no_turn(self) -> None:
        semaphore = Semaphore(1)
        self.successResultOf(semaphore.acquire())
        first, second = semaphore.acquire(), semaphore.acquire()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        semaphore.release()
        self.successResultOf(second)
        self.assertEqual(semaphore.tokens, 0)
