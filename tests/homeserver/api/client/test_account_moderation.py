"""Locking and suspending accounts over the API."""

from __future__ import annotations

from typing import Any

from homeserver.users.accounts import Accounts
from tests.support.client import Answer
from tests.support.room_case import TEXT, RoomTestCase, log_in, q
from tests.support.server import User

_V1 = "/_matrix/client/v1/admin"


class ModerationCase(RoomTestCase):
    async def start(self, **room: Any) -> str:
        await super().start(**room)
        accounts = self.server.homeserver.services[Accounts]
        await accounts.set_admin(self.alice.user_id, True)
        return self.room_id

    async def set(self, by: User, what: str, user_id: str, value: Any = True) -> Answer:
        name = {"lock": "locked", "suspend": "suspended"}[what]
        return await by.call("PUT", f"{_V1}/{what}/{q(user_id)}", {name: value})


class EndpointTest(ModerationCase):
    async def test_lock_and_suspend(self) -> None:
        """Shows ACC-9."""
        await self.start()
        for what, name in (("lock", "locked"), ("suspend", "suspended")):
            path = f"{_V1}/{what}/{q(self.bob.user_id)}"
            for value in (True, False):
                answer = await self.set(self.alice, what, self.bob.user_id, value)
                self.assertEqual(answer, (200, {name: value}))
                self.assertEqual(await self.alice.ok("GET", path), {name: value})

    async def test_who_may_and_whom(self) -> None:
        """Shows ACC-9."""
        await self.start()
        carol = await self.server.register("carol")
        accounts = self.server.homeserver.services[Accounts]
        await accounts.set_admin(carol.user_id, True)
        gone = await self.server.register("gone")
        await accounts.deactivate(gone.user_id)  # type: ignore[arg-type]
        for what in ("lock", "suspend"):
            for user_id in (self.alice.user_id, "@nobody:hearth.test", "@x:elsewhere", "bad"):
                answer = await self.set(self.bob, what, user_id)
                self.assert_error(answer, 403, "M_FORBIDDEN")
                answer = await self.bob.call("GET", f"{_V1}/{what}/{q(user_id)}")
                self.assert_error(answer, 403, "M_FORBIDDEN")
            for user_id in (self.alice.user_id, carol.user_id):
                self.assert_error(await self.set(self.alice, what, user_id), 403, "M_FORBIDDEN")
            for user_id in ("@nobody:hearth.test", gone.user_id):
                self.assert_error(await self.set(self.alice, what, user_id), 404, "M_NOT_FOUND")
                answer = await self.alice.call("GET", f"{_V1}/{what}/{q(user_id)}")
                self.assert_error(answer, 404, "M_NOT_FOUND")
            for user_id in ("@x:elsewhere", "bad"):
                answer = await self.set(self.alice, what, user_id)
                self.assert_error(answer, 400, "M_INVALID_PARAM")
                answer = await self.alice.call("GET", f"{_V1}/{what}/{q(user_id)}")
                self.assert_error(answer, 400, "M_INVALID_PARAM")
            answer = await self.set(self.alice, what, self.bob.user_id, "yes")
            self.assert_error(answer, 400, "M_BAD_JSON")

    async def test_the_capability(self) -> None:
        """Shows ACC-10."""
        await self.start()
        found = (await self.alice.ok("GET", "/capabilities"))["capabilities"]
        self.assertEqual(found["m.account_moderation"], {"lock": True, "suspend": True})
        found = (await self.bob.ok("GET", "/capabilities"))["capabilities"]
        self.assertNotIn("m.account_moderation", found)


class LockTest(ModerationCase):
    async def test_a_locked_account_can_only_log_out(self) -> None:
        """Shows ACC-7."""
        await self.start()
        other = await log_in(self.server, self.bob)
        await self.bob.join(self.room_id)
        await self.set(self.alice, "lock", self.bob.user_id)
        for method, path, body in (
            ("GET", "/sync", None),
            ("GET", "/account/whoami", None),
            ("GET", "/capabilities", None),
            ("GET", f"/rooms/{q(self.room_id)}/messages?dir=b", None),
            ("PUT", f"/rooms/{q(self.room_id)}/send/m.room.message/1", TEXT),
            ("POST", "/keys/query", {"device_keys": {}}),
            ("POST", "/createRoom", {}),
            ("POST", "/search", {"search_categories": {}}),
            ("GET", "/_matrix/client/v1/media/config", None),
        ):
            answer = await self.bob.call(method, path, body)
            if answer.body.get("errcode") == "M_UNRECOGNIZED":
                continue
            self.assert_error(answer, 401, "M_USER_LOCKED")
            self.assertIs(answer.body["soft_logout"], True)
        # Tokens survive.
        await self.set(self.alice, "lock", self.bob.user_id, False)
        await self.bob.ok("GET", "/account/whoami")
        await self.set(self.alice, "lock", self.bob.user_id)
        await self.bob.ok("POST", "/logout", {})
        await other.ok("POST", "/logout/all", {})
        await self.set(self.alice, "lock", self.bob.user_id, False)
        self.assert_error(await other.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")


class SuspensionTest(ModerationCase):
    async def test_what_a_suspended_account_can_do_and_what_not(self) -> None:
        """Shows ACC-8."""
        await self.start()
        room = f"/rooms/{q(self.room_id)}"
        await self.bob.join(self.room_id)
        own = await self.bob.send(self.room_id, "mine")
        second = await self.bob.send(self.room_id, "mine too")
        theirs = await self.alice.send(self.room_id, "hers")
        await self.alice.set_state(
            self.room_id,
            "m.room.power_levels",
            {"users": {self.bob.user_id: 100}},
        )
        public = await self.alice.create_room(preset="public_chat", room_version="10")
        invited = await self.alice.create_room()
        await self.alice.invite(invited, self.bob.user_id)
        await self.set(self.alice, "suspend", self.bob.user_id)
        carol = await self.server.register("carol")
        target = {"user_id": carol.user_id}
        redaction = {"redacts": theirs}
        for method, path, body in (
            ("PUT", f"{room}/send/m.room.message/1", TEXT),
            ("PUT", f"{room}/send/m.reaction/1", {}),
            ("PUT", f"{room}/send/m.room.redaction/2", redaction),
            ("PUT", f"{room}/redact/{q(theirs)}/3", {}),
            ("PUT", f"{room}/redact/%24unknown/4", {}),
            ("PUT", f"{room}/state/m.room.name", {"name": "x"}),
            ("POST", f"/join/{q(public)}", {}),
            ("POST", f"/rooms/{q(public)}/join", {}),
            ("POST", f"/rooms/{q(invited)}/join", {}),
            ("POST", f"/knock/{q(public)}", {}),
            ("POST", f"{room}/invite", target),
            ("POST", f"{room}/kick", target),
            ("POST", f"{room}/ban", target),
            ("POST", f"{room}/upgrade", {"new_version": "11"}),
            ("POST", "/createRoom", {}),
            ("PUT", f"/profile/{q(self.bob.user_id)}/displayname", {"displayname": "x"}),
        ):
            answer = await self.bob.call(method, path, body)
            self.assert_error(answer, 403, "M_USER_SUSPENDED")
        await self.bob.sync()
        await self.bob.ok("GET", f"{room}/messages", query={"dir": "b"})
        await self.bob.ok("PUT", f"{room}/redact/{q(own)}/5", {})
        await self.bob.ok("PUT", f"{room}/send/m.room.redaction/6", {"redacts": second})
        await self.bob.ok("POST", "/keys/query", {"device_keys": {}})
        await self.bob.leave(self.room_id)
        await self.bob.leave(invited)
        session = await log_in(self.server, self.bob)
        self.assert_error(await session.call("POST", "/createRoom", {}), 403, "M_USER_SUSPENDED")
        await session.ok("POST", "/logout", {})
        await self.set(self.alice, "suspend", self.bob.user_id, False)
        await self.bob.join(public)
