"""Servers whose answers lie about where they end, or do not end.

The counterpart of `tests.homeserver.web.test_http_attacks`: whatever a server says, its request
fails or is answered, the next request gets its own answer, and memory is bounded.
"""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.client.answer_head import MAX_HEAD_BYTES, MAX_INFORMATIONAL, MAX_OVERHEAD_BYTES
from federation.client.errors import BadAnswer, Unreachable
from tests.federation.client.scripted import Asked, ScriptedCase, Wire, answer, chunked

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = answer(b"hidden")
ALL = (0, 1)


class FramingTests(ScriptedCase):
    def test_conflicting_lengths(self) -> None:
        for lengths in (
            b"Content-Length: 3\r\nContent-Length: 60",
            b"Content-Length: 60\r\nContent-Length: 3",
            b"Content-Length: 3\r\ncontent-length: 3",
            b"Content-Length: 3, 60",
            b"Content-Length: 3, 3",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3",
            b"Content-Length: 3\r\nTransfer-Encoding: x",
            b"Content-Length : 3",
            b"Content-Length: 3\x00",
            b"Content-Length: \xb3",
            b"Content-Length: 1_0",
            b"Content-Length: 3;",
            b"Content-Length: 0x03",
            b"Content-Length: -3",
            b"Content-Length: +3",
            b"Content-Length:",
            b'Content-Length: "3"',
            b"Content-Length: 99999999999999999999999999",
        ):
            self.refused(HEAD + lengths + b"\r\n\r\n0\r\n\r\n" + HIDDEN, BadAnswer, sizes=ALL)

    def test_transfer_codings(self) -> None:
        for line in (
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked;x=y",
            b"Transfer-Encoding:\tchunked\x0b",
            # Not what the parser takes for chunks, whatever Python takes for white space.
            b"Transfer-Encoding: chunked\xa0",
            b"Transfer-Encoding: \xa0chunked",
            b"Transfer-Encoding: chunked\x85",
            b"Transfer-Encoding: chunked\t",
            b'Transfer-Encoding: "chunked"',
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            b"Transfer-Encoding:",
            b"X: x\r\n\tTransfer-Encoding: chunked",
            b"Transfer-Encoding\r\n: chunked",
        ):
            self.refused(HEAD + line + b"\r\n\r\n0\r\n\r\n" + HIDDEN, BadAnswer, sizes=ALL)
        old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        self.refused(old, BadAnswer, sizes=ALL)

    def test_heads(self) -> None:
        for head in (
            b"220 mail.example ESMTP\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"<html>",
            b"\r\nHTTP/1.1 200 OK\r\n\r\n",
            b" HTTP/1.1 200 OK\r\n\r\n",
            b"http/1.1 200 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/0.9 200 OK\r\n\r\n",
            b"HTTP/1.10 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"HTTP/1.1200 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 020 OK\r\n\r\n",
            b"HTTP/1.1 000 OK\r\n\r\n",
            b"HTTP/1.1 20\r\n\r\n",
            b"HTTP/1.1 -20\r\n\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            HEAD + b"X: a\r\n b\r\n\r\n",
            HEAD + b" X: a\r\n\r\n",
            HEAD + b": a\r\n\r\n",
            HEAD + b"X\r\n\r\n",
            HEAD + b"X : a\r\n\r\n",
            HEAD + b"X: a\0\r\n\r\n",
            HEAD + b"X: a\rContent-Length: 3\r\n\r\n",
            HEAD + b"X: a\nContent-Length: 3\r\n\r\n",
            HEAD + b"Content-Length: 3\r\n\rX: y\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            self.refused(head + b"abc" + HIDDEN, BadAnswer, sizes=ALL)

    def test_chunks(self) -> None:
        for start in (
            b"+3\r\nabc",
            b"3 \r\nabc",
            b" 3\r\nabc",
            b"0x3\r\nabc",
            b"\r\n3\r\nabc",
            b"3\r\nabcX",
            b"3\r\nab\r\n",
            b"3\nabc",
            b"3\r\nabc\n0\n\n",
            b"3;a\nb\r\nabc",
            b"ffffffffffffffffffff\r\nabc",
            b"10000000000000003\r\nabc",
            b"-1\r\n",
            b"3,3\r\nabc",
            b"0\r\nX: a\rY: b\r\n\r\n",
        ):
            self.refused(CHUNKED + start + b"\r\n0\r\n\r\n" + HIDDEN, BadAnswer, sizes=ALL)

    def test_what_is_good(self) -> None:
        for data, body in (
            (answer(b"abc"), b"abc"),
            (answer(b""), b""),
            (answer(b"abc", "X: \t y \t", "Y:"), b"abc"),
            (HEAD + b"Content-Length: \t3 \t\r\n\r\nabc", b"abc"),
            (HEAD + b"Transfer-Encoding: \tChunked  \r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
            (chunked(b"abc", b"de"), b"abcde"),
            (chunked(), b""),
            (CHUNKED + b"3;name=value;other\r\nabc\r\n0;end\r\nX: y\r\n\r\n", b"abc"),
            (b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 300\r\n\r\n", b""),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + answer(b"abc"), b"abc"),
            (b"HTTP/1.1 103 Early\r\nContent-Length: 9\r\n\r\n" + answer(b"abc"), b"abc"),
        ):
            for size in ALL:
                result, wire = self.told(data, size)
                self.assertEqual(result.body, body, data)
                self.assertFalse(wire.is_closed, data)
        # All over one connection.
        self.assertEqual(len(self.wires), 1)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.binary(min_size=1, max_size=30), max_size=5),
        st.booleans(),
        st.integers(0, 3),
        st.lists(st.integers(1, 40), min_size=1, max_size=8),
    )
    def test_however_it_is_cut(
        self, parts: list[bytes], in_chunks: bool, informational: int, cuts: list[int]
    ) -> None:
        data = b"HTTP/1.1 102 Wait\r\nX: y\r\n\r\n" * informational
        data += chunked(*parts) if in_chunks else answer(b"".join(parts))
        asked = self.ask()
        wire, number = self.wires[-1], 0
        while data:
            size = cuts[number % len(cuts)]
            wire.say(data[:size])
            data, number = data[size:], number + 1
        self.turn()
        self.assertEqual(self.body(asked), b"".join(parts))
        self.assertFalse(wire.is_closed)


class SurplusTests(ScriptedCase):
    """What comes behind an answer is nobody's, and its connection serves no other request."""

    GOOD = (answer(b"mine"), chunked(b"mine"), b"HTTP/1.1 204 No Content\r\n\r\n")

    def test_in_the_same_piece(self) -> None:
        for data in self.GOOD:
            for surplus in (HIDDEN, b"x", b"HTTP/1.1 100 Continue\r\n\r\n", b"\0" * 100_000):
                result, wire = self.told(data + surplus)
                self.assertIn(result.body, (b"mine", b""))
                self.assertTrue(wire.is_closed)
                self.harmless(wire)

    def test_another_status(self) -> None:
        """Also of another status, and with headers of its own."""
        other = answer(b"hidden", "X: hidden", status="500 No")
        for data in self.GOOD:
            expected, _ = self.told(data)
            result, wire = self.told(data + other)
            self.assertEqual(result, expected)
            wire.lose()

    def test_in_the_same_turn(self) -> None:
        """TLS gives what came together in pieces, between which nobody can ask again."""
        for data in self.GOOD:
            first, second = self.ask(), list[Asked]()
            wire = self.wires[-1]
            self.after(first, lambda found=second: found.append(self.ask()))  # type: ignore[misc]
            wire.say(data)
            self.assertEqual(second, [])
            wire.say(HIDDEN)
            self.turn()
            self.assertIn(self.body(first), (b"mine", b""))
            other = self.wires[-1]
            self.assertIsNot(other, wire)
            self.assertTrue(wire.is_closed)
            wire.say(HIDDEN)
            other.say(answer(b"also mine"))
            self.turn()
            self.assertEqual(self.body(second[0]), b"also mine")
            other.lose()

    def test_later(self) -> None:
        """Nothing may come over a connection that was not asked for anything."""
        for surplus in (HIDDEN, b"x", b"HTTP/1.1 408 Request Timeout\r\n\r\n"):
            result, wire = self.told(answer(b"mine"))
            self.assertEqual(result.body, b"mine")
            self.assertFalse(wire.is_closed)
            wire.say(surplus)
            self.assertTrue(wire.is_closed)
            # Also before anybody is told that it ended.
            self.harmless(wire)
            wire.lose()

    def test_before_anything_is_asked(self) -> None:
        wire = Wire(self.https._pool.new("a"))
        wire.say(HIDDEN)
        self.assertTrue(wire.is_closed)

    def test_the_next_answer_is_read_alone(self) -> None:
        """Nothing of the first answer is left for the second."""
        result, wire = self.told(chunked(b"first") + b"")
        self.assertEqual(result.body, b"first")
        result, again = self.told(answer(b"second"), 1)
        self.assertIs(again, wire)
        self.assertEqual(result.body, b"second")

    def test_it_closes_at_once(self) -> None:
        """An answer that is whole counts, though the connection ends in the same moment."""
        asked = self.ask()
        wire = self.wires[-1]
        wire.say(answer(b"mine"))
        wire.lose()
        self.turn()
        self.assertEqual(self.body(asked), b"mine")
        self.harmless(wire)


class NoReuseTests(ScriptedCase):
    def test_the_server_says_so(self) -> None:
        for header in ("Connection: close", "Connection: x, Close", "connection:\tCLOSE"):
            result, wire = self.told(answer(b"mine", header))
            self.assertEqual(result.body, b"mine")
            self.assertTrue(wire.is_closed)
            self.harmless(wire)
        result, wire = self.told(answer(b"mine", "Connection: x", "Connection: close"))
        self.assertTrue(wire.is_closed)

    def test_http_1_0(self) -> None:
        for header in (b"", b"Connection: keep-alive\r\n"):
            data = b"HTTP/1.0 200 OK\r\n" + header + b"Content-Length: 4\r\n\r\nmine"
            result, wire = self.told(data)
            self.assertEqual(result.body, b"mine")
            self.assertTrue(wire.is_closed)

    def test_a_body_that_cannot_be(self) -> None:
        """What the other side may send as the body of a 204 would begin the next answer."""
        head = b"HTTP/1.1 204 No Content\r\n"
        for header in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
            result, wire = self.told(head + header + b"\r\n\r\n")
            self.assertEqual((result.status, result.body), (204, b""))
            self.assertTrue(wire.is_closed, header)
            self.harmless(wire)
        _, wire = self.told(head + b"Content-Length: 0\r\n\r\n")
        self.assertFalse(wire.is_closed)

    def test_a_large_request_that_is_refused(self) -> None:
        """Its rest may be on its way still, or never be read: the next would wait behind it."""
        for status, size, is_closed in (
            ("413 Too Large", 100_000, True),
            ("302 Found", 100_000, True),
            ("200 OK", 100_000, False),
            ("413 Too Large", 100, False),
        ):
            asked = self.ask("PUT", body=b"x" * size)
            wire = self.wires[-1]
            wire.say(answer(b"mine", status=status))
            self.turn()
            self.assertEqual(self.body(asked), b"mine")
            self.assertEqual(wire.is_closed, is_closed, (status, size))
            wire.lose()

    def test_no_length(self) -> None:
        for version in (b"1.0", b"1.1"):
            asked = self.ask()
            wire = self.wires[-1]
            wire.say(b"HTTP/%b 200 OK\r\nConnection: keep-alive\r\n\r\nmi" % version)
            wire.say(b"ne")
            self.turn()
            self.assertIsNone(asked.result)
            wire.lose()
            self.assertEqual(self.body(asked), b"mine")
            self.harmless(wire)


class BombTests(ScriptedCase):
    """What has no end, or is more than anybody needs."""

    def test_heads(self) -> None:
        for data in (
            HEAD + b"X: " + b"y" * 5_000_000,
            HEAD + b"X" * 5_000_000,
            HEAD + b"X: y\r\n" * 1_000_000,
            HEAD + b"X: y\r\n" * 1000 + b"\r\n",
            b"HTTP/1.1 200 " + b"O" * 5_000_000,
            HEAD + b"X: y\r\n" * 20_000 + b"\r\n",
        ):
            self.refused(data, BadAnswer, sizes=(0, 16_384))

    def test_informational_answers(self) -> None:
        for one in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 199 X\r\nA: b\r\n\r\n"):
            self.refused(one * (MAX_INFORMATIONAL + 1), BadAnswer, sizes=(0, 1, len(one)))
            self.refused(one * 100_000, BadAnswer, sizes=(0, 16_384))
            result, _ = self.told(one * MAX_INFORMATIONAL + answer(b"mine"))
            self.assertEqual(result.body, b"mine")

    def test_chunks_that_hold_little(self) -> None:
        for data in (
            CHUNKED + b"3;" + b"x" * 5_000_000 + b"\r\nabc\r\n0\r\n\r\n",
            CHUNKED + (b"1;" + b"x" * 1000 + b"\r\na\r\n") * 500,
            CHUNKED + b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 1_000_000 + b"\r\n",
            CHUNKED + b"0\r\nX: " + b"y" * 5_000_000 + b"\r\n\r\n",
            CHUNKED + b"0" * 5_000_000 + b"3\r\nabc\r\n0\r\n\r\n",
        ):
            self.refused(data, BadAnswer, sizes=(16_384,))

    def test_content_does_not_pay_for_what_follows(self) -> None:
        """The parser keeps trailers, and copies what it has of one for each piece that comes."""
        content = b"30d40\r\n" + b"x" * 200_000 + b"\r\n"
        for end in (b"0\r\nX: ", b"0\r\n" + b"X", b"3;"):
            asked = self.ask(max_bytes=1_000_000)
            wire = self.wires[-1]
            wire.say(CHUNKED + content, 16_384)
            wire.say(end + b"y" * (MAX_OVERHEAD_BYTES + 1000), 1000)
            self.assertIsInstance(asked.result, BadAnswer)
            self.assertTrue(wire.is_closed)
            wire.lose()

    def test_bodies(self) -> None:
        """Larger than may be: said so, or found."""
        for data in (
            HEAD + b"Content-Length: 1001\r\n\r\n",
            HEAD + b"Content-Length: 999999999999999\r\n\r\n" + b"x" * 5000,
            CHUNKED + b"ffffffff\r\n" + b"x" * 5000,
            CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n",
            HEAD + b"\r\n" + b"x" * 1001,
            b"HTTP/1.1 500 No\r\nContent-Length: 101\r\n\r\n",
            b"HTTP/1.1 302 Found\r\n\r\n" + b"x" * 101,
        ):
            self.refused(data, BadAnswer, sizes=(0, 100))
        for size in ALL:
            result, _ = self.told(answer(b"x" * 1000), size)
            self.assertEqual(len(result.body), 1000)
            result, _ = self.told(answer(b"x" * 100, status="500 No"), size)
            self.assertEqual((result.status, len(result.body)), (500, 100))

    def test_the_beginning_is_enough(self) -> None:
        for data in (
            answer(b"abcdef"),
            chunked(b"abc", b"def"),
            HEAD + b"\r\nabcdef",
            HEAD + b"Content-Length: 10000000\r\n\r\nabcdef",
        ):
            asked = self.ask(max_bytes=4, cut=True)
            wire = self.wires[-1]
            wire.say(data)
            self.turn()
            self.assertEqual(self.body(asked), b"abcd")
            self.assertTrue(wire.is_closed)
            wire.lose()

    def test_memory(self) -> None:
        """Of endless heads no more is kept than a head may have, and the last piece."""
        asked = [self.ask() for _ in range(20)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for wire in self.wires:
            wire.say(HEAD + b"X: ")
            for _ in range(200):
                wire.say(b"y" * 16_384)
        used, _ = tracemalloc.get_traced_memory()
        self.assertLess(used / 20, 2 * MAX_HEAD_BYTES)
        self.assertTrue(all(isinstance(each.result, BadAnswer) for each in asked))

    def test_memory_of_small_pieces(self) -> None:
        """A body takes about its length, in however small pieces it comes."""
        size = 80_000
        asked = self.ask(max_bytes=size)
        wire = self.wires[-1]
        wire.say(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        sent = bytes(range(250)) * (size // 250)
        wire.say(sent[:-2], 2)
        used, _ = tracemalloc.get_traced_memory()
        self.assertLess(used, 6 * size)
        wire.say(sent[-2:])
        self.turn()
        self.assertEqual(self.body(asked), sent)


class CutOffTests(ScriptedCase):
    def test_less_than_was_said(self) -> None:
        for data in (
            HEAD[:3],
            HEAD,
            HEAD + b"Content-Length: 10\r\n\r\n",
            HEAD + b"Content-Length: 10\r\n\r\nabc",
            CHUNKED,
            CHUNKED + b"3\r\nabc\r\n",
            CHUNKED + b"3\r\nabc\r\n0\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ):
            for method in ("GET", "PUT", "POST"):
                for size in ALL:
                    asked = self.ask(method)
                    wire = self.wires[-1]
                    wire.say(data, size)
                    self.assertIsNone(asked.result)
                    wire.lose()
                    # Something came: it is not asked again.
                    self.assertIsInstance(asked.result, Unreachable)
                    self.harmless(wire)
