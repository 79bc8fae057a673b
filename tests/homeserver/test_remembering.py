"""What bounds the memory of a process."""

from __future__ import annotations

import resource
import subprocess
import sys

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.cache import ENTRY, Cache, Caches
from homeserver.remembering import LEAST, LOOK_S, SWEEP_S, MemoryWatch, resident

ALL = 1_600_000
MUCH = 100_000_000


class MemoryWatchTest(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.caches = Caches(ALL)
        self.cache: Cache[int, int] = Cache("one", lambda _, value: value - ENTRY, share=1)
        self.caches.adopt(self.cache)
        self.taken = 0

    def watch(self, limit: int | None) -> None:
        watch = MemoryWatch(self.caches, self.clock, limit, lambda: self.taken)
        watch.start()
        self.addCleanup(watch.stop)

    def fill(self) -> None:
        for key in range(2000):
            self.cache[key] = 1000

    def test_caches_give_what_is_too_much(self) -> None:
        self.watch(MUCH)
        self.fill()
        before = self.caches.bytes
        self.taken = MUCH + 500_000
        self.clock.advance(LOOK_S)
        self.assertLessEqual(self.caches.bytes, before - 500_000)
        self.assertGreater(self.caches.bytes, before - 600_000)

    def test_something_is_always_kept(self) -> None:
        self.watch(MUCH)
        self.fill()
        self.taken = MUCH * 2
        for _ in range(5):
            self.clock.advance(LOOK_S)
        self.assertEqual(self.caches.limit, ALL // LEAST)
        self.assertGreater(len(self.cache), 50)

    def test_caches_grow_again(self) -> None:
        self.watch(MUCH)
        self.taken = MUCH * 2
        self.clock.advance(LOOK_S)
        self.taken = MUCH // 2
        self.clock.advance(LOOK_S)
        self.assertEqual(self.caches.limit, 2 * ALL // LEAST)
        self.clock.pump([LOOK_S] * LEAST)
        self.assertEqual(self.caches.limit, ALL)

    def test_just_below_the_limit_nothing_changes(self) -> None:
        self.watch(MUCH)
        self.taken = MUCH * 2
        self.clock.advance(LOOK_S)
        self.taken = int(MUCH * 0.95)
        self.clock.pump([LOOK_S] * 20)
        self.assertEqual(self.caches.limit, ALL // LEAST)

    def test_without_a_limit_what_is_old_goes_all_the_same(self) -> None:
        short: Cache[int, str] = Cache("short", lives_s=1, seconds=self.clock.seconds)
        self.caches.adopt(short)
        short[1] = "x"
        self.taken = MUCH
        self.watch(None)
        self.clock.advance(SWEEP_S)
        self.assertEqual((list(short), short.bytes), ([], 0))
        self.assertEqual(self.caches.limit, ALL)

    def test_threads_share_arenas(self) -> None:
        """Shown in a process of its own, since it is for good: an arena has 64 MiB of addresses."""
        code = (
            "import threading\n"
            "from homeserver.remembering import steady_allocator\n"
            "steady_allocator()\n"
            "wait = threading.Barrier(21)\n"
            "def work():\n"
            "    kept = [bytes(5_000) for _ in range(20)]\n"
            "    wait.wait()\n"
            "    wait.wait()\n"
            "threading.stack_size(1 << 20)\n"
            "for _ in range(20):\n"
            "    threading.Thread(target=work).start()\n"
            "wait.wait()\n"
            "print(open('/proc/self/statm').read().split()[0])\n"
            "wait.wait()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        self.assertLess(int(done.stdout) * resource.getpagesize(), 800 << 20)

    def test_the_memory_of_this_process(self) -> None:
        self.assertGreater(resident(), 10_000_000)
