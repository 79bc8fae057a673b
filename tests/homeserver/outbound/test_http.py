"""The guarded client for web servers, and what asks with it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

import config as hearth_config
from federation.client.errors import BadAnswer, RemoteError, RemoteTimeout, Unreachable
from homeserver.outbound.http import OutgoingHttpClient
from tests.support.network import OfflineReactor
from tests.support.server import make_server
from tests.support.web import WebServer


def make_client(test: TestCase, **section: Any) -> OutgoingHttpClient:
    config = hearth_config.from_dict({"server_name": "hearth.test", "outgoing_http": section})
    client = OutgoingHttpClient(OfflineReactor(), config.outgoing_http)
    test.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
    return client


class ClientTest(TestCase):
    timeout = 30

    async def test_form(self) -> None:
        server = WebServer(self, (200, {"success": True}))
        client = make_client(self, **WebServer.trust())
        found = await client.post_form(f"{server.url}/verify?a=b", {"x": "ä&=", "y": "\n"})
        self.assertEqual(found, {"success": True})
        [asked] = server.asked
        self.assertEqual((asked.method, asked.path), ("POST", "/verify?a=b"))
        self.assertEqual(asked.form, {"x": "ä&=", "y": "\n"})
        self.assertEqual(asked.headers["host"], server.name)

    async def test_denied_addresses(self) -> None:
        server = WebServer(self)
        client = make_client(self, ca_files=WebServer.trust()["ca_files"])
        for url in (server.url, "https://127.0.0.1:1", "https://[::1]:1", "https://10.0.0.1/"):
            with self.assertRaises(Unreachable) as caught:
                await client.request("GET", url, {})
            self.assertIn("not permitted", str(caught.exception))
        self.assertEqual(server.asked, [])

    async def test_certificates_are_verified(self) -> None:
        server = WebServer(self)
        for section in (
            {**WebServer.trust(), "ca_files": []},
            WebServer.trust(),
        ):
            url = (
                server.url
                if not section["ca_files"]
                else server.url.replace("localhost", "127.0.0.1")
            )
            with self.assertRaises(Unreachable):
                await make_client(self, **section).request("GET", url, {})
        self.assertEqual(server.asked, [])
        careless = make_client(self, **WebServer.trust(ca_files=[], verify_tls=False))
        self.assertEqual((await careless.request("GET", server.url, {})).status, 200)

    async def test_bad_urls(self) -> None:
        client = make_client(self)
        for url in (
            "http://example.org/",
            "ftp://example.org/",
            "example.org",
            "https://",
            "https://exa mple.org/",
            "https://user@example.org/",
            "https://example.org/ä",
            "https://example.org/\r\nX: y",
            "https://example.org/a b",
            "https://example.org:99999999/",
        ):
            with self.assertRaises(RemoteError, msg=url):
                await client.request("GET", url, {})

    async def test_bad_answers(self) -> None:
        client = make_client(self, **WebServer.trust())
        answer: tuple[int, Any]
        for answer in ((200, b"<html>"), (200, b"[]"), (500, {}), (302, {}), (200, b"x" * 300_000)):
            server = WebServer(self, answer)
            with self.assertRaises(BadAnswer, msg=repr(answer)[:40]):
                await client.post_form(server.url, {})

    async def test_no_answer(self) -> None:
        server = WebServer(self, None)
        client = make_client(self, **WebServer.trust())
        with self.assertRaises(RemoteTimeout):
            await client.request("GET", server.url, {}, timeout_s=0.1)


class CaptchaTest(TestCase):
    timeout = 30

    async def register(self, server: Any, response: Any, session: str | None = None) -> Any:
        auth = {"type": "m.login.recaptcha", "response": response}
        if session is not None:
            auth["session"] = session
        body = {"username": "alice", "password": "wonderland", "auth": auth}
        return await server.client.post("/_matrix/client/v3/register", body, address="192.0.2.7")

    async def prepare(self, web: WebServer) -> Any:
        return await make_server(
            self,
            outgoing_http=WebServer.trust(),
            registration={"without_verification": False},
            recaptcha={
                "verify_url": f"{web.url}/siteverify",
                "public_key": "site",
                "private_key": "hidden",
            },
        )

    async def test_solved(self) -> None:
        web = WebServer(self, (200, {"success": False}), (200, {"success": True}))
        server = await self.prepare(web)
        status, asked = await server.client.post("/_matrix/client/v3/register", {"username": "a"})
        self.assertEqual(status, 401)
        self.assertEqual(asked["flows"], [{"stages": ["m.login.recaptcha"]}])
        self.assertEqual(asked["params"], {"m.login.recaptcha": {"public_key": "site"}})
        status, answer = await self.register(server, "wrong")
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        status, answer = await self.register(server, "right", answer["session"])
        self.assertEqual(status, 200, answer)
        fields = {"secret": "hidden", "response": "right", "remoteip": "192.0.2.7"}
        self.assertEqual(web.asked[-1].form, fields)

    async def test_page(self) -> None:
        """Shows LOG-16."""
        server = await self.prepare(WebServer(self, (200, {"success": True})))
        _, asked = await server.client.post("/_matrix/client/v3/register", {"username": "a"})
        path = "/_matrix/client/v3/auth/m.login.recaptcha/fallback/web"
        query = {"session": asked["session"]}
        page = await server.client.full("GET", path, query=query)
        self.assertIn(b'data-sitekey="site"', page.body)
        done = await server.client.full(
            "POST", path, query=query, body=b"g-recaptcha-response=right"
        )
        self.assertIn(b"onAuthDone", done.body)

    async def test_what_is_no_success(self) -> None:
        for answer in ((200, {"success": "true"}), (200, {"success": 1}), (200, {}), (500, {})):
            server = await self.prepare(WebServer(self, answer))
            self.assertEqual((await self.register(server, "x"))[0], 401, answer)
        web = WebServer(self)
        server = await self.prepare(web)
        for response, status in ((None, 400), (1, 400), ("", 401), ("x" * 9_000, 401)):
            self.assertEqual((await self.register(server, response))[0], status)
        self.assertEqual(web.asked, [])
