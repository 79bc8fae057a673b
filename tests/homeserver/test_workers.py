"""Threads that take jobs."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from functools import partial
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from homeserver import workers as module
from homeserver.workers import Stopped, Workers


class WorkersTest(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.workers = Workers("test", 2)
        self.addCleanup(self.workers.stop)

    async def run_here(self, fn: Any, *args: Any) -> Any:
        return await self.workers.run(reactor, fn, *args)

    def wait_until_idle(self) -> None:
        while not self.workers.is_idle:
            pass

    async def test_what_comes_of_it(self) -> None:
        self.assertEqual(await self.run_here(divmod, 7, 2), (3, 1))
        with self.assertRaises(ZeroDivisionError):
            await self.run_here(divmod, 7, 0)
        self.assertEqual(threading.current_thread(), threading.main_thread())

    async def test_the_last_one_gets_the_next(self) -> None:
        """One thread does what one thread can do."""
        names = set()
        for _ in range(50):
            names.add(await self.run_here(lambda: threading.current_thread().name))
            self.wait_until_idle()
        self.assertEqual(names, {"test-0"})

    async def test_at_most_so_many_at_a_time(self) -> None:
        hold = threading.Event()
        running: list[str] = []
        finished: list[int] = []

        def job(number: int) -> None:
            running.append(threading.current_thread().name)
            hold.wait(20)
            finished.append(number)

        done = [self.workers.run(reactor, job, number) for number in range(6)]
        while len(running) < 2:
            pass
        self.assertFalse(self.workers.is_idle)
        self.assertEqual(sorted(running), ["test-0", "test-1"])
        hold.set()
        for each in done:
            await each
        self.assertEqual(sorted(finished), list(range(6)))
        self.assertEqual(len(set(running)), 2)

    async def test_many_from_several_threads(self) -> None:
        done: list[int] = []

        def submit(first: int) -> None:
            for number in range(first, first + 500):
                self.workers.submit(partial(done.append, number))

        threads = [threading.Thread(target=submit, args=(n * 500,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.workers.stop()
        self.assertEqual(sorted(done), list(range(2000)))

    async def test_stopping(self) -> None:
        """What was submitted is done; more is not taken."""
        done: list[int] = []
        for number in range(100):
            self.workers.submit(partial(done.append, number))
        self.workers.stop()
        self.assertEqual(sorted(done), list(range(100)))
        with self.assertRaises(Stopped):
            self.workers.submit(done.clear)
        self.workers.stop()
        self.assertEqual([t for t in threading.enumerate() if t.name.startswith("test-")], [])

    async def test_no_more_threads_are_to_be_had(self) -> None:
        """Those that there are do the work; later there may be more; and it can be stopped."""
        hold = threading.Event()
        self.addCleanup(hold.set)
        refuse = patch.object(threading.Thread, "start", side_effect=RuntimeError("no thread"))
        with refuse, self.assertRaises(RuntimeError):
            self.workers.submit(hold.set)
        first = self.workers.run(reactor, hold.wait, 20)
        with refuse:
            second = self.workers.run(reactor, hold.is_set)
        await self.run_here(hold.set)
        self.assertEqual((await first, await second), (True, True))
        self.workers.stop()

    async def test_nothing_is_kept(self) -> None:
        """A thread that waits holds nothing of what it did."""

        class Thing:
            pass

        thing = Thing()
        kept = weakref.ref(thing)
        await self.run_here(lambda thing: None, thing)
        self.wait_until_idle()
        del thing
        gc.collect()
        self.assertIsNone(kept())

    async def test_after_a_fork(self) -> None:
        """A child of the process has none of the threads, and makes its own."""
        await module.CALCULATING.run(reactor, int)
        child = os.fork()
        if not child:
            answer = threading.Event()
            module.CALCULATING.submit(answer.set)
            os._exit(0 if answer.wait(10) else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
