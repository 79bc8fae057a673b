"""What the server itself tells users."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.errors import MatrixError
from homeserver.core.ids import UserID
from homeserver.rooms.notices import ServerNotices
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User


class NoticesTest(RoomTestCase):
    async def notify(self, user: User, text: str) -> str:
        notices = self.server.homeserver.services[ServerNotices]
        return await notices.send(UserID.parse(user.user_id), text)

    async def invited(self, user: User) -> list[str]:
        return list((await user.sync())["rooms"].get("invite", {}))

    async def test_a_user_is_invited_to_one_room(self) -> None:
        """Shows MISC-10."""
        await self.start()
        await self.notify(self.bob, "first")
        await self.notify(self.bob, "second")
        (room_id,) = await self.invited(self.bob)
        await self.bob.join(room_id)
        room = (await self.bob.sync())["rooms"]["join"][room_id]
        tags = [e for e in room["account_data"]["events"] if e["type"] == "m.tag"]
        self.assertEqual(tags[0]["content"], {"tags": {"m.server_notice": {}}})
        sent = [e for e in room["timeline"]["events"] if e["type"] == "m.room.message"]
        contents = [event["content"] for event in sent]
        expected = [{"msgtype": "m.server_notice", "body": text} for text in ("first", "second")]
        self.assertEqual(contents, expected)
        self.assertEqual({event["sender"] for event in sent}, {"@notices:hearth.test"})
        await self.notify(self.alice, "other")
        self.assertNotEqual(await self.invited(self.alice), [room_id])

    async def test_the_invite_cannot_be_rejected(self) -> None:
        """Shows MISC-10."""
        await self.start()
        await self.notify(self.bob, "hear")
        (room_id,) = await self.invited(self.bob)
        errcode = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
        answer = await self.bob.call("POST", f"/rooms/{q(room_id)}/leave", {})
        self.assert_error(answer, 403, errcode)
        path = f"/rooms/{q(room_id)}/state/m.room.member/{q(self.bob.user_id)}"
        answer = await self.bob.call("PUT", path, {"membership": "leave"})
        self.assert_error(answer, 403, errcode)
        # Other invites can.
        await self.alice.invite(self.room_id, self.bob.user_id)
        await self.bob.leave(self.room_id)

    async def test_after_leaving_comes_another_invite_to_the_same_room(self) -> None:
        """Shows MISC-10."""
        await self.start()
        await self.notify(self.bob, "hear")
        (room_id,) = await self.invited(self.bob)
        await self.bob.join(room_id)
        answer = await self.bob.call(
            "PUT", f"/rooms/{q(room_id)}/send/m.room.message/1", {"body": "no"}
        )
        self.assert_error(answer, 403, "M_FORBIDDEN")
        await self.bob.leave(room_id)
        await self.notify(self.bob, "hear again")
        self.assertEqual(await self.invited(self.bob), [room_id])

    async def test_notices_at_the_same_time_make_one_room(self) -> None:
        """Shows MISC-10."""
        await self.start()
        sending: list[Deferred[Any]] = [
            Deferred.fromCoroutine(self.notify(self.bob, str(i))) for i in range(4)
        ]
        await gatherResults(sending, consumeErrors=True)
        self.assertEqual(len(await self.invited(self.bob)), 1)

    async def test_who_takes_no_invites_gets_notices(self) -> None:
        await self.start()
        path = f"/user/{q(self.bob.user_id)}/account_data/m.invite_permission_config"
        await self.bob.ok("PUT", path, {"default_action": "block"})
        await self.notify(self.bob, "hear")
        await self.bob.ok("PUT", path, {})
        self.assertEqual(len(await self.invited(self.bob)), 1)

    async def test_nobody_there(self) -> None:
        """Shows MISC-10."""
        await self.start()
        notices = self.server.homeserver.services[ServerNotices]
        with self.assertRaises(MatrixError) as caught:
            await notices.send(UserID.parse("@nobody:hearth.test"), "x")
        self.assertEqual(caught.exception.status, 404)

    async def test_nobody_else_can_have_the_account(self) -> None:
        """Shows MISC-10."""
        await self.start()
        for path in ("/register?kind=user", "/register/available?username=notices"):
            method = "GET" if "available" in path else "POST"
            status, body = await self.server.client.request(
                method,
                f"/_matrix/client/v3{path}",
                {"username": "notices", "password": "x", "auth": {"type": "m.login.dummy"}}
                if method == "POST"
                else None,
            )
            self.assertEqual((status, body["errcode"]), (400, "M_USER_IN_USE"))

    async def test_an_account_of_somebody_sends_nothing(self) -> None:
        await self.start()
        await self.notify(self.bob, "x")
        await self.server.homeserver.db.write(
            lambda txn: txn.execute("UPDATE users SET user_type = NULL")
        )
        with self.assertRaises(MatrixError) as caught:
            await self.notify(self.bob, "x")
        self.assertEqual(caught.exception.errcode, "M_FORBIDDEN")
