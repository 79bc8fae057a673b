from __future__ import annotations

import select
import socket
import time
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from homeserver.web.prompt import write_at_once

if hasattr(select, "epoll"):
    from homeserver.web.loop import PromptReactor


class _Echo(Protocol):
    ended: Any = None
    heard: Any = None

    def dataReceived(self, data: bytes) -> None:
        if data == b"fail":
            raise ValueError("as asked")
        if self.heard is not None:
            self.heard()
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.ended = reason


class LoopTests(SynchronousTestCase):
    if not hasattr(select, "epoll"):
        skip = "There is no epoll here."

    def setUp(self) -> None:
        self.reactor: Any = PromptReactor()
        self.made: list[_Echo] = []
        factory = Factory.forProtocol(_Echo)
        build = factory.buildProtocol

        def remembered(address: Any) -> Any:
            made: Any = build(address)
            self.made.append(made)
            return made

        factory.buildProtocol = remembered  # type: ignore[assignment]
        self.port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        write_at_once(self.port)
        self.client = socket.create_connection(("127.0.0.1", self.port.getHost().port), 5)
        self.addCleanup(self.end)
        self.turn_until(lambda: self.made)

    def end(self) -> None:
        self.client.close()
        for each in self.reactor.removeAll():
            if isinstance(getattr(each, "socket", None), socket.socket):
                each.socket.close()
        for each in self.reactor._internalReaders:
            each.connectionLost(None)
        self.reactor._poller.close()

    def turn_until(self, done: Any) -> None:
        for _ in range(200):
            if done():
                return
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.05)
        self.fail("It does not happen.")

    def test_what_comes_is_read(self) -> None:
        for data in (b"one", b"two"):
            self.client.sendall(data)
            self.reactor.doIteration(5)
            self.assertEqual(self.client.recv(10), data)

    def test_what_a_protocol_raises_ends_its_connection(self) -> None:
        self.client.sendall(b"fail")
        self.turn_until(lambda: self.made[0].ended)
        self.assertIsInstance(self.made[0].ended.value, ValueError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.client.settimeout(5)
        self.assertEqual(self.client.recv(10), b"")

    def test_the_end_of_the_client(self) -> None:
        self.client.close()
        self.turn_until(lambda: self.made[0].ended)

    def test_a_clock_that_is_set_back_holds_up_nothing(self) -> None:
        began = time.time()
        error = 0.0
        self.reactor.seconds = lambda: time.time() - error
        ran: list[str] = []
        for name, delay in (("second", 0.2), ("first", 0.1), ("third", 0.3), ("late", 60.0)):
            call = self.reactor.callLater(delay, ran.append, name)
        self.reactor.iterate(0)
        self.reactor.timeout()
        error = 3600.0
        while len(ran) < 3:
            self.assertLess(time.time() - began, 30, "nothing is due any more")
            self.reactor.doIteration(min(self.reactor.timeout(), 0.5))
            self.reactor.runUntilCurrent()
        self.assertEqual(ran, ["first", "second", "third"])
        self.assertLess(call.getTime() - self.reactor.seconds(), 60)
        call.cancel()
        # What begins afterwards goes by the new time.
        self.reactor.callLater(0.1, ran.append, "fourth")
        while len(ran) < 4:
            self.reactor.doIteration(min(self.reactor.timeout(), 0.5))
            self.reactor.runUntilCurrent()

    def test_a_clock_that_is_set_forward(self) -> None:
        error = 0.0
        self.reactor.seconds = lambda: time.time() + error
        ran: list[str] = []
        self.reactor.callLater(60, ran.append, "due")
        self.reactor.timeout()
        error = 3600.0
        self.assertEqual(self.reactor.timeout(), 0)
        self.reactor.runUntilCurrent()
        self.assertEqual(ran, ["due"])

    def test_what_is_put_off_after_the_clock_was_set_back_is_not_moved(self) -> None:
        error = 0.0
        self.reactor.seconds = lambda: time.time() - error
        calls: list[Any] = []
        self.made[0].heard = lambda: calls.append(self.reactor.callLater(600.0, str))
        self.reactor.runUntilCurrent()
        self.reactor.timeout()
        # Somebody sets it back while the loop waits, and what comes is put off.
        error = 3600.0
        self.client.sendall(b"one")
        self.reactor.doIteration(5)
        for _ in range(2):
            self.reactor.runUntilCurrent()
            self.reactor.timeout()
        self.assertTrue(calls[0].active())
        self.assertGreater(calls[0].getTime(), self.reactor.seconds() + 300)
        calls[0].cancel()
