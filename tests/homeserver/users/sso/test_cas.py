"""Logging in with a CAS server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from tests.homeserver.users.sso.sso_case import APP, REDIRECT, V3, SsoCase
from tests.support.browser import Browser
from tests.support.web import WebServer

SUCCESS = """<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas">
 <cas:authenticationSuccess><cas:user>{user}</cas:user>
 <cas:attributes><cas:displayName>Alice &amp; co</cas:displayName>
 <cas:mail>alice@example.org</cas:mail><cas:memberOf>a</cas:memberOf><cas:memberOf>b</cas:memberOf>
 </cas:attributes></cas:authenticationSuccess></cas:serviceResponse>"""
FAILURE = """<cas:serviceResponse xmlns:cas="http://www.yale.edu/tp/cas">
 <cas:authenticationFailure code="INVALID_TICKET">no</cas:authenticationFailure>
 </cas:serviceResponse>"""


class CasTest(SsoCase):
    cas: WebServer

    async def start(self, *answers: Any, **more: Any) -> None:
        self.cas = WebServer(self, *answers)
        section = {"server_url": f"{self.cas.url}/cas", "trust_email": True, **more}
        await self.serve([], cas=section)

    async def come(self, ticket: str = "ST-1") -> Browser:
        """To the CAS server and back with a ticket."""
        browser = Browser(self.server)
        await browser.get(f"{REDIRECT}?redirectUrl={quote(APP, safe='')}")
        parts = urlsplit(browser.location)
        self.assertEqual((parts.netloc, parts.path), (self.cas.name, "/cas/login"))
        service = dict(parse_qsl(parts.query))["service"]
        await browser.get(f"{service}&ticket={quote(ticket, safe='')}")
        asked = dict(parse_qsl(urlsplit(self.cas.asked[-1].path).query))
        self.assertEqual(asked, {"service": service, "ticket": ticket})
        return browser

    async def test_login(self) -> None:
        """Shows LOG-14."""
        wanted = [{"claim": "memberOf", "values": ["b"]}]
        await self.start((200, SUCCESS.format(user="alice").encode()), required_claims=wanted)
        _, answer = await self.server.client.get(f"{V3}/login")
        flow = {"type": "m.login.sso", "identity_providers": [{"id": "cas", "name": "CAS"}]}
        self.assertIn(flow, answer["flows"])
        browser = await self.come()
        await browser.submit()
        user = await self.redeem(browser.location)
        self.assertEqual(user.user_id, "@alice:hearth.test")
        profile = await user.ok("GET", f"/profile/{user.user_id}")
        self.assertEqual(profile, {"displayname": "Alice & co"})
        [contact] = (await user.ok("GET", "/account/3pid"))["threepids"]
        self.assertEqual(contact["address"], "alice@example.org")
        browser = await self.come("ST&2=ä")
        self.assertIn(user.user_id, browser.text)

    async def test_refused(self) -> None:
        entity = b'<!DOCTYPE a [<!ENTITY a "x">]>' + SUCCESS.format(user="&a;").encode()
        both = SUCCESS.format(user="alice").replace(
            "</cas:serviceResponse>", "<cas:authenticationFailure/></cas:serviceResponse>"
        )
        answers: tuple[tuple[int, Any, int], ...] = (
            (200, FAILURE.encode(), 403),
            (200, SUCCESS.format(user="").encode(), 502),
            (200, SUCCESS.format(user="x" * 300).encode(), 502),
            (200, SUCCESS.format(user="a").replace("yale", "evil").encode(), 502),
            (200, both.encode(), 502),
            (200, entity, 502),
            (200, b"<a", 502),
            (200, b"", 502),
            (200, b"\xff\xfe<\x00a\x00", 502),
            (200, b'<?xml version="1.0" encoding="nonsense"?><a/>', 502),
            (200, b"<a>" * 80_000, 502),
            (200, b"x" * 300_000, 502),
            (500, b"", 502),
            (302, b"", 502),
        )
        await self.start()
        for status, body, expected in answers:
            self.cas.answers = [(status, body)]
            browser = await self.come()
            self.assertEqual(browser.page.status, expected, (body[:80], browser.text))
            self.assertNotIn("location", browser.page.headers)
        browser = Browser(self.server)
        await browser.get(f"{REDIRECT}?redirectUrl={quote(APP, safe='')}")
        service = dict(parse_qsl(urlsplit(browser.location).query))["service"]
        await browser.get(service)
        await self.refused(403, "not logged in", browser)
