"""Commands to Redis."""

from __future__ import annotations

from typing import Any

import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import TestCase

from storage.redis import RedisAddress


class _Transport(StringTransport):
    """What comes late is still delivered, as long as the end of the connection is not told."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class LateRepliesTest(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        reactor = MemoryReactorClock()
        factory: Any = RedisAddress.parse("unix:///nowhere").client(reactor)._factory
        self.protocol = factory.protocol(None, replyTimeout=10)
        self.protocol.factory = factory
        self.protocol.callLater = self.clock.callLater
        self.transport = _Transport()
        self.protocol.makeConnection(self.transport)

    def ask(self, *command: str) -> Deferred[Any]:
        found: Deferred[Any] = self.protocol.execute_command(*command)
        return found

    def test_replies_go_to_those_who_asked(self) -> None:
        first, second = self.ask("INCR", "a"), self.ask("HMGET", "b", "c")
        self.protocol.dataReceived(b":7\r\n*1\r\n$-1\r\n")
        self.assertEqual(self.successResultOf(first), 7)
        self.assertEqual(self.successResultOf(second), [None])
        # What is behind a string is worked off later.
        third, fourth = self.ask("GET", "a"), self.ask("INCR", "b")
        self.protocol.dataReceived(b"$1\r\nx\r\n:8\r\n")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(third), b"x")
        self.assertEqual(self.successResultOf(fourth), 8)

    def test_a_late_reply_is_nobodys(self) -> None:
        late = self.ask("INCR", "a")
        # Who asks again at once has no connection.
        again: list[Any] = []

        def ask_again(failure: Any) -> None:
            failure.trap(txredisapi.TimeoutError)
            try:
                again.append(self.ask("HMGET", "b", "c"))
            except txredisapi.ConnectionError as error:
                again.append(error)

        late.addErrback(ask_again)
        self.clock.advance(10)
        self.assertIsInstance(again[0], txredisapi.ConnectionError)
        self.assertTrue(self.transport.aborted)
        self.protocol.dataReceived(b":7\r\n")
        self.assertRaises(txredisapi.ConnectionError, self.ask, "HMGET", "b", "c")
