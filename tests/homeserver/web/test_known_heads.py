from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from homeserver.web.http_head import BadRequest, Head, HttpLimits
from homeserver.web.known_heads import MAX_KNOWN, KnownHeads
from homeserver.web.request import Request

_LINES = [
    b"GET /_matrix/client/v3/sync?since=s1_2&timeout=30000 HTTP/1.1",
    b"GET /_matrix/client/v3/sync?since=s3_4 HTTP/1.1",
    b"PUT /a%2Fb//c?~!$'()*+,;=:@ HTTP/1.1",
    b"PUT /a HTTP/1.0",
    b"GET /a#b HTTP/1.1",
    b"GET http://a/b HTTP/1.1",
    b"GET /\xc3\xa4 HTTP/1.1",
    b"GET  /a HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET /a HTTP/1.1 ",
    b"CONNECT /a HTTP/1.1",
    b"GET /" + b"a" * 17_000 + b" HTTP/1.1",
]
_HEADERS = [
    b"Host: a.example",
    b"host: b.example",
    b"Authorization: Bearer abc-DEF_1.~+/=",
    b"authorization: Bearer second",
    b"Authorization: bearer abc",
    b"Authorization: Bearer  abc",
    b"Authorization: Bearer abc ",
    b"Authorization: Bearer a b",
    b"Authorization : Bearer abc",
    b"Authorization:Bearer abc",
    b"X-Matrix: Authorization: Bearer abc",
    b"Authorization: X-Matrix origin=a,key=b",
    b"X-Forwarded-For: 1.2.3.4",
    b"x-forwarded-for: 2001:db8::1, 10.0.0.1",
    b"X-Forwarded-For: unknown",
    b"X-Forwarded-For: 1.2.3.4,",
    b"User-Agent: Client/1",
    b"User-Agent: Client/1\r\n folded",
    b"Accept-Encoding: gzip",
    b"Content-Length: 5",
    b"Content-Length: 0005",
    b"Content-Length: x",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Expect: 100-continue",
    b"Bad\0: 1",
    b"Name without colon",
    b"Long: " + b"x" * 3000,
    b"Lone: CR\rhere",
    b"Lone: LF\nhere",
]


def _outcome(head: Head, request: Request) -> object:
    return (
        request.method,
        request.target,
        request.headers,
        head.content_length,
        head.is_chunked,
        head.is_http10,
        head.keep_alive,
        head.expects_continue,
    )


def _anew(data: bytes) -> object:
    head = Head(HttpLimits())
    try:
        return _outcome(head, head.read_head(data))
    except BadRequest as error:
        return error.status, error.error


def _known(heads: KnownHeads, data: bytes) -> object:
    try:
        return _outcome(*heads.read(data))
    except BadRequest as error:
        return error.status, error.error


class KnownHeadsTests(SynchronousTestCase):
    def test_as_read_anew(self) -> None:
        """Whatever was read before, a head means what it means."""
        rand = random.Random(5)
        heads = KnownHeads(HttpLimits())
        refused = 0
        for _ in range(6000):
            good = rand.random() < 0.7
            lines = [rand.choice(_LINES[:3] if good else _LINES)]
            lines += rand.sample([_HEADERS[n] for n in (0, 2, 12, 16)], rand.randint(1, 4))
            lines += rand.sample(_HEADERS, 0 if good and rand.random() < 0.5 else 1)
            data = b"\r\n".join((*lines, b"", b""))
            expected = _anew(data)
            refused += len(expected) == 2  # type: ignore[arg-type]
            self.assertEqual(_known(heads, data), expected, data)
        self.assertGreater(heads.hits, 1000)
        self.assertGreater(refused, 500)
        self.assertLessEqual(len(heads), MAX_KNOWN)

    def test_what_differs(self) -> None:
        """Of clients alike one head is kept, and each has its own address and token."""
        heads = KnownHeads(HttpLimits())
        for number in range(20):
            head = (
                b"GET /sync?since=s%d_0 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer token%d\r\n"
                b"X-Forwarded-For: 10.0.0.%d\r\nAccept: */*\r\n\r\n" % (number, number, number)
            )
            _, request = heads.read(head)
            self.assertEqual(request.raw_query, f"since=s{number}_0")
            self.assertEqual(request.header("authorization"), f"Bearer token{number}")
            self.assertEqual(request.header("x-forwarded-for"), f"10.0.0.{number}")
        self.assertEqual((len(heads), heads.hits), (1, 19))

    def test_requests_have_headers_of_their_own(self) -> None:
        heads = KnownHeads(HttpLimits())
        data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for _ in range(3):
            _, request = heads.read(data)
            self.assertEqual(request.headers, {b"host": b"a"})
            request.headers[b"more"] = b"1"

    def test_they_are_bounded(self) -> None:
        heads = KnownHeads(HttpLimits())
        for number in range(3 * MAX_KNOWN):
            heads.read(b"GET / HTTP/1.1\r\nHost: a%d\r\n\r\n" % number)
        self.assertLessEqual(len(heads), MAX_KNOWN)

    def test_limits_of_headers_hold(self) -> None:
        """A short token shows nothing of a long one."""
        heads = KnownHeads(HttpLimits(max_header_bytes=100))
        head = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n"
        heads.read(head % b"short")
        self.assertRaises(BadRequest, heads.read, head % (b"x" * 100))
