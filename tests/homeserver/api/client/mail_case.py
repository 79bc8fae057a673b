"""Tests with a homeserver that sends e-mail to a real mail server."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from twisted.trial.unittest import TestCase

from tests.support.client import Answer
from tests.support.server import TestServer, User, make_server
from tests.support.smtp import SmtpServer, parts

V3 = "/_matrix/client/v3"
PAGE = "/_matrix/static/client/email/validate"
SECRET = "s3cret"
ADDRESS = "alice@example.org"
_LINK = re.compile(r"https://\S+")


class MailCase(TestCase):
    timeout = 60
    server: TestServer
    smtp: SmtpServer

    async def prepare(self, email: dict[str, Any] | None = None, **overrides: Any) -> None:
        self.smtp = SmtpServer(self)
        section = {**self.smtp.config, **(email or {})}
        self.server = await make_server(self, email=section, **overrides)

    async def ask(
        self,
        what: str,
        email: str = ADDRESS,
        *,
        secret: str = SECRET,
        attempt: int = 1,
        **more: Any,
    ) -> Answer:
        """Ask for a message: `what` is register, account/password or account/3pid."""
        body = {"client_secret": secret, "email": email, "send_attempt": attempt, **more}
        return await self.server.client.post(f"{V3}/{what}/email/requestToken", body)

    async def sid(self, what: str, email: str = ADDRESS, **options: Any) -> str:
        """Ask for a message; the ID of the session."""
        status, answer = await self.ask(what, email, **options)
        self.assertEqual(status, 200, answer)
        sid: str = answer["sid"]
        return sid

    async def open_link(self, count: int = 1) -> Any:
        """Open the link of the last of `count` messages, and press the button there."""
        return await self.press(link_of(parts(await self.smtp.received(count))[0]))

    async def press(self, link: str) -> Any:
        fields = dict(parse_qsl(urlsplit(link).query))
        page = await self.server.client.full("GET", f"{PAGE}?{urlsplit(link).query}")
        self.assertEqual(page.status, 200)
        self.assertIn(b'method="post"', page.body)
        return await self.submit(**fields)

    async def submit(self, **fields: str) -> Any:
        return await self.server.client.full("POST", PAGE, body=urlencode(fields).encode())

    async def proved(self, what: str, email: str = ADDRESS, count: int = 1) -> dict[str, str]:
        """Credentials of a session whose link was opened."""
        sid = await self.sid(what, email)
        self.assertEqual((await self.open_link(count)).status, 200)
        return {"sid": sid, "client_secret": SECRET}

    async def with_email(self, name: str = "alice", email: str = ADDRESS, count: int = 1) -> User:
        """A user who has added an address."""
        user = await self.server.register(name)
        creds = await self.proved("account/3pid", email, count)
        status, answer = await self.confirmed(user, "/account/3pid/add", creds)
        self.assertEqual(status, 200, answer)
        return user

    async def confirmed(
        self, user: User, path: str, body: dict[str, Any], password: str = "wonderland"
    ) -> Answer:
        """Make a request, with the password when asked for it."""
        status, asked = await user.call("POST", path, body)
        if status != 401:
            return Answer(status, asked)
        auth = {"type": "m.login.password", "password": password, "session": asked["session"]}
        return await user.call("POST", path, {**body, "auth": auth})

    async def can_log_in(self, name: str, password: str) -> bool:
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": password,
        }
        status, answer = await self.server.client.post(f"{V3}/login", body)
        self.assertIn(status, (200, 403), answer)
        return status == 200


def link_of(text: str) -> str:
    """The link in a message."""
    found = _LINK.search(text)
    assert found is not None, text
    return found[0]


def email_auth(session: str | None, creds: dict[str, str]) -> dict[str, Any]:
    """An `auth` for the e-mail stage."""
    auth: dict[str, Any] = {"type": "m.login.email.identity", "threepid_creds": creds}
    return auth if session is None else {**auth, "session": session}
