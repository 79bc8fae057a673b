"""Users of this server are invited by other servers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import generate_signing_key, signatures_of
from homeserver.core.types import JsonObject
from homeserver.rooms.received_invites import ReceivedInvites
from tests.federation.server.scene import Scene, quoted
from tests.support.peer import make_peer
from tests.support.peer_room import PeerRoom

DESCRIBED = ("m.room.create", "m.room.join_rules", "m.room.name")


class InviteScene(Scene):
    def described(self, room: PeerRoom) -> list[JsonObject]:
        """Full events that describe a room."""
        return [
            room.events[event_id].pdu
            for (kind, _), event_id in room.state.items()
            if kind in DESCRIBED
        ]

    def invitation(self, room: PeerRoom, **changes: Any) -> Event:
        """An invite for alice by mallory; `changes` are of the event."""
        event = room.make(
            "m.room.member", {"membership": "invite"}, self.mallory, self.alice.user_id
        )
        return room.signed({**event.pdu, **changes}) if changes else event

    async def invite(
        self, room: PeerRoom, event: Event | None = None, /, **changes: Any
    ) -> tuple[int, Any]:
        """Send an invite; `changes` are of the request's body."""
        event = event or self.invitation(room)
        body = {
            "room_version": room.version.identifier,
            "event": event.pdu,
            "invite_room_state": self.described(room),
            **changes,
        }
        return await self.send(room.room_id, body, "v2/invite", event_id=event.event_id)

    async def invited(self, version: str = "10", **options: Any) -> tuple[PeerRoom, Event]:
        """A room that alice is invited to, and the invite."""
        await self.begin()
        room = self.peer.create_room(version, join_rule="invite", **options)
        event = self.invitation(room)
        status, answer = await self.invite(room, event)
        self.assertEqual(status, 200, answer)
        room.add(event)
        return room, event

    async def invites(self) -> dict[str, list[JsonObject]]:
        """The invites in alice's first sync: stripped state by room ID."""
        synced = await self.alice.sync()
        return {
            room_id: section["invite_state"]["events"]
            for room_id, section in synced.get("rooms", {}).get("invite", {}).items()
        }


class ReceiveTest(InviteScene):
    async def test_invites_in_every_version(self) -> None:
        """Shows FJ-12, FJ-13."""
        await self.begin()
        for version in ROOM_VERSIONS:
            room = self.peer.create_room(version, join_rule="invite")
            room.grow("m.room.name", {"name": "Here"}, self.mallory, "")
            event = self.invitation(room)
            since = (await self.alice.sync())["next_batch"]
            status, answer = await self.invite(room, event)
            self.assertEqual(status, 200, answer)
            signed = answer["event"]
            self.assertTrue(signatures_of(signed, self.hearth.name))
            self.assertTrue(signatures_of(signed, self.peer.name))
            self.assertEqual({**signed, "signatures": 0}, {**event.pdu, "signatures": 0})
            synced = await self.alice.sync(since)
            shown = synced["rooms"]["invite"][room.room_id]["invite_state"]["events"]
            self.assertEqual(
                {each["type"] for each in shown}, {*DESCRIBED, "m.room.member"}, version
            )
            for each in shown:
                self.assertEqual(set(each), {"type", "state_key", "sender", "content"})
            self.assertEqual(shown[-1]["state_key"], self.alice.user_id)
            self.assertEqual(shown[-1]["sender"], self.mallory)

    async def test_the_same_invite_again(self) -> None:
        """Shows FJ-12."""
        room, event = await self.invited()
        first = await self.alice.sync()
        status, answer = await self.invite(room, event)
        self.assertEqual(status, 200, answer)
        later = await self.alice.sync(first["next_batch"])
        self.assertNotIn("invite", later.get("rooms", {}))

    async def test_the_same_invite_many_times_at_once(self) -> None:
        """Shows FJ-12."""
        await self.begin()
        room = self.peer.create_room("10", join_rule="invite")
        event = self.invitation(room)
        sent = [Deferred.fromCoroutine(self.invite(room, event)) for _ in range(8)]
        answers: list[tuple[int, Any]] = await gatherResults(sent)
        self.assertEqual([status for status, _ in answers], [200] * 8)
        self.assertEqual(list(await self.invites()), [room.room_id])

    async def test_it_is_still_there_after_a_restart(self) -> None:
        """Shows FJ-12."""
        room, _ = await self.invited()
        await self.hearth.restart()
        self.assertIn(room.room_id, await self.invites())

    async def test_old_servers_invite_to_old_rooms(self) -> None:
        """Shows FJ-14."""
        await self.begin()
        for version in ("1", "2"):
            room = self.peer.create_room(version, join_rule="invite")
            event = self.invitation(room)
            pdu = {**event.pdu, "unsigned": {"invite_room_state": self.described(room)}}
            status, answer = await self.send(
                room.room_id, pdu, "v1/invite", event_id=event.event_id
            )
            self.assertEqual((status, answer[0]), (200, 200), answer)
            self.assertTrue(signatures_of(answer[1]["event"], self.hearth.name))
            self.assertIn(room.room_id, await self.invites())

    async def test_versions_that_are_not_supported(self) -> None:
        """Shows FJ-12."""
        await self.begin()
        room = self.peer.create_room("10")
        answer = await self.invite(room, room_version="strange")
        self.refused(answer, 400, "M_INCOMPATIBLE_ROOM_VERSION")
        self.assertEqual(answer[1]["room_version"], "strange")
        self.assertEqual(await self.invites(), {})

    async def test_what_is_no_invite_of_a_user_of_this_server(self) -> None:
        """Shows FJ-12."""
        await self.begin()
        room = self.peer.create_room("10")
        other = self.peer.create_room("10")
        stranger = "@x:elsewhere.example"
        wrong: list[dict[str, Any]] = [
            {"content": {"membership": "join"}},
            {"content": {"membership": "leave"}},
            {"content": {"membership": ["invite"]}},
            {"type": "m.room.message"},
            {"state_key": stranger},
            {"state_key": self.mallory},
            {"state_key": "alice"},
            {"sender": stranger},
            {"sender": self.alice.user_id},
            {"room_id": other.room_id},
            {"room_id": 5},
            {"depth": "deep"},
            {"content": {"membership": "invite", "x": "y" * 66_000}},
        ]
        for changes in wrong:
            event = self.invitation(room, **changes)
            answer = await self.invite(room, event)
            self.refused(answer, 400, "M_INVALID_PARAM")
            self.assertNotIn("event", answer[1])
        self.assertEqual(await self.invites(), {})

    async def test_events_that_are_not_what_was_signed(self) -> None:
        """Shows FJ-12."""
        await self.begin()
        room = self.peer.create_room("10")
        event = self.invitation(room)
        forged = room.signed(event.pdu, key=generate_signing_key("peer", b"\1" * 32))
        self.refused(await self.invite(room, forged), 400, "M_INVALID_PARAM")
        changed = {**event.pdu, "content": {"membership": "invite", "displayname": "x"}}
        self.refused(await self.invite(room, event, event=changed), 400, "M_INVALID_PARAM")
        for rubbish in ({}, {"type": "m.room.member"}, {**event.pdu, "signatures": 1}):
            answer = await self.invite(room, event, event=rubbish)
            self.refused(answer, 400, "M_INVALID_PARAM")
        body = {"room_version": "10", "event": event.pdu}
        answer = await self.send(room.room_id, body, "v2/invite", event_id="$another")
        self.refused(answer, 400, "M_INVALID_PARAM")
        other = await make_peer(self, self.federation)
        answer = await self.send(
            room.room_id, body, "v2/invite", event_id=event.event_id, peer=other
        )
        self.refused(answer, 400, "M_INVALID_PARAM")
        self.assertEqual(await self.invites(), {})

    async def test_who_cannot_be_invited(self) -> None:
        """Shows FJ-12."""
        await self.begin()
        room = self.peer.create_room("10")
        nobody = self.invitation(room, state_key=f"@nobody:{self.hearth.name}")
        self.refused(await self.invite(room, nobody), 404, "M_NOT_FOUND")
        path = f"/user/{quoted(self.alice.user_id)}/account_data/m.invite_permission_config"
        await self.alice.ok("PUT", path, {"default_action": "block"})
        self.refused(await self.invite(room), 403, "M_INVITE_BLOCKED")
        bob = await self.hearth.register("bob")
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "wonderland",
        }
        await bob.ok("POST", "/account/deactivate", {"auth": auth})
        closed = self.invitation(room, state_key=bob.user_id)
        self.refused(await self.invite(room, closed), 403, "M_FORBIDDEN")


class RoomStateTest(InviteScene):
    async def test_stripped_state_of_older_servers(self) -> None:
        """Shows FJ-13."""
        await self.begin()
        for version in ("1", "6", "11"):
            room = self.peer.create_room(version)
            keys = ("type", "state_key", "sender", "content")
            stripped = [{key: pdu[key] for key in keys} for pdu in self.described(room)]
            status, answer = await self.invite(room, invite_room_state=stripped)
            self.assertEqual(status, 200, answer)
            shown = (await self.invites())[room.room_id]
            self.assertIn("m.room.create", {each["type"] for each in shown})

    async def test_full_events_where_the_version_wants_them(self) -> None:
        """Shows FJ-13."""
        await self.begin()
        room = self.peer.create_room("12", join_rule="invite")
        good = self.described(room)
        keys = ("type", "state_key", "sender", "content")
        other = self.described(self.peer.create_room("12", localpart="another"))
        forger = generate_signing_key("peer", b"\1" * 32)
        wrong: list[Any] = [
            None,
            [],
            {},
            "x",
            [1],
            good[1:],
            [{key: pdu[key] for key in keys} for pdu in good],
            other,
            [good[0], other[1]],
            [good[0], {**good[1], "content": {"join_rule": "public"}, "signatures": {}}],
            [good[0], room.signed(good[1], key=forger).pdu],
            good * 60,
        ]
        for room_state in wrong:
            answer = await self.invite(room, invite_room_state=room_state)
            self.assertEqual(answer[0], 400, room_state)
            self.refused(answer, 400, "M_INVALID_PARAM")
        self.assertEqual(await self.invites(), {})

    async def test_rubbish_among_it(self) -> None:
        """Shows FJ-13."""
        await self.begin()
        room = self.peer.create_room("10")
        good = {"type": "m.room.name", "state_key": "", "sender": self.mallory, "content": {}}
        other = self.peer.create_room("10")
        rubbish = [
            5,
            {},
            {**good, "content": 1},
            {**good, "type": None},
            {**good, "state_key": 0},
            {"type": "m.room.topic", "content": {}},
            {**good, "type": "m.room.topic", "room_id": other.room_id},
            {**good, "x": "y"},
        ]
        status, answer = await self.invite(room, invite_room_state=rubbish)
        self.assertEqual(status, 200, answer)
        shown = (await self.invites())[room.room_id]
        self.assertEqual(shown[:-1], [good])
        large = [{**good, "content": {"x": "y" * 600_000}}]
        answer = await self.invite(room, invite_room_state=large)
        self.refused(answer, 400, "M_INVALID_PARAM")


class EndTest(InviteScene):
    async def end(self, room: PeerRoom, event: Event, origin: str | None = None) -> bool:
        invites = self.hearth.homeserver.services[ReceivedInvites]
        return await invites.withdrawn(origin or self.peer.name, event)

    def leave(self, room: PeerRoom, membership: str = "leave", **options: Any) -> Event:
        return room.make(
            "m.room.member",
            {"membership": membership},
            self.mallory,
            self.alice.user_id,
            **options,
        )

    async def test_a_withdrawn_invite(self) -> None:
        """Shows FJ-16."""
        for membership in ("leave", "ban"):
            room, _ = await self.invited()
            since = (await self.alice.sync())["next_batch"]
            self.assertTrue(await self.end(room, self.leave(room, membership)))
            self.assertEqual(await self.invites(), {})
            synced = await self.alice.sync(since)
            self.assertIn(room.room_id, synced["rooms"]["leave"])

    async def test_only_what_ends_this_invite(self) -> None:
        """Shows FJ-16."""
        room, invite = await self.invited()
        old = {key: value for key, value in room.state.items() if value != invite.event_id}
        other = await make_peer(self, self.federation)
        foreign = room.make(
            "m.room.member",
            {"membership": "leave"},
            other.user("x"),
            self.alice.user_id,
            key=other.key,
            signer=other.name,
        )
        refused = [
            (self.leave(room, state=old), None),
            (self.leave(room, "join"), None),
            (self.leave(room, "invite"), None),
            (foreign, other.name),
        ]
        for event, origin in refused:
            self.assertFalse(await self.end(room, event, origin))
        self.assertIn(room.room_id, await self.invites())
        self.assertTrue(await self.end(room, self.leave(room)))
        self.assertFalse(await self.end(room, self.leave(room)))

    async def test_a_room_that_is_not_known(self) -> None:
        """Shows FJ-16."""
        await self.begin()
        room = self.peer.create_room("10")
        self.assertFalse(await self.end(room, self.leave(room)))


class KnockEndTest(InviteScene):
    async def knocked(self) -> PeerRoom:
        """A room of the peer's that alice knocks on."""
        await self.begin()
        room = self.peer.create_room("10", join_rule="knock")
        path = f"/knock/{quoted(room.room_id)}?server_name={quoted(self.peer.name)}"
        await self.alice.ok("POST", path, {})
        synced = await self.alice.sync()
        self.assertIn(room.room_id, synced["rooms"]["knock"])
        return room

    async def test_a_refused_knock(self) -> None:
        """Shows FJ-16."""
        room = await self.knocked()
        since = (await self.alice.sync())["next_batch"]
        leave = room.make(
            "m.room.member", {"membership": "leave"}, self.mallory, self.alice.user_id
        )
        await self.peer.sent(self.hearth.name, leave)
        synced = await self.alice.sync(since)
        self.assertIn(room.room_id, synced["rooms"]["leave"])
        self.assertNotIn("knock", (await self.alice.sync()).get("rooms", {}))

    async def test_an_accepted_knock(self) -> None:
        """Shows FJ-12."""
        room = await self.knocked()
        since = (await self.alice.sync())["next_batch"]
        await self.peer.invite(self.hearth.name, room, self.alice.user_id)
        synced = await self.alice.sync(since)
        self.assertIn(room.room_id, synced["rooms"]["invite"])
        await self.alice.ok(
            "POST", f"/join/{quoted(room.room_id)}?server_name={quoted(self.peer.name)}", {}
        )
        self.assertIn(room.room_id, (await self.alice.sync())["rooms"]["join"])


class LyingTest(InviteScene):
    async def test_an_invite_to_a_room_of_others_lies_about_its_version(self) -> None:
        """Shows FJ-12."""
        await self.begin()
        liar = await make_peer(self, self.federation)
        room = self.peer.create_room("10")
        lie = PeerRoom(liar.name, liar.key, "1", room.room_id)
        sender = liar.user("liar")
        event = lie.make(
            "m.room.member", {"membership": "invite"}, sender, self.alice.user_id, prev=[], auth=[]
        )
        body = {"room_version": "1", "event": event.pdu, "invite_room_state": []}
        answer = await self.send(
            room.room_id, body, "v2/invite", event_id=event.event_id, peer=liar
        )
        self.assertEqual(answer[0], 200, answer)
        await self.alice.ok(
            "POST", f"/join/{quoted(room.room_id)}?server_name={quoted(self.peer.name)}", {}
        )
        self.assertIn(room.room_id, (await self.alice.sync())["rooms"]["join"])
        answer = await self.send(
            room.room_id, body, "v2/invite", event_id=event.event_id, peer=liar
        )
        self.refused(answer, 400, "M_INVALID_PARAM")


class ResidentTest(InviteScene):
    async def resident(self) -> PeerRoom:
        """A room on hearth that mallory and bob are in, and alice is not, as mallory's server
        sees it."""
        await self.begin()
        self.bob = await self.hearth.register("bob")
        room_id = await self.bob.create_room(
            room_version="10",
            preset="public_chat",
            power_level_content_override={"invite": 0},
        )
        return await self.peer.join(self.hearth.name, room_id)

    async def test_an_invite_to_a_room_that_this_server_is_in(self) -> None:
        """Shows FJ-12."""
        room = await self.resident()
        event = self.invitation(room)
        status, answer = await self.invite(room, event)
        self.assertEqual(status, 200, answer)
        self.assertIn(room.room_id, await self.invites())
        path = f"/rooms/{quoted(room.room_id)}/state/m.room.member/{quoted(self.alice.user_id)}"
        self.assertEqual((await self.bob.ok("GET", path))["membership"], "invite")
        await self.alice.join(room.room_id)

    async def test_an_invite_that_the_rules_of_the_room_forbid(self) -> None:
        """Shows FJ-12."""
        room = await self.resident()
        await self.bob.ok(
            "POST", f"/rooms/{quoted(room.room_id)}/ban", {"user_id": self.alice.user_id}
        )
        self.refused(await self.invite(room), 403, "M_FORBIDDEN")
        self.assertEqual(await self.invites(), {})

    async def test_a_denied_server(self) -> None:
        """Shows ACL-3."""
        room = await self.resident()
        acl = {"allow": ["*"], "deny": ["localhost"]}
        await self.bob.set_state(room.room_id, "m.room.server_acl", acl)
        self.refused(await self.invite(room), 403, "M_FORBIDDEN")
        self.assertEqual(await self.invites(), {})
