"""Caches that are bounded by bytes."""

from __future__ import annotations

import sys
import threading
import tracemalloc

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.cache import ENTRY, LARGEST, Cache, Caches, weigh


def _plain(name: str, **more: float) -> Cache[int, int]:
    """A cache whose values are the bytes of their entries."""
    return Cache(name, lambda _, value: value - ENTRY, share=more.get("share", 1.0))


def _alone(limit: int, share: float = 1.0) -> tuple[Cache[int, int], Caches]:
    caches = Caches(limit)
    cache = _plain("one", share=share)
    caches.adopt(cache)
    return cache, caches


class CacheTest(TestCase):
    def test_what_was_not_used_for_longest_goes(self) -> None:
        cache, caches = _alone(10_000)
        for key in range(10):
            cache[key] = 1000
        self.assertEqual(cache.get(0), 1000)
        cache[10] = 1000
        self.assertIn(0, cache)
        self.assertNotIn(1, cache)
        self.assertLessEqual(caches.bytes, 10_000)

    def test_many_at_once(self) -> None:
        """They count as used, found and missed as if they were asked for one by one."""
        cache, _ = _alone(4_000)
        for key in range(4):
            cache[key] = 1000
        self.assertEqual(cache.get_many([0, 7, 1]), {0: 1000, 1: 1000})
        self.assertEqual((cache.hits, cache.misses), (2, 1))
        cache[4] = 1000
        self.assertEqual(cache.get_many([2, 0]), {0: 1000})
        clock = Clock()
        timed: Cache[str, int] = Cache("timed", lives_s=5, seconds=clock.seconds)
        timed["a"] = 1
        clock.advance(3)
        timed["b"] = 2
        clock.advance(3)
        self.assertEqual(timed.get_many(["a", "b"]), {"b": 2})

    def test_bytes_are_what_is_in_it(self) -> None:
        """Whatever is put in, put in again, taken out and pushed out."""
        cache, caches = _alone(5_000)
        for key in range(400):
            cache[key % 23] = 300 + key % 7
            if key % 5 == 0:
                cache.pop(key % 11)
            self.assertEqual(cache.bytes, sum(value for _, value in cache.items()))
            self.assertEqual(caches.bytes, cache.bytes)
            self.assertLessEqual(caches.bytes, 5_000)
        cache.clear()
        self.assertEqual((len(cache), cache.bytes, caches.bytes), (0, 0, 0))

    def test_what_is_too_large_is_not_kept_nor_what_it_replaces(self) -> None:
        cache, caches = _alone(8_000)
        cache[1] = 1000
        cache[2] = 1000
        cache[1] = 8_000 // LARGEST + 1
        self.assertEqual(cache.items(), [(2, 1000)])
        self.assertEqual(caches.bytes, 1000)

    def test_a_share_bounds_though_there_is_room(self) -> None:
        cache, caches = _alone(100_000, share=0.1)
        for key in range(100):
            cache[key] = 1000
        self.assertLessEqual(caches.bytes, 10_000)
        self.assertGreaterEqual(len(cache), 9)

    def test_who_has_most_gives_way(self) -> None:
        """A cache may take what others do not use; a flood does not empty the others."""
        caches = Caches(100_000)
        small, flooded = _plain("small", share=0.5), _plain("flooded")
        for each in (small, flooded):
            caches.adopt(each)
        for key in range(20):
            small[key] = 1000
        for key in range(1000):
            flooded[key] = 1000
        self.assertEqual(len(small), 20)
        self.assertGreater(flooded.bytes, 75_000)
        for key in range(1000):
            small[key] = 1000
        # Now each has what its share says: one third and two thirds.
        self.assertTrue(30_000 < small.bytes < 36_000, small.bytes)
        self.assertLessEqual(caches.bytes, 100_000)

    def test_a_smaller_bound_takes_effect_at_once(self) -> None:
        cache, caches = _alone(100_000)
        for key in range(100):
            cache[key] = 1000
        caches.resize(20_000)
        self.assertLessEqual(caches.bytes, 20_000)
        self.assertIn(99, cache)

    def test_what_is_adopted_brings_its_entries(self) -> None:
        cache = _plain("early")
        cache[1] = 1000
        caches = Caches(10_000)
        caches.adopt(cache)
        self.assertEqual((caches.bytes, list(caches)), (1000, [cache]))
        cache.pop(1)
        self.assertEqual(caches.bytes, 0)

    def test_entries_have_an_end(self) -> None:
        clock = Clock()
        cache: Cache[str, str] = Cache("short", lives_s=10, seconds=clock.seconds)
        cache["a"] = "1"
        cache.put("b", "2", lives_s=100)
        clock.advance(10)
        self.assertNotIn("a", cache)
        self.assertEqual((cache.get("a"), cache.get("b")), (None, "2"))
        self.assertEqual(list(cache), ["b"])
        clock.advance(100)
        cache.drop_old()
        self.assertEqual((list(cache), cache.bytes), ([], 0))

    def test_hits_misses_and_evictions_are_counted(self) -> None:
        cache, _ = _alone(4_000)
        cache[1] = 500
        self.assertEqual((cache.get(1), cache.get(2), cache.get(2, -1)), (500, None, -1))
        self.assertIn(1, cache)
        for key in range(10, 20):
            cache[key] = 500
        self.assertEqual((cache.hits, cache.misses), (1, 2))
        self.assertEqual(cache.evictions, 11 - len(cache))

    def test_nothing_may_be_a_value(self) -> None:
        cache: Cache[int, str | None] = Cache("nothing")
        cache[1] = None
        self.assertIs(cache.get(1, "absent"), None)
        self.assertEqual(cache.hits, 1)

    def test_those_who_keep_an_index_are_told(self) -> None:
        gone: list[tuple[int, int]] = []
        caches = Caches(2_000)
        cache: Cache[int, int] = Cache(
            "told",
            lambda _, value: value - ENTRY,
            share=1,
            dropped=lambda k, v: gone.append((k, v)),
        )
        caches.adopt(cache)
        for key in range(6):
            cache[key] = 400
        cache.pop(5)
        self.assertEqual([key for key, _ in gone], [0, 1])
        cache[9] = 2_000
        self.assertEqual(gone[-1], (9, 2_000))

    def test_threads(self) -> None:
        """Threads that use caches which push each other's entries out leave the sums right."""
        caches = Caches(50_000)
        members = [_plain(str(number)) for number in range(3)]
        for each in members:
            caches.adopt(each)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for step in range(4000):
                    cache = members[(number + step) % 3]
                    cache[step % 97] = 700 + step % 5
                    cache.get((step * 7) % 97)
                    if step % 13 == 0:
                        cache.pop(step % 31)
                    if step % 997 == 0:
                        cache.clear()
            except BaseException as problem:
                failures.append(problem)

        switch = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        self.addCleanup(sys.setswitchinterval, switch)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        for each in members:
            self.assertEqual(each.bytes, sum(value for _, value in each.items()))
        self.assertEqual(caches.bytes, sum(each.bytes for each in members))


class HonestyTest(TestCase):
    def test_entries_cost_what_is_said(self) -> None:
        """The estimate is within a fifth of what the interpreter takes for small entries."""
        cache: Cache[bytes, tuple[str, int]] = Cache("honest")
        caches = Caches(1 << 30)
        caches.adopt(cache)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(20_000):
                cache[b"%032d" % number] = (f"@user{number}:example.org", 1_000_000 + number)
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertLess(abs(taken - cache.bytes) / taken, 0.2, f"{taken}, said {cache.bytes}")

    def test_weigh_looks_inside(self) -> None:
        text = "x" * 10_000
        for value in (text, [text], {"a": text}, {text}, (text, {"b": [text[1:]]}), _Slots(text)):
            self.assertGreater(weigh(value), 10_000)

    def test_weigh_ends(self) -> None:
        knot: list[object] = []
        knot.append(knot)
        self.assertGreater(weigh(knot), 0)


class _Slots:
    __slots__ = ("one",)

    def __init__(self, one: str) -> None:
        self.one = one
