"""Users of other servers join rooms of this one."""

from __future__ import annotations

from typing import Any

from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import generate_signing_key, signatures_of
from tests.federation.server.scene import Scene, quoted
from tests.support.peer import make_peer
from tests.support.peer_room import PeerRoom

RESTRICTED = "m.room.join_rules"


def restricted(*room_ids: str) -> dict[str, Any]:
    allow = [{"type": "m.room_membership", "room_id": room_id} for room_id in room_ids]
    return {"join_rule": "restricted", "allow": allow}


class MakeJoinTest(Scene):
    async def test_the_template(self) -> None:
        """Shows FJ-1."""
        await self.begin()
        room_id = await self.room("10")
        status, made = await self.make(room_id)
        self.assertEqual(status, 200, made)
        self.assertEqual(made["room_version"], "10")
        event = made["event"]
        self.assertEqual(event["room_id"], room_id)
        self.assertEqual(event["type"], "m.room.member")
        self.assertEqual(event["sender"], self.mallory)
        self.assertEqual(event["state_key"], self.mallory)
        self.assertEqual(event["content"]["membership"], "join")
        self.assertTrue(event["prev_events"] and event["auth_events"])
        self.assertNotIn("signatures", event)

    async def test_versions_that_the_asking_server_does_not_know(self) -> None:
        """Shows FJ-1."""
        await self.begin()
        room_id = await self.room("10")
        answer = await self.make(room_id, ver=["1", "9", "strange"])
        self.refused(answer, 400, "M_INCOMPATIBLE_ROOM_VERSION")
        self.assertEqual(answer[1]["room_version"], "10")
        path = f"/_matrix/federation/v1/make_join/{quoted(room_id)}/{quoted(self.mallory)}"
        answer = await self.peer.request("GET", self.hearth.name, path)
        self.refused(answer, 400, "M_INCOMPATIBLE_ROOM_VERSION")

    async def test_only_for_users_of_the_asking_server(self) -> None:
        """Shows FJ-2."""
        await self.begin()
        room_id = await self.room()
        for user_id in (self.alice.user_id, "@x:elsewhere.example"):
            self.refused(await self.make(room_id, user_id), 403, "M_FORBIDDEN")

    async def test_a_join_that_the_rules_forbid(self) -> None:
        """Shows FJ-2."""
        await self.begin()
        closed = await self.room(preset="private_chat")
        self.refused(await self.make(closed), 403, "M_FORBIDDEN")
        room_id = await self.room()
        await self.alice.ok("POST", f"/rooms/{quoted(room_id)}/ban", {"user_id": self.mallory})
        self.refused(await self.make(room_id), 403, "M_FORBIDDEN")

    async def test_unknown_and_empty_rooms(self) -> None:
        """Shows FJ-2."""
        await self.begin()
        self.refused(await self.make("!nothing:elsewhere.example"), 404, "M_NOT_FOUND")
        room_id = await self.room()
        await self.alice.leave(room_id)
        self.refused(await self.make(room_id), 404, "M_NOT_FOUND")

    async def test_a_denied_server(self) -> None:
        """Shows ACL-3."""
        await self.begin()
        room_id = await self.room()
        join = await self.event(room_id)
        acl = {"allow": ["*"], "deny": ["localhost"], "allow_ip_literals": True}
        await self.alice.set_state(room_id, "m.room.server_acl", acl)
        self.refused(await self.make(room_id), 403, "M_FORBIDDEN")
        self.refused(await self.send(room_id, join), 403, "M_FORBIDDEN")
        self.assertIsNone(await self.membership(room_id))


class SendJoinTest(Scene):
    async def test_the_handshake_in_every_version(self) -> None:
        """Shows FJ-4, FJ-5."""
        await self.begin()
        for version in ROOM_VERSIONS:
            room_id = await self.room(version, name="A room")
            join = await self.event(room_id)
            status, answer = await self.send(room_id, join)
            self.assertEqual(status, 200, (version, answer))
            self.assertEqual(await self.membership(room_id), "join", version)
            room = PeerRoom(self.peer.name, self.peer.key, version, room_id)
            state = {room.event_of(pdu).key for pdu in answer["state"]}
            self.assertIn(("m.room.create", ""), state)
            self.assertIn(("m.room.member", self.alice.user_id), state)
            self.assertIn(("m.room.name", ""), state)
            self.assertNotIn(("m.room.member", self.mallory), state, version)
            chain = {room.event_of(pdu).event_id for pdu in answer["auth_chain"]}
            for pdu in [join.pdu, *answer["state"], *answer["auth_chain"]]:
                self.assertLessEqual(set(room.event_of(pdu).auth_event_ids), chain, version)
            self.assertIs(answer["members_omitted"], False)

    async def test_clients_are_told(self) -> None:
        """Shows FJ-9."""
        await self.begin()
        room_id = await self.room()
        since = (await self.alice.sync())["next_batch"]
        join = await self.event(room_id)
        await self.send(room_id, join)
        synced = await self.alice.sync(since)
        events = synced["rooms"]["join"][room_id]["timeline"]["events"]
        self.assertEqual([event["event_id"] for event in events], [join.event_id])

    async def test_the_same_join_again(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id = await self.room()
        join = await self.event(room_id)
        first = await self.send(room_id, join)
        again = await self.send(room_id, join)
        self.assertEqual(first[0], 200, first[1])
        self.assertEqual(first, again)

    async def test_old_servers_are_answered_in_their_form(self) -> None:
        """Shows FJ-20."""
        await self.begin()
        room_id = await self.room("1")
        join = await self.event(room_id)
        status, answer = await self.send(room_id, join, "v1/send_join")
        self.assertEqual((status, answer[0]), (200, 200), answer)
        self.assertTrue(answer[1]["state"] and answer[1]["auth_chain"])
        self.assertEqual(await self.membership(room_id), "join")

    async def test_what_is_no_join_of_a_user_of_the_origin(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id = await self.room()
        other = await self.room()
        template, room = await self.template(room_id)
        elsewhere = "@x:elsewhere.example"
        wrong: list[dict[str, Any]] = [
            {"content": {"membership": "leave"}},
            {"content": {"membership": "knock"}},
            {"content": {"membership": 1}},
            {"content": []},
            {"type": "m.room.message"},
            {"type": "m.room.name", "state_key": "", "content": {"name": "x"}},
            {"state_key": self.alice.user_id},
            {"sender": self.alice.user_id, "state_key": self.alice.user_id},
            {"sender": elsewhere, "state_key": elsewhere},
            {"sender": 5, "state_key": 5},
            {"room_id": other},
            {"depth": -1},
            {"depth": "1"},
            {"prev_events": ["$nothing"] * 21},
            {"auth_events": "x"},
        ]
        for changes in wrong:
            pdu = {**template, "origin_server_ts": self.peer.now(), **changes}
            try:
                event = room.signed(pdu)
                answer = await self.send(room_id, event)
            except (TypeError, KeyError, AttributeError):
                # What redacting trips over cannot be signed.
                answer = await self.send(room_id, pdu, event_id="$x")
            self.refused(answer, 400, "M_INVALID_PARAM")
        self.assertIsNone(await self.membership(room_id))

    async def test_events_that_are_not_what_was_signed(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id = await self.room()
        template, room = await self.template(room_id)
        good = self.sign(template, room)
        forger = generate_signing_key("peer", b"\1" * 32)
        forged = room.signed(good.pdu, key=forger)
        self.refused(await self.send(room_id, forged), 400, "M_INVALID_PARAM")
        unsigned = {**good.pdu, "signatures": {}}
        answer = await self.send(room_id, unsigned, event_id=good.event_id)
        self.refused(answer, 400, "M_INVALID_PARAM")
        answer = await self.send(room_id, good, event_id="$another")
        self.refused(answer, 400, "M_INVALID_PARAM")
        changed = {**good.pdu, "content": {**good.content, "displayname": "another"}}
        answer = await self.send(room_id, changed, event_id=good.event_id)
        self.refused(answer, 400, "M_INVALID_PARAM")
        large = self.sign(
            template, room, content={"membership": "join", "displayname": "x" * 65_000}
        )
        self.refused(await self.send(room_id, large), 400, "M_INVALID_PARAM")
        self.assertIsNone(await self.membership(room_id))
        self.assertEqual((await self.send(room_id, good))[0], 200)

    async def test_contents_of_all_kinds(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        odd = {"displayname": "a\x00b", "avatar_url": 7, "x": 10**30, "y": 1.5, "": [[]] * 50}
        for version, status in (("1", 200), ("5", 200), ("6", 400), ("12", 400)):
            room_id = await self.room(version)
            template, room = await self.template(room_id)
            pdu = {
                **template,
                "origin_server_ts": self.peer.now(),
                "content": {"membership": "join", **odd},
                "event_id": f"$odd{version}:{self.peer.name}",
                "signatures": {},
                "hashes": {"sha256": "x"},
            }
            if not room.version.strict_canonical_json:
                event = self.sign(pdu, room)
                answer = await self.send(room_id, event)
            else:
                answer = await self.send(room_id, pdu, event_id="$x")
            self.assertEqual(answer[0], status, answer[1])

    async def test_another_server_sends_it(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id = await self.room()
        join = await self.event(room_id)
        other = await make_peer(self, self.federation)
        self.refused(await self.send(room_id, join, peer=other), 400, "M_INVALID_PARAM")
        self.assertIsNone(await self.membership(room_id))

    async def test_a_join_into_another_room_than_it_is_for(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id, other = await self.room(), await self.room()
        join = await self.event(room_id)
        self.refused(await self.send(other, join), 400, "M_INVALID_PARAM")
        self.refused(await self.send("!no:where.example", join), 404, "M_NOT_FOUND")

    async def test_a_ban_between_the_steps(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id = await self.room()
        join = await self.event(room_id)
        await self.alice.ok("POST", f"/rooms/{quoted(room_id)}/ban", {"user_id": self.mallory})
        self.refused(await self.send(room_id, join), 403, "M_FORBIDDEN")
        self.assertEqual(await self.membership(room_id), "ban")

    async def test_a_room_that_was_closed_between_the_steps(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id = await self.room()
        join = await self.event(room_id)
        await self.alice.set_state(room_id, "m.room.join_rules", {"join_rule": "invite"})
        self.refused(await self.send(room_id, join), 403, "M_FORBIDDEN")
        self.assertIsNone(await self.membership(room_id))

    async def test_a_join_on_events_that_nobody_knows(self) -> None:
        """Shows FJ-4."""
        await self.begin()
        room_id = await self.room()
        join = await self.event(room_id, prev_events=["$" + "x" * 43])
        status, answer = await self.send(room_id, join)
        self.assertEqual(status, 400, answer)
        self.assertIsNone(await self.membership(room_id))


class PartialStateTest(Scene):
    async def test_members_are_left_out(self) -> None:
        """Shows FJ-6."""
        await self.begin()
        bob = await self.hearth.register("bob")
        room_id = await self.room("10", name="Named")
        await bob.join(room_id)
        join = await self.event(room_id)
        query = {"omit_members": "true"}
        status, answer = await self.send(room_id, join, query=query)
        self.assertEqual(status, 200, answer)
        self.assertIs(answer["members_omitted"], True)
        self.assertEqual(answer["servers_in_room"], [self.hearth.name])
        types = [pdu["type"] for pdu in answer["state"]]
        self.assertNotIn("m.room.member", types)
        self.assertIn("m.room.power_levels", types)
        room = PeerRoom(self.peer.name, self.peer.key, "10", room_id)
        given = {room.event_of(pdu).event_id for pdu in answer["state"]}
        chain = {room.event_of(pdu).event_id for pdu in answer["auth_chain"]}
        self.assertFalse(given & chain)
        for pdu in [join.pdu, *answer["state"], *answer["auth_chain"]]:
            self.assertLessEqual(set(room.event_of(pdu).auth_event_ids), given | chain)

    async def test_a_room_without_a_name_shows_whom_it_is_called_by(self) -> None:
        """Shows FJ-6."""
        await self.begin()
        room_id = await self.room("10")
        users = [await self.hearth.register(f"user{number}") for number in range(6)]
        for user in users:
            await user.join(room_id)
        await self.alice.invite(room_id, self.mallory)
        join = await self.event(room_id)
        query = {"omit_members": "true"}
        status, answer = await self.send(room_id, join, query=query)
        self.assertEqual(status, 200, answer)
        members = {pdu["state_key"] for pdu in answer["state"] if pdu["type"] == "m.room.member"}
        heroes = {self.alice.user_id, *(user.user_id for user in users[:4])}
        self.assertEqual(members, heroes | {self.mallory})
        self.assertIs(answer["members_omitted"], True)

    async def test_the_second_server_learns_of_the_first(self) -> None:
        """Shows FJ-6."""
        await self.begin()
        room_id = await self.room("10", name="Named")
        await self.send(room_id, await self.event(room_id))
        other = await make_peer(self, self.federation)
        user_id = other.user("second")
        _, made = await self.make(room_id, user_id, peer=other)
        room = PeerRoom(other.name, other.key, "10", room_id)
        join = room.signed({**made["event"], "origin_server_ts": other.now()})
        query = {"omit_members": "true"}
        status, answer = await self.send(room_id, join, query=query, peer=other)
        self.assertEqual(status, 200, answer)
        self.assertEqual(set(answer["servers_in_room"]), {self.hearth.name, self.peer.name})


class RestrictedJoinTest(Scene):
    async def rooms(self, version: str = "10") -> tuple[str, str]:
        """A room, and one for its members."""
        inner = await self.room(version)
        outer = await self.room(version)
        await self.alice.set_state(outer, RESTRICTED, restricted(inner))
        return inner, outer

    async def enter(self, room_id: str) -> None:
        status, answer = await self.send(room_id, await self.event(room_id))
        self.assertEqual(status, 200, answer)

    async def test_a_member_of_the_other_room(self) -> None:
        """Shows FJ-5, FJ-10."""
        await self.begin()
        for version in ("8", "9", "10", "11", "12"):
            inner, outer = await self.rooms(version)
            await self.enter(inner)
            join = await self.event(outer)
            self.assertEqual(join.content["join_authorised_via_users_server"], self.alice.user_id)
            status, answer = await self.send(outer, join)
            self.assertEqual(status, 200, answer)
            signed = answer["event"]
            self.assertTrue(signatures_of(signed, self.hearth.name), version)
            self.assertTrue(signatures_of(signed, self.peer.name))
            without = {**signed, "signatures": None}
            self.assertEqual(without, {**join.pdu, "signatures": None})
            self.assertEqual(await self.membership(outer), "join")

    async def test_a_stranger(self) -> None:
        """Shows FJ-10."""
        await self.begin()
        _, outer = await self.rooms()
        self.refused(await self.make(outer), 403, "M_FORBIDDEN")
        # A server that makes the event without a template is not helped either.
        other = await self.room()
        template, room = await self.template(other)
        content = {
            "membership": "join",
            "join_authorised_via_users_server": self.alice.user_id,
        }
        join = self.sign({**template, "room_id": outer, "content": content}, room)
        answer = await self.send(outer, join)
        self.refused(answer, 403, "M_FORBIDDEN")
        self.assertNotIn("event", answer[1])

    async def test_who_left_the_other_room_between_the_steps(self) -> None:
        """Shows FJ-10."""
        await self.begin()
        inner, outer = await self.rooms()
        await self.enter(inner)
        join = await self.event(outer)
        await self.alice.ok("POST", f"/rooms/{quoted(inner)}/kick", {"user_id": self.mallory})
        self.refused(await self.send(outer, join), 403, "M_FORBIDDEN")
        self.assertIsNone(await self.membership(outer))

    async def test_a_condition_that_cannot_be_judged(self) -> None:
        """Shows FJ-10."""
        await self.begin()
        _, outer = await self.rooms()
        await self.alice.set_state(outer, RESTRICTED, restricted("!far:away.example"))
        self.refused(await self.make(outer), 400, "M_UNABLE_TO_AUTHORISE_JOIN")

    async def test_nobody_here_may_invite(self) -> None:
        """Shows FJ-10."""
        await self.begin()
        inner, outer = await self.rooms()
        await self.enter(inner)
        levels = await self.alice.ok("GET", f"/rooms/{quoted(outer)}/state/m.room.power_levels")
        levels["users"] = {self.alice.user_id: 100, "@boss:elsewhere.example": 100}
        levels["invite"] = 100
        await self.alice.set_state(outer, "m.room.power_levels", levels)
        levels["users"] = {self.alice.user_id: 50, "@boss:elsewhere.example": 100}
        await self.alice.set_state(outer, "m.room.power_levels", levels)
        self.refused(await self.make(outer), 400, "M_UNABLE_TO_GRANT_JOIN")

    async def test_an_invited_user_needs_nobody(self) -> None:
        """Shows FJ-10."""
        await self.begin()
        _, outer = await self.rooms()
        await self.alice.invite(outer, self.mallory)
        join = await self.event(outer)
        self.assertNotIn("join_authorised_via_users_server", join.content)
        status, answer = await self.send(outer, join)
        self.assertEqual(status, 200, answer)
        self.assertNotIn("event", answer)
