from __future__ import annotations

from ipaddress import ip_network

from twisted.trial.unittest import SynchronousTestCase

from homeserver.web.http_head import BadRequest, Head, HttpLimits, client_address

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7/32")]


class ClientAddressTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        for peer, header, expected in (
            ("203.0.113.1", None, "203.0.113.1"),
            ("203.0.113.1", b"1.2.3.4", "203.0.113.1"),
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", b"1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", b"9.9.9.9, 1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", b"9.9.9.9, 1.2.3.4, 192.0.2.7, 10.2.2.2", "1.2.3.4"),
            ("10.0.0.1", b"10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", b"1.2.3.4:5678", "1.2.3.4"),
            ("10.0.0.1", b"[2001:db8::1]:5678", "2001:db8::1"),
            ("10.0.0.1", b"2001:DB8:0::1", "2001:db8::1"),
            ("fd00::1", b"2001:db8::1", "2001:db8::1"),
            ("::ffff:10.0.0.1", b"1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", b"unknown", "10.0.0.1"),
            ("10.0.0.1", b"1.2.3.4, \xff", "10.0.0.1"),
            ("10.0.0.1", b"", "10.0.0.1"),
            ("", b"1.2.3.4", ""),
        ):
            self.assertEqual(client_address(peer, header, PROXIES), expected, (peer, header))

    def test_nobody_is_trusted(self) -> None:
        self.assertEqual(client_address("10.0.0.1", b"1.2.3.4", []), "10.0.0.1")


class HeadTests(SynchronousTestCase):
    """What is refused is shown over sockets in test_http; this is what is understood."""

    def head(self, *lines: bytes) -> Head:
        head = Head(HttpLimits())
        head.read_head(b"\r\n".join((*lines, b"Host: a", b"", b"")))
        return head

    def test_keep_alive(self) -> None:
        for version, connection, expected in (
            (b"1.1", None, True),
            (b"1.1", b"close", False),
            (b"1.1", b"Keep-Alive, CLOSE", False),
            (b"1.0", None, False),
            (b"1.0", b"keep-alive", True),
        ):
            lines = [b"GET / HTTP/" + version]
            if connection is not None:
                lines.append(b"Connection: " + connection)
            self.assertEqual(self.head(*lines).keep_alive, expected, lines)

    def test_framing(self) -> None:
        head = self.head(b"PUT / HTTP/1.1", b"Content-Length: 0012")
        self.assertEqual((head.content_length, head.is_chunked), (12, False))
        head = self.head(b"PUT / HTTP/1.1", b"Transfer-Encoding: CHUNKED")
        self.assertEqual((head.content_length, head.is_chunked), (0, True))

    def test_no_chunks_in_http10(self) -> None:
        with self.assertRaises(BadRequest):
            self.head(b"PUT / HTTP/1.0", b"Transfer-Encoding: chunked")

    def test_surplus(self) -> None:
        head = self.head(b"PUT / HTTP/1.1", b"Transfer-Encoding: chunked")
        self.assertFalse(head.feed_chunks(b"1\r\na\r\n"))
        self.assertTrue(head.feed_chunks(b"0\r\n\r\nGET /evil HTTP/1.1\r\nX: y\r\n\r\n"))
        self.assertTrue(head.surplus)
        self.assertEqual(bytes(head.body), b"a")
        self.assertNotIn(b"x", head.headers)
