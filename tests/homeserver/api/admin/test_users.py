"""Listing, showing, making and changing accounts."""

from __future__ import annotations

from typing import Any

from homeserver.core.errors import unavailable
from homeserver.users.accounts import Accounts
from homeserver.users.identity_servers import IdentityServers
from storage import accepted_terms, bound_threepids, threepids
from storage.bound_threepids import BoundRow
from tests.homeserver.api.admin.case import V1, V2, AdminTestCase
from tests.support.appservices import Service, registration, registration_files
from tests.support.room_case import log_in, q

USERS = f"{V2}/users"
NEW = "@new:hearth.test"


class ListTest(AdminTestCase):
    async def names(self, **query: Any) -> list[str]:
        answer = await self.alice.ok("GET", USERS, query=query)
        self.assertEqual(answer["total"], len(answer["users"]))
        return [each["name"].partition(":")[0][1:] for each in answer["users"]]

    async def test_filters(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        carol = await self.server.register("carol")
        gone = await self.server.register("gone")
        await carol.ok("PUT", f"/profile/{q(carol.user_id)}/displayname", {"displayname": 'B_"x'})
        accounts = self.server.homeserver.services[Accounts]
        await accounts.deactivate(gone.user_id)  # type: ignore[arg-type]
        await self.alice.call("PUT", f"{USERS}/{q(NEW)}", {"user_type": "bot"})
        await self.server.client.post("/_matrix/client/v3/register?kind=guest", {})
        everybody = await self.names(guests="false")
        self.assertEqual(everybody, ["alice", "bob", "carol", "new"])
        self.assertEqual(len(await self.names()), 5)
        self.assertEqual(await self.names(deactivated="true", name="gon"), ["gone"])
        self.assertEqual(await self.names(name="O", guests="false"), ["bob", "carol"])
        self.assertEqual(await self.names(name='b_"'), ["carol"])
        self.assertEqual(await self.names(name="b%"), [])
        self.assertEqual(await self.names(user_id="ALI"), ["alice"])
        self.assertEqual(await self.names(admins="true"), ["alice"])
        self.assertEqual(await self.names(admins="false", guests="false"), ["bob", "carol", "new"])
        self.assertEqual(await self.names(not_user_type=""), ["new"])
        self.assertEqual(
            await self.names(not_user_type="bot", guests="false"), ["alice", "bob", "carol"]
        )
        await accounts.set_suspended(self.bob.user_id, True)
        await self.alice.ok("POST", f"{V1}/users/{q(carol.user_id)}/shadow_ban")
        self.assertEqual(await self.names(suspended="true"), ["bob"])
        self.assertEqual(await self.names(shadow_banned="true"), ["carol"])
        await accounts.set_locked(self.bob.user_id, True)
        self.assertNotIn("bob", await self.names())
        self.assertIn("bob", await self.names(locked="true"))

    async def test_pages_and_orders(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        carol = await self.server.register("carol")
        await carol.ok("PUT", f"/profile/{q(carol.user_id)}/displayname", {"displayname": "A"})
        seen: list[str] = []
        query = {"limit": "2"}
        while True:
            answer = await self.alice.ok("GET", USERS, query=query)
            self.assertEqual(answer["total"], 3)
            seen += [each["name"] for each in answer["users"]]
            if "next_token" not in answer:
                break
            query["from"] = answer["next_token"]
        self.assertEqual(seen, [self.alice.user_id, self.bob.user_id, carol.user_id])
        for order in (
            "name",
            "displayname",
            "avatar_url",
            "is_guest",
            "admin",
            "deactivated",
            "user_type",
            "shadow_banned",
            "creation_ts",
            "last_seen_ts",
            "locked",
        ):
            for direction in "fb":
                query = {"order_by": order, "dir": direction}
                answer = await self.alice.ok("GET", USERS, query=query)
                self.assertEqual(len(answer["users"]), 3)
        query = {"order_by": "displayname", "dir": "b", "limit": "1"}
        answer = await self.alice.ok("GET", USERS, query=query)
        self.assertEqual(answer["users"][0]["name"], carol.user_id)
        query = {"order_by": "admin", "dir": "b", "limit": "1"}
        answer = await self.alice.ok("GET", USERS, query=query)
        self.assertEqual(answer["users"][0]["name"], self.alice.user_id)
        for bad in ("from=-1", "limit=-1", "limit=x", "order_by=x", "dir=x", "guests=x"):
            told = await self.refused("M_INVALID_PARAM", "GET", f"{USERS}?{bad}")
            self.assertIn(bad.partition("=")[0], told)
        self.assertEqual((await self.alice.ok("GET", f"{USERS}?limit=0"))["users"], [])

    async def test_closed_accounts_in_the_third_version(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        accounts = self.server.homeserver.services[Accounts]
        await accounts.deactivate(self.bob.user_id)  # type: ignore[arg-type]
        for query, number in (("", 2), ("?deactivated=true", 1), ("?deactivated=false", 1)):
            answer = await self.alice.ok("GET", f"/_synapse/admin/v3/users{query}")
            self.assertEqual(answer["total"], number)

    async def test_the_old_search(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V1}/search_users/{q(self.alice.user_id)}"
        found = await self.alice.ok("GET", f"{path}?term=bo")
        told = {"name": self.bob.user_id, "is_guest": False, "admin": False, "user_type": None}
        self.assertEqual(found, [told])
        await self.refused("M_MISSING_PARAM", "GET", path)
        await self.refused("M_INVALID_PARAM", "GET", f"{path}?term=")
        await self.refused("M_INVALID_PARAM", "GET", f"{V1}/search_users/@x:elsewhere?term=b")


class AccountTest(AdminTestCase):
    async def put_account(self, user_id: str, body: Any) -> tuple[int, Any]:
        answer = await self.alice.call("PUT", f"{USERS}/{q(user_id)}", body)
        return answer.status, answer.body

    async def test_making_showing_and_changing(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        status, made = await self.put_account(
            NEW,
            {
                "password": "wonderland",
                "displayname": "New",
                "avatar_url": "mxc://hearth.test/a",
                "threepids": [{"medium": "email", "address": "A@X.org"}],
                "external_ids": [{"auth_provider": "sso", "external_id": "n1"}],
                "admin": True,
                "user_type": "support",
            },
        )
        self.assertEqual(status, 201)
        self.assertEqual(made["threepids"][0]["address"], "a@x.org")
        self.assertEqual(made["external_ids"], [{"auth_provider": "sso", "external_id": "n1"}])
        self.assertEqual(
            (made["displayname"], made["avatar_url"], made["admin"], made["user_type"]),
            ("New", "mxc://hearth.test/a", True, "support"),
        )
        self.assertLess(made["creation_ts"], 10_000_000_000)  # seconds
        self.assertEqual(await self.alice.ok("GET", f"{USERS}/{q(NEW)}"), made)
        found = await self.alice.ok("GET", f"{V1}/threepid/email/users/{q('A@x.org')}")
        self.assertEqual(found, {"user_id": NEW})
        found = await self.alice.ok("GET", f"{V1}/auth_providers/sso/users/n1")
        self.assertEqual(found, {"user_id": NEW})
        new = await log_in(self.server, self.bob.__class__(self.server, NEW, "", ""))
        room_id = await new.create_room()
        status, changed = await self.put_account(
            NEW,
            {
                "displayname": "",
                "avatar_url": None,
                "threepids": [],
                "external_ids": [],
                "admin": False,
                "user_type": None,
                "locked": True,
            },
        )
        self.assertEqual(status, 200)
        self.assertEqual((changed["threepids"], changed["external_ids"]), ([], []))
        self.assertEqual((changed["displayname"], changed["avatar_url"]), (None, None))
        self.assertEqual((changed["admin"], changed["user_type"]), (False, None))
        self.assertTrue(changed["locked"])
        self.assert_error(await new.call("GET", "/joined_rooms"), 401, "M_USER_LOCKED")
        await self.put_account(NEW, {"locked": False})
        member = await new.ok("GET", f"/rooms/{q(room_id)}/state/m.room.member/{q(NEW)}")
        self.assertNotIn("displayname", member)
        await self.unknown("GET", f"{V1}/threepid/email/users/a@x.org")
        await self.unknown("GET", f"{V1}/threepid/other/users/a@x.org")
        await self.unknown("GET", f"{V1}/auth_providers/sso/users/n1")

    async def test_new_passwords_end_sessions(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        await self.put_account(self.bob.user_id, {"password": "one", "logout_devices": False})
        await self.bob.ok("GET", "/account/whoami")
        await self.put_account(self.bob.user_id, {"password": "wonderland"})
        self.assert_error(await self.bob.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        self.bob = await log_in(self.server, self.bob)
        path = f"{V1}/reset_password/{q(self.bob.user_id)}"
        body = {"new_password": "two", "logout_devices": False}
        self.assertEqual(await self.alice.ok("POST", path, body), {})
        await self.bob.ok("GET", "/account/whoami")
        await self.alice.ok("POST", path, {"new_password": "wonderland"})
        self.assert_error(await self.bob.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        await log_in(self.server, self.bob)
        await self.refused("M_MISSING_PARAM", "POST", path, {})
        await self.unknown("POST", f"{V1}/reset_password/@no:hearth.test", body)
        await self.refused("M_INVALID_PARAM", "POST", f"{V1}/reset_password/@x:else", body)

    async def test_bad_changes(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        await self.server.homeserver.db.write(
            threepids.add, "email", "alice@x.org", self.alice.user_id, 1
        )
        two = [{"medium": "email", "address": "no address"}]
        bad: list[tuple[str, Any, str]] = [
            ("M_BAD_JSON", {"password": 1}, "password"),
            ("M_BAD_JSON", {"threepids": 1}, "threepids"),
            ("M_MISSING_PARAM", {"threepids": [{"medium": "email"}]}, "address"),
            ("M_INVALID_PARAM", {"threepids": two}, "threepids"),
            ("M_INVALID_PARAM", {"threepids": two * 101}, "threepids"),
            ("M_INVALID_PARAM", {"user_type": "king"}, "user_type"),
            ("M_BAD_JSON", {"admin": "x"}, "admin"),
            ("M_BAD_JSON", {"deactivated": 1}, "deactivated"),
            ("M_BAD_JSON", {"displayname": 5}, "displayname"),
            ("M_INVALID_PARAM", {"displayname": "x" * 300}, "displayname"),
            ("M_INVALID_PARAM", {"avatar_url": "http://x"}, "avatar_url"),
            ("M_INVALID_PARAM", {"deactivated": True, "admin": True}, "admin"),
            (
                "M_INVALID_PARAM",
                {"external_ids": [{"auth_provider": "", "external_id": "x"}]},
                "external_ids",
            ),
            (
                "M_INVALID_PARAM",
                {"threepids": [{"medium": "email", "address": "alice@x.org"}]},
                "threepids",
            ),
        ]
        path = f"{USERS}/{q(self.bob.user_id)}"
        before = await self.alice.ok("GET", path)
        for errcode, body, named in bad:
            self.assertIn(named, await self.refused(errcode, "PUT", path, body))
        self.assertEqual(await self.alice.ok("GET", path), before)
        own = f"{USERS}/{q(self.alice.user_id)}"
        await self.refused("M_INVALID_PARAM", "PUT", own, {"admin": False})
        await self.refused("M_INVALID_PARAM", "PUT", own, {"locked": True})
        await self.refused("M_INVALID_USERNAME", "PUT", f"{USERS}/@Bad:hearth.test", {})
        await self.refused("M_USER_IN_USE", "PUT", f"{USERS}/@notices:hearth.test", {})
        for method, body in (("GET", None), ("PUT", {})):
            await self.refused("M_INVALID_PARAM", method, f"{USERS}/@x:elsewhere", body)
            await self.refused("M_INVALID_PARAM", method, f"{USERS}/bob", body)
        await self.unknown("GET", f"{USERS}/@nobody:hearth.test")

    async def test_closing_and_opening_again(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{USERS}/{q(self.bob.user_id)}"
        close = f"{V1}/deactivate/{q(self.bob.user_id)}"
        answer = await self.alice.ok("POST", close, {"erase": True})
        self.assertEqual(answer, {"id_server_unbind_result": "success"})
        shown = await self.alice.ok("GET", path)
        self.assertEqual((shown["deactivated"], shown["erased"]), (True, True))
        self.assertEqual(await self.alice.call("POST", close, body=b""), (200, answer))
        for body in ({"password": "x"}, {"admin": True}):
            await self.refused("M_INVALID_PARAM", "PUT", path, body)
        await self.unknown(
            "POST", f"{V1}/reset_password/{q(self.bob.user_id)}", {"new_password": "x"}
        )
        shown = await self.alice.ok("PUT", path, {"displayname": "Was Bob"})
        self.assertEqual((shown["deactivated"], shown["displayname"]), (True, "Was Bob"))
        shown = await self.alice.ok("PUT", path, {"deactivated": False, "password": "wonderland"})
        self.assertEqual((shown["deactivated"], shown["erased"]), (False, False))
        bob = await log_in(self.server, self.bob)
        await bob.create_room()
        shown = await self.alice.ok("PUT", path, {"deactivated": True})
        self.assertTrue(shown["deactivated"])
        self.assert_error(await bob.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        await self.unknown("POST", f"{V1}/deactivate/@nobody:hearth.test", {})
        await self.refused("M_INVALID_PARAM", "POST", f"{V1}/deactivate/@x:elsewhere", {})
        await self.refused("M_BAD_JSON", "POST", close, {"erase": "x"})

    async def test_rights_and_suspension(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V1}/users/{q(self.bob.user_id)}/admin"
        self.assertEqual(await self.alice.ok("GET", path), {"admin": False})
        self.assertEqual(await self.alice.ok("PUT", path, {"admin": True}), {})
        self.assertEqual(await self.bob.ok("GET", path), {"admin": True})
        await self.alice.ok("PUT", path, {"admin": False})
        self.assert_error(await self.bob.call("GET", path), 403, "M_FORBIDDEN")
        own = f"{V1}/users/{q(self.alice.user_id)}/admin"
        await self.refused("M_INVALID_PARAM", "PUT", own, {"admin": False})
        await self.refused("M_BAD_JSON", "PUT", path, {"admin": "x"})
        await self.refused("M_MISSING_PARAM", "PUT", path, {})
        for method, body in (("GET", None), ("PUT", {"admin": True})):
            await self.unknown(method, f"{V1}/users/@nobody:hearth.test/admin", body)
            await self.refused("M_INVALID_PARAM", method, f"{V1}/users/@x:else/admin", body)
        suspend = f"{V1}/suspend/{q(self.bob.user_id)}"
        told = await self.alice.ok("PUT", suspend, {"suspend": True})
        self.assertEqual(told, {f"user_{self.bob.user_id}_suspended": True})
        answer = await self.bob.call("POST", "/createRoom", {})
        self.assert_error(answer, 403, "M_USER_SUSPENDED")
        await self.alice.ok("PUT", suspend, {"suspend": False})
        await self.bob.create_room()
        await self.refused("M_MISSING_PARAM", "PUT", suspend, {})
        await self.unknown("PUT", f"{V1}/suspend/@nobody:hearth.test", {"suspend": True})
        own = f"{V1}/suspend/{q(self.alice.user_id)}"
        await self.refused("M_INVALID_PARAM", "PUT", own, {"suspend": True})

    async def test_consent_and_names_that_are_free(self) -> None:
        """Shows XC-4."""
        await self.prepare(registration={"enabled": True})
        db, bob = self.server.homeserver.db, self.bob.user_id
        await db.write(accepted_terms.put, bob, {"privacy": "1.2"}, 5)
        shown = await self.alice.ok("GET", f"{USERS}/{q(bob)}")
        self.assertEqual((shown["consent_version"], shown["consent_ts"]), ("1.2", 5))
        path = f"{V1}/username_available"
        found = await self.alice.ok("GET", f"{path}?username=zed")
        self.assertEqual(found, {"available": True})
        await self.refused("M_USER_IN_USE", "GET", f"{path}?username=bob")
        await self.refused("M_INVALID_USERNAME", "GET", f"{path}?username=a%20b")
        await self.refused("M_MISSING_PARAM", "GET", path)
        await self.refused("M_INVALID_PARAM", "GET", f"{path}?username=")

    async def test_addresses_that_go_are_withdrawn(self) -> None:
        """Where they were published. Shows XC-4."""
        await self.prepare()
        identity = self.server.homeserver.services[IdentityServers]
        asked: list[str] = []

        async def unbind(server: str, medium: str, address: str, user_id: str) -> bool:
            asked.append(address)
            if address == "b@x.org":
                raise unavailable()
            return True

        self.patch(identity, "unbind", unbind)
        addresses = ["a@x.org", "b@x.org", "c@x.org"]
        given = [{"medium": "email", "address": address} for address in addresses]
        await self.put_account(self.bob.user_id, {"threepids": given})
        for address in (*addresses, "elsewhere@x.org"):
            row = BoundRow(self.bob.user_id, "email", address, "id.example")
            await self.server.homeserver.db.write(bound_threepids.add, row)
        _, shown = await self.put_account(self.bob.user_id, {"threepids": given[2:]})
        self.assertEqual(len(shown["threepids"]), 1)
        self.assertEqual(asked, ["a@x.org", "b@x.org"])
        asked.clear()
        await self.put_account(self.bob.user_id, {"deactivated": True})
        self.assertEqual(sorted(asked), ["b@x.org", "c@x.org", "elsewhere@x.org"])

    async def test_users_of_application_services(self) -> None:
        """Shows XC-4."""
        await self.prepare(application_service_files=registration_files(self, registration()))
        bridged = "@_irc_eve:hearth.test"
        await Service(self.server).register("_irc_eve", inhibit_login=True)
        shown = await self.alice.ok("GET", f"{USERS}/{q(bridged)}")
        self.assertEqual(shown["appservice_id"], registration()["id"])
        shown = await self.alice.ok("GET", f"{USERS}/{q(self.bob.user_id)}")
        self.assertIsNone(shown["appservice_id"])

    async def test_changes_are_logged(self) -> None:
        """Who did what to whom, and no secrets. Shows XC-4."""
        await self.prepare()
        await self.put_account(NEW, {"password": "s3cret-word", "admin": True})
        await self.alice.ok("PUT", f"{V1}/suspend/{q(NEW)}", {"suspend": True})
        told = self.audit
        self.assertEqual([line["action"] for line in told], ["create_account", "suspend_account"])
        for line in told:
            self.assertEqual((line["admin"], line["subject"]), (self.alice.user_id, NEW))
        self.assertNotIn("s3cret-word", str(told))
