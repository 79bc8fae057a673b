"""Discovery, TLS and HTTP together, against TLS servers on loopback."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import trustme
from service_identity.hazmat import verify_service_identity
from twisted.internet.defer import Deferred
from twisted.names import dns
from twisted.trial.unittest import TestCase

from federation.client import tls
from federation.client.errors import (
    BadAnswer,
    RemoteHttpError,
    RemoteTimeout,
    Unreachable,
)
from tests.federation.client.network import Network, Peer, response

OK = response(b'{"ok":true}')
WELL_KNOWN = "/.well-known/matrix/server"


class AgentCase(TestCase):
    def setUp(self) -> None:
        self.network = Network(self)
        self.dns = self.network.dns

    def peer(self, address: str, port: int, *names: str, **options: Any) -> Peer:
        peer = self.network.listen(address, port, *names, **options)
        peer.answers["*"] = OK
        return peer

    async def get(self, destination: str, **options: Any) -> Any:
        self.client = self.network.client()
        return await self.client.get_json(destination, "/_matrix/x", **options)

    async def unreachable(self, destination: str) -> str:
        error = await self.assertFailure(self.deferred(self.get(destination)), Unreachable)
        return str(error)

    def deferred(self, coroutine: Any) -> Any:
        return Deferred.fromCoroutine(coroutine)


class StepTests(AgentCase):
    """Each step: where the connection goes, Host, SNI and the name of the certificate."""

    async def test_an_ip_address(self) -> None:
        """Shows KEY-1, KEY-2."""
        peer = self.peer("1.2.3.4", 8448, "1.2.3.4")
        self.assertEqual(await self.get("1.2.3.4"), {"ok": True})
        self.assertEqual(peer.requests[0].headers["host"], "1.2.3.4")
        self.assertIsNone(peer.requests[0].sni)
        self.assertEqual(self.dns.asked, [])

    async def test_an_ipv6_address_with_port(self) -> None:
        """Shows KEY-1, KEY-2."""
        peer = self.peer("2a01::5", 99, "2a01::5")
        await self.get("[2a01::5]:99")
        self.assertEqual(peer.requests[0].headers["host"], "[2a01::5]:99")

    async def test_an_explicit_port(self) -> None:
        """Shows KEY-1, KEY-2."""
        self.dns.add("a.example", dns.Record_CNAME("b.example"))
        self.dns.address("b.example", "1.2.3.4", question="a.example")
        peer = self.peer("1.2.3.4", 123, "a.example")
        await self.get("a.example:123")
        self.assertEqual(peer.requests[0].headers["host"], "a.example:123")
        self.assertEqual(peer.requests[0].sni, "a.example")
        self.assertNotIn(("_matrix-fed._tcp.a.example", dns.SRV), self.dns.asked)

    async def test_well_known(self) -> None:
        """Shows KEY-1, KEY-2: the delegated host proves its own name."""
        self.dns.address("a.example", "1.2.3.4")
        self.dns.address("b.example", "1.2.3.5")
        web = self.peer("1.2.3.4", 443, "a.example")
        web.answers[WELL_KNOWN] = response(b'{"m.server":"b.example:444"}')
        peer = self.peer("1.2.3.5", 444, "b.example")
        await self.get("a.example")
        self.assertEqual(web.requests[0].headers["host"], "a.example")
        self.assertNotIn("authorization", web.requests[0].headers)
        self.assertEqual(peer.requests[0].headers["host"], "b.example:444")
        self.assertEqual(peer.requests[0].sni, "b.example")
        self.assertIn('destination="a.example"', peer.requests[0].headers["authorization"])

    async def test_srv_after_well_known_failed(self) -> None:
        """Shows KEY-1, KEY-2: the target of an SRV record proves the name looked up."""
        self.dns.srv("_matrix-fed._tcp.a.example", "target.example", 777)
        self.dns.srv("_matrix._tcp.a.example", "old.example", 778)
        self.dns.address("target.example", "1.2.3.6")
        peer = self.peer("1.2.3.6", 777, "a.example")
        await self.get("a.example")
        self.assertEqual(peer.requests[0].headers["host"], "a.example")
        self.assertEqual(peer.requests[0].sni, "a.example")

    async def test_the_target_of_srv_cannot_prove_itself_only(self) -> None:
        """Shows KEY-2."""
        self.dns.srv("_matrix-fed._tcp.a.example", "target.example", 777)
        self.dns.address("target.example", "1.2.3.6")
        peer = self.peer("1.2.3.6", 777, "target.example")
        self.assertIn("certificate is for another name", await self.unreachable("a.example"))
        self.assertEqual(peer.requests, [])

    async def test_the_old_srv(self) -> None:
        """Shows KEY-1."""
        self.dns.srv("_matrix._tcp.a.example", "old.example", 778)
        self.dns.address("old.example", "1.2.3.6")
        peer = self.peer("1.2.3.6", 778, "a.example")
        await self.get("a.example")
        self.assertEqual(peer.requests[0].headers["host"], "a.example")

    async def test_the_default_port(self) -> None:
        """Shows KEY-1."""
        self.dns.address("a.example", "1.2.3.4")
        peer = self.peer("1.2.3.4", 8448, "a.example")
        await self.get("a.example")
        self.assertEqual(peer.requests[0].headers["host"], "a.example")
        self.assertEqual(peer.requests[0].sni, "a.example")

    async def test_a_target_that_is_an_alias(self) -> None:
        """Shows KEY-4."""
        self.dns.srv("_matrix-fed._tcp.a.example", "alias.example", 777)
        self.dns.add("alias.example", dns.Record_CNAME("real.example"))
        self.dns.address("real.example", "1.2.3.6", question="alias.example")
        peer = self.peer("1.2.3.6", 777, "a.example")
        self.assertIn("no address of its own", await self.unreachable("a.example"))
        self.assertEqual(peer.connections, [])

    async def test_the_next_target_when_one_refuses(self) -> None:
        """Shows KEY-4."""
        self.dns.srv("_matrix-fed._tcp.a.example", "second.example", 2, priority=20)
        self.dns.srv("_matrix-fed._tcp.a.example", "first.example", 1, priority=10)
        self.dns.address("first.example", "1.2.3.6")
        self.dns.address("second.example", "1.2.3.7")
        self.peer("1.2.3.7", 2, "a.example")
        await self.get("a.example")
        self.assertEqual(self.network.reactor.connected, [("1.2.3.6", 1), ("1.2.3.7", 2)])

    async def test_the_next_address_when_one_refuses(self) -> None:
        self.dns.address("a.example", "1.2.3.4")
        self.dns.address("a.example", "2a01::5")
        peer = self.peer("2a01::5", 1, "a.example")
        await self.get("a.example:1")
        self.assertEqual(len(peer.requests), 1)

    async def test_name_servers_that_fail(self) -> None:
        """A server whose records cannot be had is not looked for elsewhere."""
        self.dns.address("a.example", "1.2.3.4")
        self.dns.failing.add("_matrix-fed._tcp.a.example")
        self.peer("1.2.3.4", 8448, "a.example")
        self.assertIn("_matrix-fed._tcp.a.example failed", await self.unreachable("a.example"))


class WellKnownFetchTests(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns.address("a.example", "1.2.3.4")
        self.dns.address("b.example", "1.2.3.5")
        self.web = self.peer("1.2.3.4", 443, "a.example")
        self.default = self.peer("1.2.3.4", 8448, "a.example")
        self.delegated = self.peer("1.2.3.5", 444, "b.example")

    def redirect(self, to: str) -> bytes:
        return response(b"", "302 Found", {"Location": to})

    async def test_redirects_are_followed(self) -> None:
        """Shows KEY-3."""
        other = self.peer("1.2.3.5", 443, "b.example")
        self.web.answers[WELL_KNOWN] = self.redirect("/here?x=1")
        self.web.answers["/here?x=1"] = self.redirect("https://b.example/there")
        other.answers["/there"] = response(b'{"m.server":"b.example:444"}')
        await self.get("a.example")
        self.assertEqual(len(self.delegated.requests), 1)

    async def test_a_loop_of_redirects(self) -> None:
        """Shows KEY-3."""
        self.web.answers[WELL_KNOWN] = self.redirect("/here")
        self.web.answers["/here"] = self.redirect(WELL_KNOWN)
        await self.get("a.example")
        self.assertEqual(len(self.web.requests), 2)
        self.assertEqual(len(self.default.requests), 1)

    async def test_redirects_without_end(self) -> None:
        """Shows KEY-3."""
        self.web.answers[WELL_KNOWN] = self.redirect("/0")
        for number in range(100):
            self.web.answers[f"/{number}"] = self.redirect(f"/{number + 1}")
        await self.get("a.example")
        self.assertEqual(len(self.web.requests), 6)
        self.assertEqual(len(self.default.requests), 1)

    async def test_a_redirect_away_from_https(self) -> None:
        self.web.answers[WELL_KNOWN] = self.redirect("http://b.example/there")
        await self.get("a.example")
        self.assertEqual(len(self.default.requests), 1)

    async def test_redirects_to_what_is_no_address(self) -> None:
        for number, to in enumerate(
            ("https://b.example/a b", "https://b.example/\x01", "https://[")
        ):
            self.web.answers[WELL_KNOWN] = self.redirect(to)
            await self.get("a.example")
            self.assertEqual(len(self.default.requests), number + 1)

    async def test_a_huge_body(self) -> None:
        """Shows KEY-3."""
        body = b'{"m.server":"b.example:444"}' + b" " * 60_000
        self.web.answers[WELL_KNOWN] = response(body)
        await self.get("a.example")
        self.assertEqual(len(self.default.requests), 1)

    async def test_asked_once(self) -> None:
        """Shows KEY-3."""
        self.web.answers[WELL_KNOWN] = response(b'{"m.server":"b.example:444"}')
        await self.get("a.example")
        await self.client.get_json("a.example", "/_matrix/y")
        self.assertEqual(len(self.web.requests), 1)
        self.assertEqual(len(self.delegated.requests), 2)

    async def test_a_redirect_into_the_private_network(self) -> None:
        """Shows KEY-5."""
        inside = self.peer("10.0.0.1", 443, "10.0.0.1")
        self.web.answers[WELL_KNOWN] = self.redirect("https://10.0.0.1/")
        await self.get("a.example")
        self.assertEqual(inside.connections, [])
        self.assertEqual(len(self.default.requests), 1)


class GuardedTests(AgentCase):
    async def test_private_addresses_are_refused(self) -> None:
        """Shows KEY-5."""
        self.dns.address("a.example", "192.168.1.1")
        self.dns.address("a.example", "::ffff:127.0.0.1")
        for name in ("127.0.0.1", "[::1]:80", "[::ffff:10.0.0.1]:80", "a.example:80"):
            self.assertIn("ranges that are not permitted", await self.unreachable(name))
        self.assertEqual(self.network.reactor.connected, [])

    async def test_only_permitted_addresses_of_a_name_are_tried(self) -> None:
        """Shows KEY-5."""
        self.dns.address("a.example", "192.168.1.1")
        self.dns.address("a.example", "1.2.3.4")
        self.peer("1.2.3.4", 80, "a.example")
        await self.get("a.example:80")
        self.assertEqual(self.network.reactor.connected, [("1.2.3.4", 80)])

    async def test_the_name_is_looked_up_once_per_connection(self) -> None:
        """Shows KEY-5: the address that was judged is the one connected to."""
        self.dns.address("a.example", "1.2.3.4")
        self.peer("1.2.3.4", 80, "a.example")
        await self.get("a.example:80")
        self.assertEqual(self.dns.asked, [("a.example", dns.A), ("a.example", dns.AAAA)])
        self.assertEqual(self.network.reactor.connected, [("1.2.3.4", 80)])

    async def test_allowed_ranges(self) -> None:
        """Shows KEY-5."""
        self.peer("10.0.0.1", 8448, "10.0.0.1")
        client = self.network.client(allowed_ip_ranges=(ip_network("10.0.0.0/24"),))
        self.assertEqual(await client.get_json("10.0.0.1", "/_matrix/x"), {"ok": True})


class TlsTests(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns.address("a.example", "1.2.3.4")

    async def test_a_certificate_for_another_name(self) -> None:
        """Shows KEY-2."""
        peer = self.peer("1.2.3.4", 80, "b.example")
        self.assertIn("certificate is for another name", await self.unreachable("a.example:80"))
        self.assertEqual(peer.requests, [])

    async def test_a_certificate_of_an_unknown_authority(self) -> None:
        peer = self.peer("1.2.3.4", 80, "a.example", ca=trustme.CA())
        self.assertIn("certificate verify failed", await self.unreachable("a.example:80"))
        self.assertEqual(peer.requests, [])

    async def test_a_certificate_for_the_name_of_an_address(self) -> None:
        """Shows KEY-2."""
        self.peer("1.2.3.4", 80, "a.example")
        self.assertIn("certificate is for another name", await self.unreachable("1.2.3.4:80"))

    async def test_sessions_are_resumed(self) -> None:
        """Whoever ends the connection, the next one needs no certificate."""
        looked_at: list[Any] = []

        def counted(*args: Any) -> Any:
            looked_at.append(args)
            return verify_service_identity(*args)

        self.patch(tls, "verify_service_identity", counted)
        peer = self.peer("1.2.3.4", 80, "a.example")
        client = self.network.client()
        for number in range(4):
            header = {} if number % 2 else {"Connection": "close"}
            peer.answers["*"] = response(b"{}", headers=header)
            peer.lost = Deferred()
            await client.get_json("a.example:80", "/_matrix/x")
            if number % 2:
                peer.open[0].loseConnection()
            await peer.lost
        self.assertEqual((len(peer.connections), len(looked_at)), (4, 1))

    async def test_verification_switched_off(self) -> None:
        self.peer("1.2.3.4", 80, "b.example", ca=trustme.CA())
        client = self.network.client(verify_certificates=False)
        self.assertEqual(await client.get_json("a.example:80", "/_matrix/x"), {"ok": True})


class ExchangeTests(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns.address("a.example", "1.2.3.4")
        self.server = self.peer("1.2.3.4", 80, "a.example")

    async def fails(self, kind: type[Exception], **options: Any) -> Any:
        return await self.assertFailure(self.deferred(self.get("a.example:80", **options)), kind)

    async def test_connections_are_kept(self) -> None:
        client = self.network.client()
        for _ in range(3):
            await client.put_json("a.example:80", "/_matrix/x", {"a": 1})
        self.assertEqual(len(self.server.connections), 1)
        self.assertEqual([r.body for r in self.server.requests], [b'{"a":1}'] * 3)

    async def test_names_that_differ_in_the_port_share_no_connection(self) -> None:
        self.dns.address("b.example", "1.2.3.4")
        other = self.peer("1.2.3.4", 443, "b.example")
        other.answers[WELL_KNOWN] = response(b"{}")
        default = self.peer("1.2.3.4", 8448, "b.example")
        client = self.network.client()
        await client.get_json("b.example", "/_matrix/x")
        await client.get_json("b.example:443", "/_matrix/y")
        self.assertEqual([r.uri for r in default.requests], ["/_matrix/x"])
        self.assertEqual([r.uri for r in other.requests], [WELL_KNOWN, "/_matrix/y"])

    async def test_a_put_on_a_connection_that_was_given_up(self) -> None:
        """A server may close a kept connection while the next request is on its way."""

        def close(transport: Any) -> None:
            self.server.answers["*"] = OK
            transport.loseConnection()

        self.server.answers["*"] = close
        client = self.network.client()
        self.assertEqual(await client.put_json("a.example:80", "/_matrix/x", {}), {"ok": True})
        self.assertEqual(len(self.server.requests), 2)

    async def test_a_post_is_never_sent_twice(self) -> None:
        self.server.answers["*"] = lambda transport: transport.loseConnection()
        client = self.network.client()
        asking = self.deferred(client.post_json("a.example:80", "/_matrix/x", {}))
        await self.assertFailure(asking, Unreachable)
        self.assertEqual(len(self.server.requests), 1)

    async def test_not_over_a_connection_that_ends_with_its_answer(self) -> None:
        """Of a server that does not say so. Nothing is lost by another one, not even a POST."""

        def answer(transport: Any) -> None:
            transport.write(OK)
            transport.loseConnection()

        self.server.answers["*"] = answer
        client = self.network.client()
        for _ in range(3):
            await client.post_json("a.example:80", "/_matrix/x", {})
        self.assertEqual(len(self.server.requests), 3)

    async def test_redirects_are_not_followed(self) -> None:
        self.server.answers["*"] = response(b"", "302 Found", {"Location": "/_matrix/y"})
        error = await self.fails(RemoteHttpError)
        self.assertEqual((error.status, error.errcode), (302, None))
        self.assertEqual(len(self.server.requests), 1)

    async def test_their_error(self) -> None:
        body = b'{"errcode":"M_LIMIT_EXCEEDED","error":"slow","retry_after_ms":700}'
        self.server.answers["*"] = response(body, "429 Too Many Requests")
        error = await self.fails(RemoteHttpError)
        self.assertEqual(error.destination, "a.example:80")
        self.assertEqual(
            (error.status, error.errcode, error.error), (429, "M_LIMIT_EXCEEDED", "slow")
        )
        self.assertEqual(error.retry_after_ms, 700)

    async def test_an_announced_length_beyond_the_limit(self) -> None:
        self.server.answers["*"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{"
        error = await self.fails(BadAnswer, max_bytes=1000)
        self.assertIn("too large", str(error))
        await self.server.lost

    async def test_an_answer_without_end(self) -> None:
        """The connection is closed at the limit, while the server still sends."""

        class Endless:
            def __init__(self, transport: Any) -> None:
                self.transport = transport
                transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                transport.registerProducer(self, False)

            def resumeProducing(self) -> None:
                self.transport.write(b"400\r\n" + b" " * 1024 + b"\r\n")

            def stopProducing(self) -> None:
                pass

        def start(transport: Any) -> None:
            Endless(transport)

        self.server.answers["*"] = start
        error = await self.fails(BadAnswer, max_bytes=100_000)
        self.assertIn("too large", str(error))
        await self.server.lost

    async def test_no_answer_in_time(self) -> None:
        self.server.answers["*"] = lambda transport: None
        error = await self.fails(RemoteTimeout, timeout_s=0.3)
        self.assertIn("no complete answer", str(error))
        await self.server.lost

    async def test_no_connection_in_time(self) -> None:
        self.network.reactor.silent.add("1.2.3.4")
        await self.fails(RemoteTimeout, timeout_s=0.1)

    async def test_lengths_that_contradict_each_other(self) -> None:
        self.server.answers["*"] = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"
        )
        await self.fails(BadAnswer)

    async def test_a_connection_that_is_closed_at_once(self) -> None:
        self.dns.address("b.example", "1.2.3.4")
        self.server.answers["*"] = lambda transport: transport.abortConnection()
        await self.fails(Unreachable)

    async def test_an_answer_that_stops(self) -> None:
        self.server.answers["*"] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"
        await self.fails(RemoteTimeout, timeout_s=0.3)
        await self.server.lost

    async def test_an_answer_cut_off(self) -> None:
        def cut(transport: Any) -> None:
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
            transport.loseConnection()

        self.server.answers["*"] = cut
        await self.fails(Unreachable)

    async def test_not_http(self) -> None:
        self.server.answers["*"] = b"220 mail.example ESMTP\r\n\r\n"
        self.assertIn("not HTTP", str(await self.fails(BadAnswer)))

    async def test_not_json(self) -> None:
        for body in (b"<html>", b'{"a":NaN}', b"[1]", b""):
            self.server.answers["*"] = response(body)
            await self.fails(BadAnswer)
