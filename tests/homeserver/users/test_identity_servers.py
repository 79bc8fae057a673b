"""Publishing and withdrawing addresses at identity servers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from federation.client.signer import encode_content
from homeserver.core import canonical, x_matrix
from homeserver.core.signing import encode_base64
from homeserver.startup import load_signing_keys
from storage import bound_threepids
from tests.support.server import TestServer, User, make_server
from tests.support.web import WebServer

BINDING = {"medium": "email", "address": "a@example.org", "mxid": "@alice:hearth.test"}
THREEPID = {"medium": "email", "address": "a@example.org"}


class IdentityTest(TestCase):
    timeout = 30
    server: TestServer
    alice: User
    web: WebServer

    async def prepare(self, *answers: Any) -> None:
        self.web = WebServer(self, *answers)
        self.server = await make_server(
            self, outgoing_http=WebServer.trust(), identity_servers=[self.web.name]
        )
        self.alice = await self.server.register("alice")

    def creds(self, **more: Any) -> dict[str, Any]:
        return {
            "id_server": self.web.name,
            "id_access_token": "id-token",
            "sid": "sid",
            "client_secret": "secret",
            **more,
        }

    async def bound(self) -> list[str]:
        rows = await self.server.homeserver.db.read(bound_threepids.of_user, self.alice.user_id)
        return [row.address for row in rows]

    async def test_bind(self) -> None:
        """Shows ACC-3."""
        await self.prepare((200, BINDING))
        await self.alice.ok("POST", "/account/3pid/bind", self.creds())
        [asked] = self.web.asked
        self.assertEqual(asked.path, "/_matrix/identity/v2/3pid/bind")
        self.assertEqual(asked.headers["authorization"], "Bearer id-token")
        expected = {"sid": "sid", "client_secret": "secret", "mxid": self.alice.user_id}
        self.assertEqual(asked.json, expected)
        self.assertEqual(await self.bound(), ["a@example.org"])

    async def test_old_form(self) -> None:
        await self.prepare((200, BINDING))
        await self.alice.ok("POST", "/account/3pid", {"three_pid_creds": self.creds()})
        self.assertEqual(await self.bound(), ["a@example.org"])
        status, answer = await self.alice.call("POST", "/account/3pid", {})
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))

    async def test_servers_that_are_not_trusted(self) -> None:
        """Shows ACC-4."""
        await self.prepare()
        for name in ("evil.example", "127.0.0.1", f"{self.web.name}/x", "", self.web.name.upper()):
            for path, body in (
                ("bind", self.creds(id_server=name)),
                ("unbind", {**THREEPID, "id_server": name}),
            ):
                status, answer = await self.alice.call("POST", f"/account/3pid/{path}", body)
                self.assertEqual((status, answer["errcode"]), (400, "M_SERVER_NOT_TRUSTED"))
        self.assertEqual(self.web.asked, [])

    async def test_errors_are_passed_on(self) -> None:
        for answered, expected in (
            ((400, {"errcode": "M_SESSION_NOT_VALIDATED", "error": "x"}),) * 2,
            (
                (401, {"errcode": "M_UNKNOWN_TOKEN", "error": "x"}),
                (403, {"errcode": "M_FORBIDDEN", "error": "x"}),
            ),
            ((500, {"errcode": "M_UNKNOWN"}), (502, {"errcode": "M_UNKNOWN"})),
            ((200, b"no json"), (502, {"errcode": "M_UNKNOWN"})),
            ((200, {"medium": 1, "address": []}), (502, {"errcode": "M_UNKNOWN"})),
            ((200, {"medium": "email", "address": "a\0"}), (502, {"errcode": "M_UNKNOWN"})),
        ):
            await self.prepare(answered)
            status, answer = await self.alice.call("POST", "/account/3pid/bind", self.creds())
            self.assertEqual((status, answer["errcode"]), (expected[0], expected[1]["errcode"]))
            self.assertEqual(await self.bound(), [])

    async def test_header_injection(self) -> None:
        await self.prepare()
        for token in ("a\r\nX: y", "a\nb", "ä", "", "x" * 5_000):
            body = self.creds(id_access_token=token)
            status, answer = await self.alice.call("POST", "/account/3pid/bind", body)
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))
        self.assertEqual(self.web.asked, [])

    async def test_unbind(self) -> None:
        """Shows ACC-3: the request is signed, and goes where the address was published."""
        await self.prepare((200, BINDING), (200, {}))
        await self.alice.ok("POST", "/account/3pid/bind", self.creds())
        answer = await self.alice.ok("POST", "/account/3pid/unbind", THREEPID)
        self.assertEqual(answer, {"id_server_unbind_result": "success"})
        asked = self.web.asked[-1]
        self.assertEqual(asked.path, "/_matrix/identity/v2/3pid/unbind")
        self.assertEqual(asked.json, {"mxid": self.alice.user_id, "threepid": THREEPID})
        self.assertTrue(self._is_signed(asked.headers["authorization"], asked.json))
        self.assertEqual(await self.bound(), [])
        answer = await self.alice.ok("POST", "/account/3pid/unbind", THREEPID)
        self.assertEqual(answer, {"id_server_unbind_result": "no-support"})

    def _is_signed(self, header: str, content: Any) -> bool:
        [found] = x_matrix.parse(header)
        key = load_signing_keys(self.server.homeserver.config)[0]
        message = canonical.encode(
            {
                "method": "POST",
                "uri": "/_matrix/identity/v2/3pid/unbind",
                "origin": "hearth.test",
                "destination": self.web.name,
                "content": canonical.parse(encode_content(content)),
            }
        )
        return found.signature == encode_base64(key.sign(message))

    async def test_unbind_is_not_supported(self) -> None:
        """Shows ACC-2, ACC-3."""
        for answered, expected in (
            ((404, b"<html>"), "no-support"),
            ((501, b""), "no-support"),
            ((400, b""), "no-support"),
        ):
            await self.prepare((200, BINDING), answered)
            await self.alice.ok("POST", "/account/3pid/bind", self.creds())
            answer = await self.alice.ok("POST", "/account/3pid/unbind", THREEPID)
            self.assertEqual(answer, {"id_server_unbind_result": expected})
            self.assertEqual(await self.bound(), ["a@example.org"])
        await self.prepare((403, {"errcode": "M_FORBIDDEN", "error": "no"}))
        body = {**THREEPID, "id_server": self.web.name}
        status, answer = await self.alice.call("POST", "/account/3pid/unbind", body)
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_deactivation_withdraws(self) -> None:
        """Shows ACC-1, ACC-2."""
        for answered, expected in (((200, {}), "success"), ((500, b""), "no-support")):
            await self.prepare((200, BINDING), answered)
            await self.alice.ok("POST", "/account/3pid/bind", self.creds())
            auth = {"type": "m.login.password", "password": "wonderland"}
            answer = await self.alice.ok("POST", "/account/deactivate", {"auth": auth})
            self.assertEqual(answer, {"id_server_unbind_result": expected})
