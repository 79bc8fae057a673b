"""Tests with a homeserver whose people log in with a provider of OpenID Connect."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from twisted.trial.unittest import TestCase

from tests.support.browser import Browser
from tests.support.oidc import OidcServer
from tests.support.server import TestServer, User, make_server
from tests.support.web import WebServer

V3 = "/_matrix/client/v3"
APP = "https://app.example.org/?x=1#/login"
REDIRECT = f"{V3}/login/sso/redirect"


class SsoCase(TestCase):
    timeout = 60
    server: TestServer
    oidc: OidcServer

    async def prepare(self, *people: dict[str, Any], **provider: Any) -> None:
        """A homeserver with one provider, which knows these people."""
        overrides = provider.pop("server", {})
        self.oidc = OidcServer(self, *people)
        await self.serve([self.oidc.config(**provider)], **overrides)

    async def serve(self, providers: list[dict[str, Any]], **overrides: Any) -> None:
        sso = {"providers": providers, **overrides.pop("sso", {})}
        self.server = await make_server(
            self, sso=sso, outgoing_http={"ca_files": WebServer.trust()["ca_files"]}, **overrides
        )

    async def go(self, redirect_url: str = APP, browser: Browser | None = None) -> Browser:
        """To the provider, through it, and back to the homeserver."""
        browser = browser or Browser(self.server)
        answer = await browser.get(f"{REDIRECT}?redirectUrl={quote(redirect_url, safe='')}")
        self.assertEqual(answer.status, 302, answer.body)
        await browser.get(self.oidc.log_in(browser.location))
        return browser

    async def redeem(self, location: str) -> User:
        """Log in with the login token of an address that a client was sent to."""
        token = location.partition("loginToken=")[2].partition("#")[0].partition("&")[0]
        self.assertTrue(token, location)
        answer = await self.server.client.post(
            f"{V3}/login", {"type": "m.login.token", "token": token}
        )
        self.assertEqual(answer.status, 200, answer.body)
        body = answer.body
        return User(self.server, body["user_id"], body["access_token"], body["device_id"])

    async def log_in(self, redirect_url: str = APP) -> User:
        """The whole way, the client being confirmed."""
        browser = await self.go(redirect_url)
        self.assertEqual(browser.page.status, 200, browser.text)
        await browser.submit()
        return await self.redeem(browser.location)

    async def refused(self, status: int, text: str, browser: Browser) -> None:
        """The page tells of an error, and nobody was logged in."""
        self.assertEqual((browser.page.status, text in browser.text), (status, True), browser.text)
        self.assertNotIn("location", browser.page.headers)

    @staticmethod
    def query(**fields: str) -> str:
        return urlencode(fields)
