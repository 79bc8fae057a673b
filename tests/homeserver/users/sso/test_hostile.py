"""What must not log anybody in: foreign browsers, replays, lying and failing providers."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import OctKey
from twisted.internet.defer import Deferred, gatherResults

from homeserver.users.sso import flow
from homeserver.users.sso.kept import PAUSE_S
from storage import sso_sessions
from tests.homeserver.users.sso.sso_case import APP, REDIRECT, SsoCase
from tests.support.browser import Browser
from tests.support.oidc import ALICE, SECRET, other_key

BEGIN = f"{REDIRECT}?redirectUrl={quote(APP, safe='')}"
OVER = "over, or was begun in another browser"
FAULT = "does not answer as it should"


class BrowsersTest(SsoCase):
    async def test_other_browsers(self) -> None:
        """Shows LOG-13: only the browser that was sent may come back, and once."""
        await self.prepare()
        mine, other = Browser(self.server), Browser(self.server)
        await mine.get(BEGIN)
        back = self.oidc.log_in(mine.location)
        await other.get(back)
        await self.refused(400, OVER, other)
        await other.get(BEGIN)
        await other.get(back)
        await self.refused(400, OVER, other)
        self.assertNotIn("/realm/token", self.oidc.asked)
        await mine.get(back)
        self.assertEqual(mine.page.status, 200)
        form = mine.page
        await mine.get(back)
        await self.refused(400, OVER, mine)
        self.assertEqual(self.oidc.asked.count("/realm/token"), 1)
        # The form of one browser in another, and twice.
        mine.page, mine.url = form, "https://hearth.test/_matrix/static/client/sso/callback"
        kept, mine.cookies = mine.cookies, other.cookies
        await mine.submit()
        await self.refused(400, OVER, mine)
        mine.page, mine.cookies = form, kept
        mine.url = "https://hearth.test/_matrix/static/client/sso/callback"
        await mine.submit()
        await self.redeem(mine.location)
        mine.page = form
        mine.url = "https://hearth.test/_matrix/static/client/sso/callback"
        await mine.submit()
        await self.refused(400, OVER, mine)

    async def test_two_tabs(self) -> None:
        await self.prepare()
        browser = Browser(self.server)
        backs = []
        for _ in range(2):
            await browser.get(BEGIN)
            backs.append(self.oidc.log_in(browser.location))
        for back in backs:
            await browser.get(back)
            self.assertEqual(browser.page.status, 200)

    async def test_bad_answers_in_the_query(self) -> None:
        await self.prepare()
        browser = Browser(self.server)
        await browser.get(BEGIN)
        url, _, query = self.oidc.log_in(browser.location).partition("?")
        fields = dict(parse_qsl(query))
        for wrong in (
            {"state": fields["state"][:-1] + "\x00"},
            {"state": "x" * 43},
            {"state": ""},
            {"state": "a" * 100_000},
        ):
            await browser.get(f"{url}?{urlencode({**fields, **wrong})}")
            await self.refused(400, OVER, browser)
        await browser.get(url)
        self.assertEqual(browser.page.status, 400)
        await browser.get(f"{url}?" + "&".join(f"a{i}=b" for i in range(500)))
        self.assertEqual(browser.page.status, 400)
        for changed, status in (
            ({"code": "unknown"}, 403),
            ({"code": "\x00"}, 403),
            ({"code": "x" * 9_000}, 403),
            ({"iss": "https://evil.example"}, 502),
            ({"code": "", "error": "access_denied<b>"}, 403),
        ):
            await browser.get(BEGIN)
            back = dict(parse_qsl(self.oidc.log_in(browser.location).partition("?")[2]))
            await browser.get(f"{url}?{urlencode({**back, **changed})}")
            self.assertEqual(browser.page.status, status, (changed, browser.text))
            self.assertNotIn(b"<b>", browser.page.body)

    async def test_sessions_end(self) -> None:
        """They are bounded in time and number."""
        self.patch(flow, "MAX_SESSIONS", 3)
        await self.prepare(server={"sso": {"session_lifetime": "1ms"}})
        browser = Browser(self.server)
        await browser.get(BEGIN)
        back = self.oidc.log_in(browser.location)
        started = time.monotonic()
        while time.monotonic() < started + 0.002:
            pass
        await browser.get(back)
        await self.refused(400, OVER, browser)
        await self.serve([self.oidc.config()])
        browsers = [Browser(self.server) for _ in range(5)]
        for each in browsers:
            await each.get(BEGIN)
        db = self.server.homeserver.db
        count = "SELECT COUNT(*) FROM sso_sessions"
        self.assertEqual(await db.read(lambda txn: txn.value(count)), 3)
        await browsers[0].get(self.oidc.log_in(browsers[0].location))
        await self.refused(400, OVER, browsers[0])
        await browsers[4].get(self.oidc.log_in(browsers[4].location))
        self.assertEqual(browsers[4].page.status, 200)
        self.assertGreater(await db.write(sso_sessions.delete_expired, 2**60), 0)

    async def test_many_at_once(self) -> None:
        """The same person makes one account, in however many browsers they come back."""
        await self.prepare()
        browsers = [Browser(self.server) for _ in range(5)]
        for each in browsers:
            await each.get(BEGIN)
        backs = [self.oidc.log_in(each.location) for each in browsers]
        pairs = zip(browsers, backs, strict=True)
        coming = [Deferred.fromCoroutine(each.get(back)) for each, back in pairs]
        for page in await gatherResults(coming, consumeErrors=True):
            self.assertEqual(page.status, 200, page.body)
            self.assertIn(b"@alice:hearth.test", page.body)
            self.assertIn(b'action="confirm"', page.body)

    async def test_limits(self) -> None:
        limits: dict[str, Any] = {"enabled": True, "login": {"per_second": 0.001, "burst": 2}}
        await self.prepare(server={"rate_limits": limits})
        statuses = [(await Browser(self.server).get(BEGIN)).status for _ in range(3)]
        self.assertEqual(statuses, [302, 302, 429])


class LyingProviderTest(SsoCase):
    async def fails(self, what: Any) -> None:
        browser = await self.go()
        self.assertEqual(browser.page.status, 502, (what, browser.text))
        self.assertIn(FAULT, browser.text)

    async def test_claims(self) -> None:
        await self.prepare()
        now = int(time.time())
        for changed in (
            {"nonce": "x"},
            {"nonce": None},
            {"aud": "other"},
            {"aud": None},
            {"aud": ["hearth", "other"]},
            {"aud": "hearth", "azp": "other"},
            {"iss": "https://evil.example"},
            {"iss": self.oidc.issuer + "/"},
            {"exp": now - 1000},
            {"exp": None},
            {"exp": "never"},
            {"iat": now + 1000},
            {"iat": True},
            {"nbf": now + 1000},
            {"sub": None},
            {"sub": ""},
            {"sub": 4711},
            {"sub": "x" * 256},
            {"sub": "a\x00"},
            {"sub": "other"},
        ):
            self.oidc.claims = lambda claims, changed=changed: claims.update(changed)  # type: ignore[misc]
            await self.fails(changed)
        self.oidc.claims = lambda claims: claims.update(aud=["hearth", "b"], azp="hearth")
        self.assertEqual((await self.go()).page.status, 200)
        self.oidc.claims = lambda claims: None
        self.oidc.userinfo = lambda claims: claims.update(sub="4712")
        await self.fails("userinfo")

    async def test_signatures(self) -> None:
        await self.prepare()
        oidc = self.oidc
        other, curve = other_key(), other_key("EC")

        def signed(header: dict[str, Any], key: Any) -> Any:
            algorithm = header["alg"]
            return lambda claims: jws.serialize_compact(
                header, json.dumps(claims), key, [algorithm]
            )

        def unsigned(claims: dict[str, Any], algorithm: str = "none") -> str:
            parts = [{"alg": algorithm}, claims]
            texts = [urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in parts]
            return ".".join(text.decode() for text in texts) + "."

        def by_public_key(claims: dict[str, Any]) -> str:
            head, payload, _ = unsigned(claims, "HS256").split(".")
            pem = oidc.key.as_pem(private=False)
            mac = hmac.new(pem, f"{head}.{payload}".encode(), hashlib.sha256).digest()
            return f"{head}.{payload}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"

        for name, sign in {
            "foreign": signed({"alg": "RS256", "kid": "first"}, other),
            "unknown key": signed({"alg": "RS256", "kid": "second"}, other),
            "no name": signed({"alg": "RS256"}, other),
            "other kind": signed({"alg": "ES256", "kid": "first"}, curve),
            "none": unsigned,
            "secret": signed({"alg": "HS256", "kid": "first"}, OctKey.import_key(SECRET)),
            "public key as secret": by_public_key,
            "embedded": signed({"alg": "RS256", "jwk": other.as_dict(private=False)}, other),
            "malformed": lambda claims: "a.b.c",
            "two parts": lambda claims: "a.b",
            "empty": lambda claims: "",
            "number": lambda claims: 17,
            "no object": lambda claims: jws.serialize_compact(
                {"alg": "RS256", "kid": "first"}, "[]", oidc.key, ["RS256"]
            ),
            "not ASCII": lambda claims: "ä.ä.ä",
            "huge": lambda claims: "a" * 100_000,
        }.items():
            oidc.sign = sign
            await self.fails(name)
        self.assertLess(oidc.asked.count("/realm/keys"), 4)
        oidc.sign = lambda claims: jws.serialize_compact(
            {"alg": "RS256"}, json.dumps(claims), oidc.key, ["RS256"]
        )
        self.assertEqual((await self.go()).page.status, 200)

    async def test_new_keys(self) -> None:
        """Keys that the provider changed are asked for."""
        await self.prepare()
        await self.log_in()
        new = other_key("EC")
        self.oidc.keys = [new, {}][:1]
        self.oidc.sign = lambda claims: jws.serialize_compact(
            {"alg": "ES256", "kid": "first"}, json.dumps(claims), new, ["ES256"]
        )
        await self.log_in()
        self.assertEqual(self.oidc.asked.count("/realm/keys"), 2)

    async def test_bad_answers(self) -> None:
        await self.prepare()
        nested = b"[" * 200_000
        answers: tuple[tuple[int, Any], ...] = (
            (200, b"<html>"),
            (200, []),
            (200, {}),
            (500, {}),
            (302, {}),
            (400, {"error": "invalid_request"}),
            (401, {"error": "<b>"}),
            (200, b"x" * 300_000),
            (200, nested),
            (200, {"access_token": "a\nb", "id_token": None}),
        )
        for answer in answers:
            self.oidc.answers = {"/realm/token": answer}
            await self.fails(answer)
        for answer in ((200, b"<html>"), (200, {}), (401, {}), (200, b"x" * 300_000)):
            self.oidc.answers = {"/realm/userinfo": answer}
            await self.fails(answer)
        self.oidc.answers = {}
        self.assertEqual((await self.go()).page.status, 200)


class FailingProviderTest(SsoCase):
    async def begin(self) -> Browser:
        browser = Browser(self.server)
        await browser.get(BEGIN)
        return browser

    async def test_description(self) -> None:
        """A provider's description is checked, and asked for again soon."""
        await self.prepare()
        path = "/realm/.well-known/openid-configuration"
        self.oidc.answers = {path: (500, {})}
        await self.refused(502, FAULT, await self.begin())
        self.oidc.answers = {}
        asked = len(self.oidc.asked)
        await self.refused(502, FAULT, await self.begin())
        self.assertEqual(len(self.oidc.asked), asked)
        self.assertLess(PAUSE_S, 60)
        for changed in (
            {"issuer": "https://evil.example"},
            {"authorization_endpoint": "javascript:alert(1)"},
            {"authorization_endpoint": "http://localhost/"},
            {"token_endpoint": None},
            {"jwks_uri": "https://"},
        ):
            self.oidc.metadata = lambda metadata, changed=changed: metadata.update(changed)  # type: ignore[misc]
            await self.serve([self.oidc.config()])
            await self.refused(502, FAULT, await self.begin())

    async def test_inside(self) -> None:
        """What the operator names may be inside; what a provider names besides may not."""
        await self.prepare()
        inner = self.oidc.issuer.replace("localhost", "127.0.0.1")
        for name in ("token_endpoint", "jwks_uri", "userinfo_endpoint"):
            self.oidc.metadata = lambda metadata, name=name: metadata.update({name: f"{inner}/x"})  # type: ignore[misc]
            await self.serve([self.oidc.config()])
            asked = len(self.oidc.asked)
            await self.refused(502, FAULT, await self.go())
            self.assertNotIn("/realm/x", self.oidc.asked[asked:])

    async def test_redirects_are_not_followed(self) -> None:
        await self.prepare()
        self.oidc.answers = {"/realm/keys": (307, {})}
        await self.refused(502, FAULT, await self.go())

    async def test_down(self) -> None:
        """A provider that is away has a page; what was known of it is used on."""
        await self.prepare()
        browser = await self.begin()
        back = self.oidc.log_in(browser.location)
        await self.oidc.stop()
        await browser.get(back)
        await self.refused(502, FAULT, browser)
        self.assertEqual((await self.begin()).page.status, 302)
        await self.serve([self.oidc.config()])
        await self.refused(502, FAULT, await self.begin())

    async def test_secrets(self) -> None:
        """The secret in the form, a wrong one, and none."""
        await self.prepare(client_auth="post")
        self.oidc.auth = "post"
        self.assertEqual((await self.go()).page.status, 200)
        await self.serve([self.oidc.config(client_secret="wrong")])
        await self.refused(502, FAULT, await self.go())
        public = self.oidc.config()
        del public["client_secret"]
        await self.serve([public])
        await self.refused(502, FAULT, await self.go())

    async def test_nothing_but_the_token(self) -> None:
        """Without userinfo the claims of the ID token count."""
        await self.prepare(userinfo=False)
        self.oidc.claims = lambda claims: claims.update(preferred_username="carol")
        user = await self.log_in()
        self.assertEqual(user.user_id, "@carol:hearth.test")
        self.assertNotIn("/realm/userinfo", self.oidc.asked)
        self.assertEqual(urlsplit(self.oidc.issuer).scheme, "https")
        self.assertEqual(ALICE["sub"], "4711")
