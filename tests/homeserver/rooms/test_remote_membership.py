"""Invites, knocks and their end between this server and others."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from homeserver.core.signing import sign_event
from storage import events
from tests.homeserver.rooms.remote_case import RemoteCase, always
from tests.support.events import ALL_VERSIONS
from tests.support.federation import eventually
from tests.support.peer import Received, Reply
from tests.support.peer_room import PeerRoom


class InviteTest(RemoteCase):
    async def invite(self, room_id: str, user_id: str) -> Any:
        path = f"/rooms/{quote(room_id)}/invite"
        return await self.alice.call("POST", path, {"user_id": user_id, "reason": "come"})

    async def test_every_version(self) -> None:
        """Shows FJ-11, FJ-13."""
        await self.start()
        mallory = self.peer.user()
        for version in ALL_VERSIONS:
            room_id = await self.alice.create_room(room_version=version, name="Our room")
            answer = await self.invite(room_id, mallory)
            self.assertEqual(answer.status, 200, answer.body)
            request = self.peer.received("invite")[-1]
            self.assertEqual(request.body["room_version"], version)
            pdu = request.body["event"]
            self.assertEqual(pdu["content"], {"membership": "invite", "reason": "come"})
            described = {event["type"]: event for event in request.body["invite_room_state"]}
            self.assertLessEqual(
                {"m.room.create", "m.room.join_rules", "m.room.name", "m.room.member"},
                described.keys(),
            )
            for event in described.values():
                self.assertIn(self.hearth.name, event["signatures"])
                self.assertIn("auth_events", event)
            self.assertEqual(await self.membership(room_id, mallory), "invite")
            stored = await self.hearth.homeserver.db.read(events.get, request.parts[1])
            assert stored is not None
            self.assertIn(f'"{self.peer.name}":{{"ed25519:peer"', stored.json)

    async def test_answers_that_are_not_signed(self) -> None:
        """Shows FJ-11."""
        await self.start()
        room_id = await self.alice.create_room(room_version="10")

        def changed(request: Received) -> Any:
            pdu = {**request.body["event"], "content": {"membership": "join"}}
            other = PeerRoom(self.peer.name, self.peer.key, "10", room_id)
            sign_event(pdu, other.version, self.peer.name, self.peer.key)
            return {"event": pdu}

        answers: list[Any] = [
            lambda request: {"event": request.body["event"]},
            lambda request: {"event": {}},
            lambda request: {"event": {"signatures": {self.peer.name: {"ed25519:peer": "AA"}}}},
            lambda request: {"event": {"signatures": {self.peer.name: 5}}},
            lambda request: {"event": []},
            lambda request: {},
            lambda request: Reply(b"rubbish"),
            changed,
        ]
        for answer in answers:
            self.peer.on["invite"] = answer
            self.assert_error(await self.invite(room_id, self.peer.user()), 502, "M_UNKNOWN")
            self.assertIsNone(await self.membership(room_id, self.peer.user()))

    async def test_refusals_reach_the_client(self) -> None:
        """Shows FJ-21."""
        await self.start()
        room_id = await self.alice.create_room()
        for status, errcode in (
            (403, "M_FORBIDDEN"),
            (403, "M_INVITE_BLOCKED"),
            (400, "M_INCOMPATIBLE_ROOM_VERSION"),
        ):
            reply = Reply({"errcode": errcode, "error": "no"}, status)
            self.peer.on["invite"] = always(reply)
            self.assert_error(await self.invite(room_id, self.peer.user()), status, errcode)
            self.assertIsNone(await self.membership(room_id, self.peer.user()))

    async def test_whoever_may_not_invite_asks_nobody(self) -> None:
        await self.start()
        room_id = await self.alice.create_room(preset="public_chat")
        bob = await self.hearth.register("bob")
        await bob.join(room_id)
        path = f"/rooms/{quote(room_id)}/invite"
        answer = await bob.call("POST", path, {"user_id": self.peer.user()})
        self.assert_error(answer, 403, "M_FORBIDDEN")
        self.assertEqual(self.peer.received("invite"), [])

    async def test_version_1_of_the_call(self) -> None:
        """Shows FJ-14."""
        await self.start()
        self.peer.on["invite"] = lambda request: Reply({"errcode": "M_UNRECOGNIZED"}, 404)

        def answer(request: Received) -> Any:
            pdu = request.body
            version = PeerRoom(self.peer.name, self.peer.key, "1", pdu["room_id"]).version
            sign_event(pdu, version, self.peer.name, self.peer.key)
            return [200, {"event": pdu}]

        self.peer.on["invite_v1"] = answer
        for version in ALL_VERSIONS:
            room_id = await self.alice.create_room(room_version=version)
            done = await self.invite(room_id, self.peer.user())
            old = version in ("1", "2")
            self.assertEqual(done.status, 200 if old else 502, version)
        asked = self.peer.received("invite_v1")
        self.assertEqual(len(asked), 2)
        self.assertIn("invite_room_state", asked[0].body["unsigned"])

    async def test_a_new_room(self) -> None:
        """Users of other servers are invited to new rooms, and who is away does not hinder it."""
        await self.start()
        away = await self.another_peer()
        await away.close()
        bob = await self.hearth.register("bob")
        for version in ("10", "12"):
            room_id = await self.alice.create_room(
                room_version=version,
                invite=[self.peer.user(), away.user(), bob.user_id],
                is_direct=True,
                preset="trusted_private_chat",
            )
            self.assertEqual(await self.membership(room_id, self.peer.user()), "invite")
            self.assertEqual(await self.membership(room_id, bob.user_id), "invite")
            self.assertIsNone(await self.membership(room_id, away.user()))
            pdu = self.peer.received("invite")[-1].body["event"]
            self.assertIs(pdu["content"]["is_direct"], True)


class RejectionTest(RemoteCase):
    async def invited(self, version: str = "10") -> PeerRoom:
        room = self.peer.create_room(version, join_rule="invite")
        await self.peer.invite(self.hearth.name, room, self.alice.user_id)
        self.assertEqual(await self.membership(room.room_id, self.alice.user_id), "invite")
        return room

    async def test_with_the_inviting_server(self) -> None:
        """Shows FJ-15."""
        await self.start()
        for version in ALL_VERSIONS:
            room = await self.invited(version)
            before = await self.alice.sync()
            self.assertIn(room.room_id, before["rooms"]["invite"])
            await self.alice.leave(room.room_id)
            member = room.state_event("m.room.member", self.alice.user_id)
            assert member is not None
            self.assertEqual(member.membership, "leave")
            after = await self.alice.sync(before["next_batch"])
            self.assertIn(room.room_id, after["rooms"]["leave"])
            rooms = (await self.alice.sync()).get("rooms", {})
            self.assertNotIn(room.room_id, rooms.get("invite", {}))

    async def test_without_the_inviting_server(self) -> None:
        """Shows FJ-15."""
        await self.start()
        for version in ALL_VERSIONS:
            room = await self.invited(version)
            before = await self.alice.sync()
            self.peer.on["make_leave"] = lambda request: Reply({}, 500)
            await self.alice.leave(room.room_id)
            self.assertEqual(await self.membership(room.room_id, self.alice.user_id), "leave")
            after = await self.alice.sync(before["next_batch"])
            self.assertIn(room.room_id, after["rooms"]["leave"])
            await self.alice.leave(room.room_id)
            await self.alice.ok("POST", f"/rooms/{quote(room.room_id)}/forget", {})
        self.peer.on = {}
        room = await self.invited()
        self.federation.cut(self.hearth, self.peer.name)
        await self.alice.leave(room.room_id)
        self.assertEqual(await self.membership(room.room_id, self.alice.user_id), "leave")

    async def test_templates_of_something_else(self) -> None:
        """Shows FJ-15: nothing but a leave is signed."""
        await self.start()
        room = await self.invited()
        usual = self.peer.answer_make_leave

        def answer(request: Received) -> Any:
            found: Any = usual(request)
            found["event"]["content"] = {"membership": "join"}
            return found

        self.peer.on["make_leave"] = answer
        await self.alice.leave(room.room_id)
        self.assertEqual(self.peer.received("send_leave"), [])
        self.assertEqual(await self.membership(room.room_id, self.alice.user_id), "leave")

    async def test_invited_anew(self) -> None:
        await self.start()
        room = await self.invited()
        await self.alice.leave(room.room_id)
        await self.peer.invite(self.hearth.name, room, self.alice.user_id)
        self.assertIn(room.room_id, (await self.alice.sync())["rooms"]["invite"])
        await self.joined(room)
        self.assertIn(self.alice.user_id, room.members())

    async def test_strangers(self) -> None:
        await self.start()
        room = await self.invited()
        bob = await self.hearth.register("bob")
        for room_id in (room.room_id, "!nowhere:elsewhere.invalid"):
            answer = await bob.call("POST", f"/rooms/{quote(room_id)}/leave", {})
            self.assert_error(answer, 403, "M_FORBIDDEN")


class KnockTest(RemoteCase):
    async def knock(self, room: PeerRoom) -> Any:
        path = f"/knock/{quote(room.room_id, safe='')}"
        return await self.alice.call(
            "POST", path, {"reason": "please"}, query={"via": self.peer.name}
        )

    async def test_knocking(self) -> None:
        """Shows FJ-13, FJ-15."""
        await self.start()
        for version in ("7", "10", "11", "12"):
            room = self.peer.create_room(version, join_rule="knock")
            room.grow("m.room.name", {"name": "Closed"}, self.peer.user(), "")
            answer = await self.knock(room)
            self.assertEqual(answer.status, 200, answer.body)
            member = room.state_event("m.room.member", self.alice.user_id)
            assert member is not None
            self.assertEqual(member.membership, "knock")
            self.assertEqual(member.content["reason"], "please")
            synced = await self.alice.sync()
            shown = synced["rooms"]["knock"][room.room_id]["knock_state"]["events"]
            self.assertIn("Closed", [event["content"].get("name") for event in shown])
            self.assertEqual({*shown[0]}, {"type", "state_key", "sender", "content"})
            # Knocking again changes nothing, taking it back reaches the other server.
            self.assertEqual((await self.knock(room)).status, 200)
            await self.alice.leave(room.room_id)
            member = room.state_event("m.room.member", self.alice.user_id)
            assert member is not None
            self.assertEqual(member.membership, "leave")
            after = await self.alice.sync(synced["next_batch"])
            self.assertIn(room.room_id, after["rooms"]["leave"])
        self.assertEqual(len(self.peer.received("send_knock")), 4)

    async def test_badly_signed_state(self) -> None:
        """Shows FJ-13."""
        await self.start()
        room = self.peer.create_room("12", join_rule="knock")
        name = room.make("m.room.name", {"name": "Signed"}, self.peer.user(), "")
        forged = {**name.pdu, "content": {"name": "Forged"}, "depth": 99}
        other = self.peer.create_room("12", "bob").state_event("m.room.create")
        assert other is not None
        bare = {"type": "m.room.topic", "state_key": "", "sender": "@a:b", "content": {}}
        given = ["rubbish", {}, forged, bare, other.pdu, name.pdu]
        self.alter(self.peer, "send_knock", knock_room_state=given)
        self.assertEqual((await self.knock(room)).status, 200)
        synced = await self.alice.sync()
        shown = synced["rooms"]["knock"][room.room_id]["knock_state"]["events"]
        self.assertEqual(
            [event["content"] for event in shown if event["type"] != "m.room.member"],
            [{"name": "Signed"}],
        )

    async def test_refusals_reach_the_client(self) -> None:
        """Shows FJ-21."""
        await self.start()
        room = self.peer.create_room("10", join_rule="knock")
        for endpoint in ("make_knock", "send_knock"):
            for status, errcode in ((403, "M_FORBIDDEN"), (404, "M_NOT_FOUND")):
                reply = Reply({"errcode": errcode, "error": "no"}, status)
                self.peer.on[endpoint] = always(reply)
                self.assert_error(await self.knock(room), status, errcode)
                self.assertIsNone(await self.membership(room.room_id, self.alice.user_id))
            self.peer.on = {}

    async def test_a_version_without_knocking(self) -> None:
        await self.start()
        room = self.peer.create_room("6", join_rule="knock")
        self.assert_error(await self.knock(room), 400, "M_INCOMPATIBLE_ROOM_VERSION")

    async def test_the_knock_is_answered(self) -> None:
        await self.start()
        room = self.peer.create_room("10", join_rule="knock")
        self.assertEqual((await self.knock(room)).status, 200)
        await self.peer.invite(self.hearth.name, room, self.alice.user_id)
        await eventually(self.is_invited_to(room))
        await self.joined(room)
        self.assertIn(self.alice.user_id, room.members())

    def is_invited_to(self, room: PeerRoom) -> Any:
        async def invited() -> bool:
            return await self.membership(room.room_id, self.alice.user_id) == "invite"

        return invited
