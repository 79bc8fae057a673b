"""Pages for stages of interactive authentication, and for logging in."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from homeserver.users.registration_tokens import RegistrationTokens
from tests.homeserver.api.client.mail_case import V3, MailCase
from tests.homeserver.api.client.test_email_registration import TERMS
from tests.support.client import FullAnswer

DONE = b"window.onAuthDone()"
BODY = {"username": "alice", "password": "wonderland"}


class PagesTest(MailCase):
    async def begin(self) -> str:
        status, answer = await self.server.client.post(f"{V3}/register", BODY)
        self.assertEqual(status, 401)
        session: str = answer["session"]
        return session

    async def finish(self, session: str) -> int:
        body = {**BODY, "auth": {"session": session}}
        return (await self.server.client.post(f"{V3}/register", body)).status

    async def page(
        self, stage: str, session: str, form: dict[str, str] | None = None
    ) -> FullAnswer:
        path = f"{V3}/auth/{stage}/fallback/web"
        query = {"session": session}
        if form is None:
            return await self.server.client.full("GET", path, query=query)
        body = urlencode(form).encode()
        return await self.server.client.full("POST", path, query=query, body=body)

    async def test_all_stages_of_a_registration(self) -> None:
        """Shows LOG-16, UIA-5, UIA-11, UIA-12: a client that knows no stage registers."""
        registration = {"require_token": True, "require_email": True, "terms": TERMS}
        await self.prepare(registration=registration)
        await self.server.homeserver.services[RegistrationTokens].create("sesame")
        session = await self.begin()
        token, terms, email = (
            "m.login.registration_token",
            "m.login.terms",
            "m.login.email.identity",
        )
        for stage in (token, terms, email):
            page = await self.page(stage, session)
            self.assertEqual(page.status, 200)
            self.assertEqual(page.headers["content-type"], "text/html; charset=utf-8")
            self.assertIn(b'<form method="post"', page.body)
            self.assertNotIn(DONE, page.body)
        wrong = await self.page(token, session, {"token": "wrong"})
        self.assertEqual(wrong.status, 401)
        self.assertNotIn(DONE, wrong.body)
        self.assertIn(DONE, (await self.page(token, session, {"token": "sesame"})).body)
        self.assertIn(b"https://hearth.test/de", (await self.page(terms, session)).body)
        self.assertIn(DONE, (await self.page(terms, session, {})).body)
        self.assertEqual(await self.finish(session), 401)
        sent = await self.page(email, session, {"email": "a@example.org"})
        self.assertEqual(sent.status, 200)
        self.assertEqual(await self.finish(session), 401)
        await self.open_link()
        self.assertEqual(await self.finish(session), 200)

    async def test_password(self) -> None:
        """Shows LOG-16, UIA-3."""
        await self.prepare()
        alice = await self.server.register("alice")
        bob = await self.server.register("bob", "bobs password")
        path = f"/devices/{alice.device_id}"
        _, asked = await alice.call("DELETE", path, {})
        session = asked["session"]
        stage = "m.login.password"
        for password in ("wrong", "bobs password", ""):
            page = await self.page(stage, session, {"password": password})
            self.assertEqual(page.status, 401)
        page = await self.page(stage, session, {"password": "wonderland"})
        self.assertIn(DONE, page.body)
        status, _ = await bob.call("DELETE", path, {"auth": {"session": session}})
        self.assertEqual(status, 403)
        await alice.ok("DELETE", path, {"auth": {"session": session}})

    async def test_what_is_no_stage(self) -> None:
        """Shows LOG-16, UIA-3."""
        await self.prepare(registration={"require_email": True})
        session = await self.begin()
        for stage, of in (
            ("m.login.dummy", session),
            ("m.login.terms", session),
            ("m.login.password", session),
            ("nonsense", session),
            ("m.login.email.identity", "unknown"),
            ("m.login.email.identity", ""),
            ("m.login.email.identity", "\0"),
        ):
            form: dict[str, str] | None
            for form in (None, {}):
                page = await self.page(stage, of, form)
                self.assertEqual(page.status, 400, (stage, of))
                self.assertNotIn(DONE, page.body if isinstance(page.body, bytes) else b"")

    async def test_html_in_what_is_shown(self) -> None:
        await self.prepare(
            registration={
                "terms": [
                    {
                        "name": "x",
                        "version": "1",
                        "texts": [
                            {
                                "language": "en",
                                "title": "<script>alert(1)</script>",
                                "url": 'https://x/"><img src=x>',
                            }
                        ],
                    }
                ]
            }
        )
        page = await self.page("m.login.terms", await self.begin())
        self.assertNotIn(b"<script>alert", page.body)
        self.assertNotIn(b"<img", page.body)
        self.assertIn("script-src 'nonce-", page.headers["content-security-policy"])

    async def test_login_page(self) -> None:
        """Shows LOG-16."""
        await self.prepare()
        page = await self.server.client.full(
            "GET", "/_matrix/static/client/login/", query={"device_id": "<b>X"}
        )
        self.assertEqual(page.status, 200)
        self.assertIn(b"window.matrixLogin.onLogin", page.body)
        self.assertNotIn(b"<b>X", page.body)

    async def test_guessing_on_pages_is_limited(self) -> None:
        """Shows UIA-11, HTTP-10."""
        limits: dict[str, Any] = {"enabled": True, "login": {"per_second": 0.001, "burst": 3}}
        await self.prepare(registration={"require_token": True}, rate_limits=limits)
        session = await self.begin()
        statuses = [
            (await self.page("m.login.registration_token", session, {"token": "x"})).status
            for _ in range(4)
        ]
        self.assertEqual(statuses, [401, 401, 401, 429])
