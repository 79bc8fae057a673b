"""Logging in with a provider: the whole way, by a browser."""

from __future__ import annotations

from urllib.parse import quote

from tests.homeserver.users.sso.sso_case import APP, REDIRECT, V3, SsoCase
from tests.support.browser import Browser
from tests.support.oidc import ALICE

BOB = {"sub": "4712", "preferred_username": "bob", "name": "Bob"}


class FlowTest(SsoCase):
    async def test_first_and_second_login(self) -> None:
        """Shows LOG-7, LOG-13: an account is made, with what the provider says; the client is
        confirmed; the token is good once."""
        await self.prepare()
        browser = await self.go(f"{APP.partition('#')[0]}&loginToken=old#/login")
        self.assertEqual(browser.page.status, 200)
        self.assertIn("app.example.org", browser.text)
        self.assertIn("@alice:hearth.test", browser.text)
        self.assertNotIn("loginToken", browser.text)
        policy = browser.page.headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertEqual(
            browser.cookie_flags,
            {"Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax", "Secure"},
        )
        await browser.submit()
        self.assertEqual(browser.page.status, 302)
        address, _, rest = browser.location.partition("&loginToken=")
        self.assertEqual(address, "https://app.example.org/?x=1")
        self.assertTrue(rest.endswith("#/login"))
        self.assertEqual(browser.page.headers["referrer-policy"], "no-referrer")
        user = await self.redeem(browser.location)
        self.assertEqual(user.user_id, "@alice:hearth.test")
        profile = await user.ok("GET", f"/profile/{user.user_id}")
        self.assertEqual(profile, {"displayname": "Alice Liddell"})
        [contact] = (await user.ok("GET", "/account/3pid"))["threepids"]
        self.assertEqual((contact["medium"], contact["address"]), ("email", "alice@example.org"))
        token = browser.location.partition("loginToken=")[2].partition("#")[0]
        again = await self.server.client.post(
            f"{V3}/login", {"type": "m.login.token", "token": token}
        )
        self.assertEqual(again.status, 403)
        self.oidc.people = [{**ALICE, "preferred_username": "renamed"}]
        self.assertEqual((await self.log_in()).user_id, "@alice:hearth.test")
        self.assertEqual(self.oidc.asked.count("/realm/keys"), 1)

    async def test_flows(self) -> None:
        """Shows LOG-14."""
        await self.prepare(icon="mxc://hearth.test/abc", brand="example")
        _, answer = await self.server.client.get(f"{V3}/login")
        told = {"id": "work", "name": "Example Ltd"}
        told |= {"icon": "mxc://hearth.test/abc", "brand": "example"}
        self.assertIn({"type": "m.login.sso", "identity_providers": [told]}, answer["flows"])
        self.assertIn({"type": "m.login.token", "get_login_token": True}, answer["flows"])

    async def test_chooser(self) -> None:
        """Shows LOG-14: a page lets people choose; an unknown provider has a page too."""
        await self.prepare()
        two = [self.oidc.config("one", name="<b>One"), self.oidc.config("two")]
        await self.serve(two)
        browser = Browser(self.server)
        url = quote("https://app.example.org/?a=b&loginToken=x&c=%20d#/e", safe="")
        await browser.get(
            f"/_matrix/client/r0/login/sso/redirect?redirectUrl={url}&action=register"
        )
        self.assertEqual(browser.page.status, 200)
        self.assertNotIn(b"<b>One", browser.page.body)
        self.assertEqual(len(browser.links), 2)
        await browser.get(browser.links[1])
        await browser.get(self.oidc.log_in(browser.location))
        self.assertEqual(self.oidc.prompts, ["create"])
        await browser.submit()
        address = browser.location.partition("&loginToken=")[0]
        self.assertEqual(address, "https://app.example.org/?a=b&c=%20d")
        self.assertTrue(browser.location.endswith("#/e"))
        answer = await browser.get(f"{REDIRECT}/three?redirectUrl={url}")
        self.assertEqual(answer.status, 404)
        self.assertIn(b"no such way to log in", answer.body)

    async def test_known_client(self) -> None:
        """A client that the operator knows is not asked about; one that looks alike is."""
        await self.prepare(server={"sso": {"known_clients": ["https://app.example.org/in/"]}})
        known = await self.go("https://app.example.org/in/?x")
        self.assertEqual(known.page.status, 302)
        await self.redeem(known.location)
        for other in (
            "https://app.example.org/other",
            "https://app.example.org.evil.example/in/",
            "https://app.example.org:444/in/",
            "http://app.example.org/in/",
            "https://app.example.org/in/../other",
            "https://app.example.org/in/%2e%2e/other",
        ):
            self.assertEqual((await self.go(other)).page.status, 200, other)

    async def test_apps(self) -> None:
        """Shows LOG-13: schemes of apps are sent to once they are confirmed."""
        await self.prepare()
        for app in ("element://connect", "io.element.desktop:/vector/?a=b", "myapp:"):
            browser = await self.go(app)
            self.assertEqual(browser.page.status, 200)
            await browser.submit()
            self.assertTrue(browser.location.startswith(app), browser.location)
            await self.redeem(browser.location)

    async def test_no_open_redirect(self) -> None:
        await self.prepare()
        for url in (
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "//evil.example/",
            "/relative",
            "",
            "https:evil.example",
            "https://",
            "https:///evil.example",
            "https://app.example.org@evil.example/",
            "https:\\\\evil.example",
            "https://evil.example\r\nX: y",
            "https://evil.example/ a",
            "https://evil.example:99999999/",
            "x" * 9000,
        ):
            browser = Browser(self.server)
            await browser.get(f"{REDIRECT}?redirectUrl={quote(url, safe='')}")
            self.assertEqual(browser.page.status, 400, url)
            self.assertNotIn("location", browser.page.headers)
        answer = await Browser(self.server).get(REDIRECT)
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.body["errcode"], "M_MISSING_PARAM")

    async def test_login_page(self) -> None:
        """Shows LOG-16: a client that knows nothing of single sign-on."""
        await self.prepare()
        browser = Browser(self.server)
        page = "https://hearth.test/_matrix/static/client/login/"
        await browser.get(page)
        self.assertIn("redirect/work", browser.text)
        browser = await self.go(page)
        self.assertEqual(browser.page.status, 302)
        self.assertTrue(browser.location.startswith(f"{page}?loginToken="))


class AccountsTest(SsoCase):
    async def test_name_is_taken(self) -> None:
        """Somebody whose name is taken chooses another, until one is free."""
        await self.prepare()
        await self.server.register("alice")
        await self.server.register("alice2")
        browser = await self.go()
        self.assertIn("User name", browser.text)
        self.assertIn("taken", browser.text)
        for name in ("alice2", "notices", "Ä", "", "x" * 300):
            await browser.submit(localpart=name)
            self.assertIn('name="localpart"', browser.text, name)
            self.assertIn('role="alert"', browser.text, name)
        await browser.submit(localpart=" Alice3 ")
        self.assertIn("@alice3:hearth.test", browser.text)
        await browser.submit()
        self.assertEqual((await self.redeem(browser.location)).user_id, "@alice3:hearth.test")
        self.assertEqual((await self.log_in()).user_id, "@alice3:hearth.test")

    async def test_name_does_not_follow(self) -> None:
        """What the provider says may be no name, and is shown as text."""
        person = {"sub": "<i>", "preferred_username": "A <b>", "name": "<script>"}
        await self.prepare(person)
        browser = await self.go()
        self.assertNotIn(b"<script>", browser.page.body.replace(b"<script nonce", b""))
        await browser.submit(localpart="carol")
        await browser.submit()
        user = await self.redeem(browser.location)
        profile = await user.ok("GET", f"/profile/{user.user_id}")
        self.assertEqual(profile, {"displayname": "<script>"})
        self.assertEqual((await user.ok("GET", "/account/3pid"))["threepids"], [])

    async def test_choosing_and_terms(self) -> None:
        """A name may be changed where the operator wants that; terms are accepted first."""
        terms = {
            "name": "privacy",
            "version": "2",
            "texts": [{"language": "en", "title": "Privacy", "url": "https://hearth.test/p"}],
        }
        await self.prepare(
            ALICE, BOB, choose_localpart=True, server={"registration": {"terms": [terms]}}
        )
        browser = await self.go()
        self.assertIn('value="alice"', browser.text)
        self.assertIn("https://hearth.test/p", browser.text)
        await browser.submit()
        self.assertIn("Please accept", browser.text)
        await browser.submit(localpart="liddell", accept="yes")
        self.assertIn("@liddell:hearth.test", browser.text)
        await self.serve([self.oidc.config()], registration={"terms": [terms]})
        browser = await self.go()
        self.assertNotIn('name="localpart"', browser.text)
        await browser.submit(localpart="other", accept="yes")
        self.assertIn("@bob:hearth.test", browser.text)

    async def test_no_new_accounts(self) -> None:
        await self.prepare(registration=False)
        browser = await self.go()
        await self.refused(403, "no account", browser)
        await self.serve([self.oidc.config()], read_only={"enabled": True})
        self.assertEqual((await self.go()).page.status, 403)

    async def test_existing_users(self) -> None:
        """People are let into accounts of their name only where the operator says so."""
        await self.prepare(existing_users=True, registration=False)
        alice = await self.server.register("alice")
        self.assertEqual((await self.log_in()).user_id, alice.user_id)
        self.oidc.people = [{**ALICE, "preferred_username": "other"}]
        self.assertEqual((await self.log_in()).user_id, alice.user_id)
        self.oidc.people = [BOB]
        await self.refused(403, "no account", await self.go())

    async def test_required_claims(self) -> None:
        wanted = [{"claim": "groups", "values": ["staff", "admins"]}, {"claim": "name"}]
        people = [
            {**ALICE, "groups": groups} for groups in (None, "guests", [], ["x", "admins"], "staff")
        ]
        await self.prepare(*people, required_claims=wanted)
        for _ in range(3):
            await self.refused(403, "does not entitle", await self.go())
        for _ in range(2):
            self.assertEqual((await self.go()).page.status, 200)

    async def test_closed_locked_suspended(self) -> None:
        """Closed and locked accounts are told so; suspended ones may log in."""
        from homeserver.users.accounts import Accounts

        await self.prepare()
        user = await self.log_in()
        accounts = self.server.homeserver.services[Accounts]
        await accounts.set_suspended(user.user_id, True)
        await self.log_in()
        waiting = await self.go()
        await accounts.set_locked(user.user_id, True)
        await self.refused(401, "locked", await self.go())
        await waiting.submit()
        token = waiting.location.partition("loginToken=")[2].partition("#")[0]
        answer = await self.server.client.post(
            f"{V3}/login", {"type": "m.login.token", "token": token}
        )
        self.assertEqual(answer.body["errcode"], "M_USER_LOCKED")
        await accounts.set_locked(user.user_id, False)
        from homeserver.core.ids import UserID

        await accounts.deactivate(UserID(user.user_id))
        await self.refused(403, "deactivated", await self.go())

    async def test_unverified_email(self) -> None:
        """Addresses that the provider has not verified are not taken; nor those of others."""
        plain = {**ALICE, "email_verified": "true"}
        await self.prepare(plain)
        user = await self.log_in()
        self.assertEqual((await user.ok("GET", "/account/3pid"))["threepids"], [])
        await self.serve([self.oidc.config(trust_email=True)])
        user = await self.log_in()
        self.assertEqual(len((await user.ok("GET", "/account/3pid"))["threepids"]), 1)
        self.oidc.people = [{**BOB, "email": "alice@example.org"}]
        user = await self.log_in()
        self.assertEqual((await user.ok("GET", "/account/3pid"))["threepids"], [])
