"""Requests and their connections: what is sent, kept, repeated, given up, and read in parts."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from federation.client import pool
from federation.client.body import HIGH_WATER
from federation.client.errors import BadAnswer, RemoteTimeout, Unreachable
from federation.client.https import StreamedAnswer
from federation.client.pool import (
    CLOSING_S,
    IDLE_CONNECTION_S,
    MAX_AGE_S,
    MAX_IDLE_PER_SERVER,
)
from tests.federation.client.scripted import (
    OTHER,
    ROUTE,
    Asked,
    ScriptedCase,
    Wire,
    answer,
    chunked,
)

HEAD = b"HTTP/1.1 200 OK\r\n"


class RequestTests(ScriptedCase):
    def sent(self, method: str, uri: str, headers: dict[str, str], body: bytes | None) -> bytes:
        asking = self.https.exchange(
            "them", ROUTE, method, uri, headers, body, max_bytes=10, max_error_bytes=10
        )
        asked = Asked(asking)
        if isinstance(asked.result, ValueError):
            raise asked.result
        wire = self.wires[-1]
        wire.lose(ConnectionAborted())
        return bytes(wire.transport.value())

    def test_what_is_sent(self) -> None:
        sent = self.sent("POST", "/x?y=%20", {"Authorization": "X-Matrix a", "N": ""}, b"{}")
        head, body = sent.split(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        self.assertEqual((first, body), (b"POST /x?y=%20 HTTP/1.1", b"{}"))
        self.assertEqual(lines[0], b"Host: a.example:1")
        self.assertTrue(lines[1].startswith(b"User-Agent: Hearth/"))
        expected = {b"Authorization: X-Matrix a", b"N: ", b"Content-Length: 2"}
        self.assertEqual(set(lines[2:]), expected)
        self.assertNotIn(b"Content-Length", self.sent("GET", "/x", {}, None))
        self.assertIn(b"Content-Length: 0\r\n", self.sent("POST", "/x", {}, None))
        self.assertTrue(self.sent("GET", "/x", {"N": "\u00e9"}, None).endswith(b"\xc3\xa9\r\n\r\n"))

    def test_one_request_stays_one(self) -> None:
        for uri in ("/x HTTP/1.1\r\nA: b", "/x\n", "/x y", "", "/\u00e9", "/\x7f", "/\0"):
            with self.assertRaises(ValueError):
                self.sent("GET", uri, {}, None)
        for name, value in (("A", "b\r\nC: d"), ("A", "b\n"), ("A: b\r\nC", "d"), ("", "b")):
            with self.assertRaises(ValueError):
                self.sent("GET", "/x", {name: value}, None)
        with self.assertRaises(ValueError):
            self.sent("GET /y HTTP/1.1\r\n\r\nGET", "/x", {}, None)
        self.assertEqual(self.wires, [])

    def test_headers(self) -> None:
        result, _ = self.told(answer(b"", "A: 1", "a: 2", "Retry-After: 3", "B: \xe9"))
        self.assertEqual((result.headers["a"], result.headers["retry-after"]), ("2", "3"))
        self.assertEqual(result.status, 200)


class KeptTests(ScriptedCase):
    def test_one_after_the_other(self) -> None:
        for number in range(3):
            result, wire = self.told(answer(b"%d" % number), method="POST")
            self.assertEqual(result.body, b"%d" % number)
        self.assertEqual((len(self.wires), wire.requests), (1, 3))

    def test_only_for_the_same_server(self) -> None:
        self.told(answer())
        self.ask(route=OTHER)
        self.assertEqual(len(self.wires), 2)

    def test_for_a_while(self) -> None:
        _, wire = self.told(answer())
        self.clock.advance(IDLE_CONNECTION_S - 1)
        self.told(answer())
        self.assertEqual(len(self.wires), 1)
        self.clock.advance(IDLE_CONNECTION_S - 1)
        self.assertFalse(wire.is_closed)
        self.clock.advance(1)
        self.assertTrue(wire.is_closed)
        self.assertFalse(wire.is_aborted)
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_for_ever(self) -> None:
        """However busy it is: names move, and certificates end."""
        asked = int(MAX_AGE_S // 50) + 2
        for _ in range(asked):
            self.clock.advance(50)
            result, _ = self.told(answer())
            self.assertEqual(result.status, 200)
        first, second = self.wires
        self.assertTrue(first.is_closed)
        self.assertFalse(second.is_closed)
        self.assertEqual(first.requests + second.requests, asked)

    def many(self, count: int, **options: Any) -> list[Wire]:
        asked = [self.ask(**options) for _ in range(count)]
        wires = self.wires[-count:]
        for wire in wires:
            wire.say(answer())
        self.turn()
        self.assertTrue(all(each.result.status == 200 for each in asked))
        return wires

    def test_a_few_of_a_server(self) -> None:
        wires = self.many(5)
        self.assertEqual(sum(not wire.is_closed for wire in wires), MAX_IDLE_PER_SERVER)

    def test_so_many_of_all(self) -> None:
        with patch.object(pool, "MAX_IDLE", 3):
            first = self.many(2)
            second = self.many(2, route=OTHER)
        self.assertEqual([wire.is_closed for wire in first + second], [True, False, False, False])

    def test_one_that_ended(self) -> None:
        _, wire = self.told(answer())
        wire.lose()
        self.told(answer())
        self.assertEqual(len(self.wires), 2)

    def test_closing(self) -> None:
        """Kept ones are closed in order; who does not agree is cut off."""
        wires = self.many(2)
        asked = self.ask()  # takes one of them
        (idle,) = [wire for wire in wires if wire.requests == 1]
        closing = Asked(self.https.close())
        self.assertTrue(idle.is_closed)
        self.assertEqual(closing.results, [])
        # What is under way goes on, and is not kept then.
        (busy,) = [wire for wire in wires if wire is not idle]
        busy.say(answer(b"late"))
        self.turn()
        self.assertEqual(self.body(asked), b"late")
        self.assertTrue(busy.is_closed)
        idle.lose()
        self.assertFalse(busy.is_aborted)
        self.clock.advance(CLOSING_S)
        self.assertTrue(busy.is_aborted)
        busy.lose()
        self.assertEqual(closing.results, [None])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SingleTests(ScriptedCase):
    keep_alive = False

    def test_never_kept(self) -> None:
        result, wire = self.told(answer(b"abc"))
        self.assertEqual(result.body, b"abc")
        self.assertIn(b"\r\nConnection: close\r\n", wire.transport.value())
        self.assertTrue(wire.is_closed)

    def test_odd_servers_of_the_web(self) -> None:
        """Where nothing else can be behind it, an answer may be as servers used to write it."""
        for data in (
            b"HTTP/1.1 200 OK\nContent-Length: 3\nX: y\n\nabc",
            b"HTTP/1.1 200 OK\r\nX: y,\r\n z\r\nContent-Length: 3\r\n\r\nabc",
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ):
            for size in (0, 1):
                result, _ = self.told(data, size)
                self.assertEqual(result.body, b"abc", data)
        for data in (b"HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 4\n\nabc",):
            self.refused(data, BadAnswer, sizes=(0, 1))


class RepeatTests(ScriptedCase):
    """A request goes out twice only where nothing came, and no harm can be done."""

    def closed(
        self, method: str, *, kept: bool, reason: Exception, said: bytes = b""
    ) -> tuple[Asked, int]:
        """A request whose connection ends; and on how many others it is sent then."""
        if kept:
            self.told(answer())
        asked = self.ask(method)
        wire, before = self.wires[-1], len(self.wires)
        wire.say(said)
        wire.lose(reason)
        return asked, len(self.wires) - before

    def test_which(self) -> None:
        for reason in (ConnectionDone(), ConnectionLost()):
            for method, kept, expected in (
                ("GET", True, 1),
                ("GET", False, 0),
                ("PUT", True, 1),
                ("PUT", False, 1),
                ("POST", True, 0),
                ("POST", False, 0),
            ):
                asked, more = self.closed(method, kept=kept, reason=reason)
                self.assertEqual(more, expected, (method, kept))
                if more:
                    self.wires[-1].say(answer(b"second"))
                    self.turn()
                    self.assertEqual(self.body(asked), b"second")
                    self.wires[-1].lose()
                else:
                    self.assertIsInstance(asked.result, Unreachable)

    def test_on_a_new_connection(self) -> None:
        """Not on another kept one, which may be as dead."""
        first, second = self.ask(), self.ask()
        for wire in self.wires:
            wire.say(answer())
        self.turn()
        self.assertIsNotNone(first.result and second.result)
        asked = self.ask("PUT")
        (taken,) = [wire for wire in self.wires if wire.requests == 2]
        taken.lose()
        self.assertEqual([wire.requests for wire in self.wires if wire is not taken], [1, 1])
        self.wires[-1].lose()
        self.assertIsInstance(asked.result, Unreachable)
        self.assertEqual(len(self.wires), 3)

    def test_once(self) -> None:
        asked, more = self.closed("PUT", kept=True, reason=ConnectionDone())
        self.assertEqual(more, 1)
        self.wires[-1].lose()
        self.assertIsInstance(asked.result, Unreachable)
        self.assertEqual(len(self.wires), 2)

    def test_not_when_something_came(self) -> None:
        for said in (b"H", b"HTTP/1.1 100 Continue\r\n\r\n"):
            asked, more = self.closed("PUT", kept=True, reason=ConnectionDone(), said=said)
            self.assertEqual(more, 0)
            self.assertIsInstance(asked.result, Unreachable)

    def test_not_when_tls_failed(self) -> None:
        asked, more = self.closed("PUT", kept=False, reason=SSL.Error([("a", "b", "alert")]))
        self.assertEqual((more, str(asked.result)), (0, "them: TLS failed: alert"))


class CancelTests(ScriptedCase):
    def test_at_any_moment(self) -> None:
        for said in (b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\nabc", answer(b"whole")):
            for start in (lambda: self.ask("PUT"), self.open):
                asked, wire = start(), self.wires[-1]
                wire.say(said)
                asked.deferred.cancel()
                if isinstance(asked.result, StreamedAnswer):
                    asked.result.close()
                else:
                    self.assertIsInstance(asked.result, CancelledError)
                self.assertTrue(wire.is_aborted or said == answer(b"whole"), said)
                wire.say(b"more")
                wire.lose()
                self.turn()
                self.harmless(wire)

    def test_while_connecting(self) -> None:
        self.connections.hold = Deferred()
        asked = self.ask()
        asked.deferred.cancel()
        self.assertIsInstance(asked.result, CancelledError)
        self.assertEqual(self.wires, [])

    def test_a_slow_trickle(self) -> None:
        """The time that a request has is for all of it, however busy the other side is."""
        for start in (b"", HEAD + b"Content-Length: 900\r\n\r\n", HEAD + b"\r\n"):
            asked = self.ask(timed=True)
            wire = self.wires[-1]
            wire.say(start or b"HTTP/1.1 200 ")
            for _ in range(29):
                self.clock.advance(1)
                wire.say(b"x")
            self.assertFalse(wire.is_closed)
            self.clock.advance(1)
            self.assertIsInstance(asked.result, DeferredTimeout)
            self.assertTrue(wire.is_aborted)
            wire.lose()


class StreamTests(ScriptedCase):
    """Bodies that are read as they arrive."""

    def start(self, head: bytes, **options: Any) -> tuple[Any, Wire]:
        asked = self.open(**options)
        wire = self.wires[-1]
        wire.say(head)
        return self.streamed(asked), wire

    def rest(self, streamed: Any) -> Asked:
        return Asked(streamed.whole())

    def test_in_parts(self) -> None:
        for data in (answer(b"abcdef"), chunked(b"abc", b"def")):
            streamed, wire = self.start(data[:-6])
            reading = self.rest(streamed)
            wire.say(data[-6:])
            self.turn()
            self.assertEqual(reading.result, b"abcdef")
            self.assertFalse(wire.is_closed)
            streamed.close()
            self.assertFalse(wire.is_closed)
        self.assertEqual(len(self.wires), 1)

    def test_back_pressure(self) -> None:
        streamed, wire = self.start(HEAD + b"Content-Length: 500000\r\n\r\n")
        wire.say(b"x" * (HIGH_WATER - 1))
        self.assertEqual(wire.transport.producerState, "producing")
        wire.say(b"x")
        self.assertEqual(wire.transport.producerState, "paused")
        reading = self.rest(streamed)
        self.assertEqual(wire.transport.producerState, "producing")
        wire.say(b"x" * (500_000 - HIGH_WATER))
        self.turn()
        self.assertEqual(len(reading.result), 500_000)
        # A kept connection is read from, or nobody would notice its end.
        self.assertEqual(wire.transport.producerState, "producing")

    def test_too_large(self) -> None:
        streamed, wire = self.start(HEAD + b"\r\nabcd", max_bytes=5)
        reading = self.rest(streamed)
        wire.say(b"ef")
        self.assertIsInstance(reading.result, BadAnswer)
        self.assertTrue(wire.is_aborted)

    def test_stalled(self) -> None:
        streamed, wire = self.start(HEAD + b"Content-Length: 9\r\n\r\nabc")
        reading = self.rest(streamed)
        self.clock.advance(29)
        wire.say(b"d")
        self.clock.advance(29)
        self.assertIsNone(reading.result)
        self.clock.advance(1)
        self.assertIsInstance(reading.result, RemoteTimeout)
        self.assertTrue(wire.is_aborted)

    def test_cut_off(self) -> None:
        """Without a length nobody knows whether a file is whole."""
        for head in (HEAD + b"\r\nabc", HEAD + b"Content-Length: 9\r\n\r\nabc"):
            streamed, wire = self.start(head)
            reading = self.rest(streamed)
            wire.lose()
            self.assertIsInstance(reading.result, Unreachable)

    def test_lies_in_the_middle(self) -> None:
        head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        streamed, wire = self.start(head)
        reading = self.rest(streamed)
        wire.say(b"garbage\r\n")
        self.assertIsInstance(reading.result, BadAnswer)
        self.assertTrue(wire.is_aborted)

    def test_closed_early(self) -> None:
        streamed, wire = self.start(HEAD + b"Content-Length: 9\r\n\r\nabc")
        streamed.close()
        self.assertTrue(wire.is_aborted)
        wire.say(b"defghi")
        wire.lose()
        self.turn()
        self.harmless(wire)

    def test_closed_at_the_end(self) -> None:
        """Who knows that this was all need not wait to be told."""
        streamed, wire = self.start(answer(b"abc"))
        streamed.close()
        self.turn()
        self.assertFalse(wire.is_closed)
        self.told(answer())
        self.assertEqual(len(self.wires), 1)

    def test_not_http(self) -> None:
        asked = self.open()
        self.wires[-1].say(b"220 mail.example ESMTP\r\n")
        self.assertIsInstance(asked.result, BadAnswer)

    def test_asked_again(self) -> None:
        self.told(answer())
        asked = self.open()
        self.wires[-1].lose()
        self.assertEqual(len(self.wires), 2)
        self.wires[-1].say(answer(b"abc"))
        reading = self.rest(self.streamed(asked))
        self.turn()
        self.assertEqual(reading.result, b"abc")
