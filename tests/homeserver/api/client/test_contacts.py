"""New passwords by e-mail, and the addresses of an account."""

from __future__ import annotations

from typing import Any

from tests.homeserver.api.client.mail_case import (
    ADDRESS,
    SECRET,
    V3,
    MailCase,
    email_auth,
)
from tests.support.client import Answer
from tests.support.server import User


class PasswordTest(MailCase):
    async def change(self, auth: Any, user: User | None = None, **more: Any) -> Answer:
        body = {"new_password": "looking-glass", **more}
        if auth is not None:
            body["auth"] = auth
        client = self.server.client if user is None else user.client
        return await client.post(f"{V3}/account/password", body)

    async def test_a_forgotten_password(self) -> None:
        """Shows ACC-4, LOG-6, LOG-2."""
        await self.prepare()
        alice = await self.with_email()
        creds = await self.proved("account/password", "Alice@Example.org", 2)
        status, asked = await self.change(None)
        self.assertEqual(status, 401)
        self.assertEqual(asked["flows"], [{"stages": ["m.login.email.identity"]}])
        status, answer = await self.change(email_auth(asked["session"], creds))
        self.assertEqual((status, answer), (200, {}))
        self.assertFalse(await self.can_log_in("alice", "wonderland"))
        self.assertTrue(await self.can_log_in("alice", "looking-glass"))
        self.assertEqual((await alice.call("GET", "/account/whoami"))[0], 401)
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.thirdparty", "medium": "email", "address": ADDRESS},
            "password": "looking-glass",
        }
        self.assertEqual((await self.server.client.post(f"{V3}/login", login)).status, 200)

    async def test_once_for_each_link(self) -> None:
        """Shows UIA-3, ACC-4: neither the proof nor the session is good for a second password."""
        await self.prepare()
        await self.with_email()
        creds = await self.proved("account/password", count=2)
        _, asked = await self.change(None)
        auth = email_auth(asked["session"], creds)
        self.assertEqual((await self.change(auth))[0], 200)
        for again in (auth, {"session": asked["session"]}, email_auth(None, creds)):
            status, _ = await self.change(again, new_password="stolen")
            self.assertEqual(status, 401)
        self.assertFalse(await self.can_log_in("alice", "stolen"))

    async def test_devices_stay_where_wanted(self) -> None:
        """Shows LOG-6."""
        await self.prepare()
        alice = await self.with_email()
        creds = await self.proved("account/password", count=2)
        status, _ = await self.change(email_auth(None, creds), logout_devices=False)
        self.assertEqual(status, 200)
        await alice.ok("GET", "/account/whoami")

    async def test_the_address_of_another(self) -> None:
        """Shows UIA-3: with Bob's token and Alice's proof nobody's password changes."""
        await self.prepare()
        await self.with_email()
        bob = await self.server.register("bob")
        creds = await self.proved("account/password", count=2)
        status, answer = await self.change(email_auth(None, creds), bob)
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        self.assertTrue(await self.can_log_in("alice", "wonderland"))
        self.assertTrue(await self.can_log_in("bob", "wonderland"))

    async def test_sessions_of_another(self) -> None:
        """Shows UIA-3: a session that was begun with a token is no session without one."""
        await self.prepare()
        alice = await self.with_email()
        creds = await self.proved("account/password", count=2)
        _, asked = await self.change(None, alice)
        flows = [flow["stages"] for flow in asked["flows"]]
        self.assertEqual(flows, [["m.login.password"], ["m.login.email.identity"]])
        status, answer = await self.change(email_auth(asked["session"], creds))
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        _, asked = await self.change(None)
        status, answer = await self.change(email_auth(asked["session"], creds), alice)
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_not_opened_yet(self) -> None:
        """Shows UIA-2."""
        await self.prepare()
        await self.with_email()
        creds = {"sid": await self.sid("account/password"), "client_secret": SECRET}
        status, answer = await self.change(email_auth(None, creds))
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        self.assertTrue(await self.can_log_in("alice", "wonderland"))

    async def test_unknown_address(self) -> None:
        """Shows ACC-4."""
        await self.prepare()
        status, answer = await self.ask("account/password")
        self.assertEqual((status, answer["errcode"]), (400, "M_THREEPID_NOT_FOUND"))

    async def test_address_removed_meanwhile(self) -> None:
        """Shows ACC-3: a link to an address that was taken away sets no password."""
        await self.prepare()
        alice = await self.with_email()
        creds = await self.proved("account/password", count=2)
        removed = {"medium": "email", "address": ADDRESS}
        await alice.ok("POST", "/account/3pid/delete", removed)
        status, answer = await self.change(email_auth(None, creds))
        self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"))
        self.assertTrue(await self.can_log_in("alice", "wonderland"))

    async def test_guests_and_nobody(self) -> None:
        """Shows LOG-11."""
        await self.prepare()
        _, guest = await self.server.client.post(f"{V3}/register", {}, query={"kind": "guest"})
        status, answer = await self.server.client.post(
            f"{V3}/account/password", {"new_password": "x"}, token=guest["access_token"]
        )
        self.assertEqual((status, answer["errcode"]), (403, "M_GUEST_ACCESS_FORBIDDEN"))
        status, answer = await self.change({"type": "m.login.password", "password": "wonderland"})
        self.assertEqual((status, answer["errcode"]), (401, "M_FORBIDDEN"))


class ContactsTest(MailCase):
    async def test_add_and_list(self) -> None:
        """Shows ACC-3, ACC-5."""
        await self.prepare()
        alice = await self.server.register("alice")
        self.assertEqual(await alice.ok("GET", "/account/3pid"), {"threepids": []})
        creds = await self.proved("account/3pid", "ALICE@example.org")
        status, asked = await alice.call("POST", "/account/3pid/add", creds)
        self.assertEqual((status, asked["flows"]), (401, [{"stages": ["m.login.password"]}]))
        status, _ = await self.confirmed(alice, "/account/3pid/add", creds)
        self.assertEqual(status, 200)
        [contact] = (await alice.ok("GET", "/account/3pid"))["threepids"]
        self.assertEqual(contact["address"], ADDRESS)
        self.assertLessEqual(contact["validated_at"], contact["added_at"])

    async def test_without_proof(self) -> None:
        """Shows ACC-3, ACC-4."""
        await self.prepare()
        alice = await self.server.register("alice")
        creds = {"sid": await self.sid("account/3pid"), "client_secret": SECRET}
        for given, errcode in (
            (creds, "M_SESSION_NOT_VALIDATED"),
            ({**creds, "sid": "unknown"}, "M_NO_VALID_SESSION"),
            ({**creds, "client_secret": "other"}, "M_NO_VALID_SESSION"),
            ({**creds, "sid": ""}, "M_INVALID_PARAM"),
        ):
            status, answer = await alice.call("POST", "/account/3pid/add", given)
            self.assertEqual((status, answer["errcode"]), (400, errcode))
        self.assertEqual(await alice.ok("GET", "/account/3pid"), {"threepids": []})

    async def test_one_account_for_each_address(self) -> None:
        """Shows ACC-3, ACC-4."""
        await self.prepare()
        await self.with_email()
        status, answer = await self.ask("account/3pid", "Alice@example.org", secret="eve")
        self.assertEqual((status, answer["errcode"]), (400, "M_THREEPID_IN_USE"))

    async def test_a_proof_is_used_up(self) -> None:
        """Shows ACC-3: what Alice proved adds nothing to Bob's account."""
        await self.prepare()
        await self.with_email()
        bob = await self.server.register("bob")
        creds = {"sid": await self.sid("account/3pid", "b@example.org"), "client_secret": SECRET}
        await self.open_link(2)
        status, asked = await bob.call("POST", "/account/3pid/add", creds)
        self.assertEqual(status, 401)
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "wonderland",
            "session": asked["session"],
        }
        status, answer = await bob.call("POST", "/account/3pid/add", {**creds, "auth": auth})
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual((await self.confirmed(bob, "/account/3pid/add", creds))[0], 200)
        status, answer = await self.confirmed(bob, "/account/3pid/add", creds)
        self.assertEqual((status, answer["errcode"]), (400, "M_NO_VALID_SESSION"))

    async def test_delete(self) -> None:
        """Shows ACC-3: only from one's own account, and the result is told."""
        await self.prepare()
        alice = await self.with_email()
        bob = await self.server.register("bob")
        body = {"medium": "email", "address": "Alice@Example.org"}
        answer = await bob.ok("POST", "/account/3pid/delete", body)
        self.assertEqual(answer, {"id_server_unbind_result": "no-support"})
        self.assertEqual(len((await alice.ok("GET", "/account/3pid"))["threepids"]), 1)
        answer = await alice.ok("POST", "/account/3pid/delete", body)
        self.assertEqual(answer, {"id_server_unbind_result": "no-support"})
        self.assertEqual(await alice.ok("GET", "/account/3pid"), {"threepids": []})
        for wrong in ({"medium": "pigeon"}, {"address": "x\r\ny"}, {"address": "a" * 600}):
            status, answer = await alice.call("POST", "/account/3pid/delete", {**body, **wrong})
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_deactivated(self) -> None:
        """Shows ACC-1, ACC-2: the address is free again."""
        await self.prepare()
        alice = await self.with_email()
        status, answer = await self.confirmed(alice, "/account/deactivate", {})
        self.assertEqual((status, answer), (200, {"id_server_unbind_result": "success"}))
        self.assertEqual((await self.ask("register", secret="again")).status, 200)
        status, answer = await self.ask("account/password")
        self.assertEqual(answer["errcode"], "M_THREEPID_NOT_FOUND")

    async def test_guests_and_nobody(self) -> None:
        """Shows LOG-11."""
        await self.prepare()
        _, guest = await self.server.client.post(f"{V3}/register", {}, query={"kind": "guest"})
        for method, path in (
            ("GET", ""),
            ("POST", ""),
            ("POST", "/add"),
            ("POST", "/bind"),
            ("POST", "/delete"),
            ("POST", "/unbind"),
        ):
            for token, expected in (("", 401), (guest["access_token"], 403)):
                status, _ = await self.server.client.request(
                    method, f"{V3}/account/3pid{path}", {}, token=token
                )
                self.assertEqual(status, expected, path)

    async def test_capability(self) -> None:
        await self.prepare()
        alice = await self.server.register("alice")
        answer = await alice.ok("GET", "/capabilities")
        self.assertEqual(answer["capabilities"]["m.3pid_changes"], {"enabled": True})
