"""Proving again who one is with a provider: the stage m.login.sso of interactive authentication."""

from __future__ import annotations

from typing import Any

from homeserver.users.sso.people_here import PeopleHere
from tests.homeserver.users.sso.sso_case import V3, SsoCase
from tests.support.browser import Browser
from tests.support.oidc import ALICE
from tests.support.server import User

BOB = {"sub": "4712", "preferred_username": "bob"}
PAGE = f"{V3}/auth/m.login.sso/fallback/web?session="


class StageTest(SsoCase):
    async def asked(self, user: User, flows: list[str]) -> tuple[str, str]:
        """A device to delete, and the session in which that is to be confirmed."""
        answer = await self.server.client.post(
            f"{V3}/login", {"type": "m.login.token", "token": await self.token(user)}
        )
        device: str = answer.body["device_id"]
        status, body = await user.call("DELETE", f"/devices/{device}", {})
        self.assertEqual(status, 401)
        self.assertEqual(body["flows"], [{"stages": [each]} for each in flows])
        return device, body["session"]

    async def token(self, user: User) -> str:
        from homeserver.core.ids import UserID
        from homeserver.users.login import Login

        login = self.server.homeserver.services[Login]
        user_id = UserID(user.user_id)
        token = await self.server.homeserver.db.write(login.create_token_in, user_id)
        return token.token

    async def delete(self, user: User, device: str, session: str) -> Any:
        return await user.call("DELETE", f"/devices/{device}", {"auth": {"session": session}})

    async def test_stage(self) -> None:
        """Shows LOG-13, UIA-5, UIA-11: an account without a password confirms on the page."""
        await self.prepare()
        user = await self.log_in()
        device, session = await self.asked(user, ["m.login.sso"])
        browser = Browser(self.server)
        await browser.get(PAGE + session)
        self.assertIn(user.user_id, browser.text)
        self.assertEqual((await self.delete(user, device, session)).status, 401)
        auth = {"type": "m.login.sso", "session": session}
        status, body = await user.call("DELETE", f"/devices/{device}", {"auth": auth})
        self.assertEqual((status, body["errcode"]), (401, "M_UNAUTHORIZED"))
        await browser.submit()
        self.assertEqual(browser.page.status, 302)
        await browser.get(self.oidc.log_in(browser.location))
        self.assertIn(b"onAuthDone", browser.page.body)
        self.assertEqual(self.oidc.prompts[-1], "login")
        await browser.get(PAGE + session)
        self.assertIn(b"onAuthDone", browser.page.body)
        self.assertEqual((await self.delete(user, device, session)).status, 200)

    async def test_somebody_else(self) -> None:
        """Another person of the provider proves nothing, nor another browser."""
        await self.prepare(ALICE, BOB, ALICE)
        user = await self.log_in()
        device, session = await self.asked(user, ["m.login.sso"])
        browser = Browser(self.server)
        await browser.get(PAGE + session)
        await browser.submit()
        await browser.get(self.oidc.log_in(browser.location))
        await self.refused(403, "somebody else", browser)
        await browser.get(PAGE + session)
        await browser.submit()
        other = Browser(self.server)
        await other.get(self.oidc.log_in(browser.location))
        await self.refused(400, "another browser", other)
        self.assertEqual((await self.delete(user, device, session)).status, 401)
        await browser.get(PAGE + session)
        await browser.submit(provider="none")
        self.assertEqual(browser.page.status, 404)
        for wrong in ("unknown", "%00", ""):
            await browser.get(PAGE + wrong)
            self.assertEqual(browser.page.status, 400)

    async def test_password_or_provider(self) -> None:
        """Shows UIA-12: an account with both may use either; one with a password has no SSO."""
        await self.prepare()
        user = await self.server.register("alice")
        _, session = await self.asked(user, ["m.login.password"])
        browser = Browser(self.server)
        await browser.get(PAGE + session)
        self.assertEqual(browser.page.status, 400)
        people = self.server.homeserver.services[PeopleHere]
        await people.connect(user.user_id, "work", "4711")
        await self.asked(user, ["m.login.password", "m.login.sso"])
        await people.connect(user.user_id, "gone", "4711")
        self.assertTrue(await people.disconnect(user.user_id, "work", "4711"))
        self.assertFalse(await people.disconnect(user.user_id, "work", "4711"))
        await self.asked(user, ["m.login.password"])

    async def test_new_password(self) -> None:
        """Somebody without a password can set one, once they have proved who they are."""
        await self.prepare()
        user = await self.log_in()
        body = {"new_password": "wonderland", "logout_devices": False}
        status, answer = await user.call("POST", "/account/password", body)
        self.assertEqual((status, answer["flows"]), (401, [{"stages": ["m.login.sso"]}]))
        browser = Browser(self.server)
        await browser.get(PAGE + answer["session"])
        await browser.submit()
        await browser.get(self.oidc.log_in(browser.location))
        auth = {"session": answer["session"]}
        await user.ok("POST", "/account/password", {**body, "auth": auth})
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "wonderland",
        }
        self.assertEqual((await self.server.client.post(f"{V3}/login", login)).status, 200)
