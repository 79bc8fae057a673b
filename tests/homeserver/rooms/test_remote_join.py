"""Joining rooms that other servers keep."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.signing import sign_event
from homeserver.core.types import JsonObject
from storage import leases, rooms
from storage.database import sleep
from tests.homeserver.rooms.remote_case import RemoteCase, altered, always
from tests.support.events import ALL_VERSIONS
from tests.support.federation import eventually
from tests.support.network import reactor
from tests.support.peer import Peer, Received, Reply


def fork(change: Any) -> Any:
    """A change of an event in an answer."""
    return lambda event: altered(event, change)


class JoinTest(RemoteCase):
    async def test_every_version(self) -> None:
        """Shows FJ-3, FJ-5."""
        await self.start()
        name = {"displayname": "Alice"}
        await self.alice.ok("PUT", f"/profile/{self.alice.user_id}/displayname", name)
        for version in ALL_VERSIONS:
            room = self.peer.create_room(version)
            room.message(self.peer.user())
            await self.joined(room)
            self.assertEqual(await self.state(room), set(room.state.values()))
            member = room.state_event("m.room.member", self.alice.user_id)
            assert member is not None
            self.assertEqual(member.content["displayname"], "Alice")
            sent = await self.alice.send(room.room_id)
            await eventually(partial(room.events.__contains__, sent))
        self.assertEqual(self.peer.faults, [])

    async def test_sync_shows_the_room(self) -> None:
        await self.start()
        room = self.peer.create_room()
        before = (await self.alice.sync())["next_batch"]
        await self.joined(room)
        shown = (await self.alice.sync(before))["rooms"]["join"][room.room_id]
        state = {event["event_id"] for event in shown["state"]["events"]}
        timeline = {event["event_id"] for event in shown["timeline"]["events"]}
        self.assertEqual(state | timeline, set(room.state.values()))

    async def test_the_room_goes_on(self) -> None:
        """The room is an ordinary one after the join: others join and leave by this server."""
        await self.start()
        room = self.peer.create_room()
        await self.joined(room)
        bob = await self.hearth.register("bob")
        self.assertEqual((await self.join(room, user=bob)).status, 200)
        self.assertEqual(len(self.peer.received("make_join")), 1)
        await eventually(lambda: bob.user_id in room.members())
        await self.alice.leave(room.room_id)
        await bob.leave(room.room_id)
        await eventually(lambda: room.members() == [self.peer.user()])
        # Nobody of this server is in the room now: what it knows of it is old.
        room.grow("m.room.name", {"name": "New"}, self.peer.user(), "")
        await self.joined(room)
        self.assertEqual(len(self.peer.received("make_join")), 2)
        self.assertEqual(await self.state(room), set(room.state.values()))

    async def test_a_room_that_nobody_else_is_in_is_joined_here(self) -> None:
        await self.start()
        room_id = await self.alice.create_room(preset="public_chat")
        await self.alice.leave(room_id)
        self.assertEqual((await self.join(room_id)).status, 200)
        self.assertEqual(self.peer.received("make_join"), [])

    async def test_templates_of_something_else(self) -> None:
        """Shows FJ-3."""
        await self.start()
        room, bob = self.peer.create_room(), self.peer.user("bob")
        changes: list[JsonObject] = [
            {"type": "m.room.message"},
            {"room_id": "!other:" + self.peer.name},
            {"sender": bob},
            {"state_key": bob},
            {"state_key": None},
            {"content": {"membership": "invite"}},
            {"content": {}},
            {"content": None},
            {"prev_events": []},
            {"prev_events": "rubbish"},
            {"auth_events": [1]},
            {"depth": "7"},
            {"depth": -1},
        ]
        for change in changes:
            self.alter(self.peer, "make_join", event=fork(change))
            self.assert_error(await self.join(room), 502, "M_UNKNOWN")
        self.assertEqual(self.peer.received("send_join"), [])

    async def test_only_what_was_asked_for_is_signed(self) -> None:
        """Shows FJ-3."""
        await self.start()
        room = self.peer.create_room()
        extra = {"content": {"membership": "join", "evil": True}, "evil": 1, "unsigned": {"a": 1}}
        self.alter(self.peer, "make_join", event=fork(extra))
        await self.joined(room)
        [sent] = self.peer.received("send_join")
        self.assertNotIn("evil", sent.body["content"])
        self.assertNotIn("evil", sent.body)
        self.assertNotIn("unsigned", sent.body)

    async def test_the_next_candidate(self) -> None:
        """Shows FJ-3: the next server is asked, whatever the first one did wrong."""
        await self.start()
        other = await self.another_peer()
        await other.close()
        third = await self.another_peer()
        for endpoint in ("make_join", "send_join"):
            for answer in (Reply({}, 500), Reply(b"rubbish"), {"event": 1}, {"state": 7}, None):
                room = self.peer.create_room()
                third.rooms[room.room_id] = room
                third.on = {endpoint: always(answer)}
                await self.joined(room, other, third, self.peer)
                self.assertEqual(await self.state(room), set(room.state.values()))

    async def test_the_inviters_server_is_asked(self) -> None:
        await self.start()
        room = self.peer.create_room(join_rule="invite")
        await self.peer.invite(self.hearth.name, room, self.alice.user_id)
        answer = await self.alice.call("POST", f"/rooms/{quote(room.room_id)}/join", {})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertIn(self.alice.user_id, room.members())

    async def test_an_alias(self) -> None:
        await self.start()
        room = self.peer.create_room("12")
        found = {"room_id": room.room_id, "servers": [self.peer.name, "not a server", 5]}
        self.peer.on["directory"] = lambda request: found
        alias = quote(f"#room:{self.peer.name}", safe="")
        answer = await self.alice.call("POST", f"/join/{alias}", {})
        self.assertEqual((answer.status, answer.body), (200, {"room_id": room.room_id}))
        status, body = await self.alice.call("GET", f"/directory/room/{alias}")
        self.assertEqual(
            (status, body), (200, {"room_id": room.room_id, "servers": [self.peer.name]})
        )
        self.peer.on["directory"] = lambda request: Reply({"errcode": "M_NOT_FOUND"}, 404)
        self.assert_error(await self.alice.call("POST", f"/join/{alias}", {}), 404, "M_NOT_FOUND")
        self.peer.on["directory"] = lambda request: {"room_id": "rubbish"}
        self.assert_error(await self.alice.call("POST", f"/join/{alias}", {}), 502, "M_UNKNOWN")

    async def test_an_alias_of_another_server_as_canonical_alias(self) -> None:
        await self.start()
        room_id = await self.alice.create_room()
        alias = f"#room:{self.peer.name}"
        path = f"/rooms/{quote(room_id)}/state/m.room.canonical_alias"
        for found, status in (
            ({"room_id": "!other:elsewhere", "servers": []}, 400),
            (Reply({"errcode": "M_NOT_FOUND"}, 404), 400),
            (Reply(b"rubbish"), 400),
            ({"room_id": room_id, "servers": [self.hearth.name]}, 200),
        ):
            self.peer.on["directory"] = always(found)
            answer = await self.alice.call("PUT", path, {"alt_aliases": [alias]})
            self.assertEqual(answer.status, status, answer.body)

    async def test_refusals_reach_the_client(self) -> None:
        """Shows FJ-21."""
        await self.start()
        room = self.peer.create_room()
        for endpoint in ("make_join", "send_join"):
            self.peer.on = {}
            for status, errcode in (
                (403, "M_FORBIDDEN"),
                (404, "M_NOT_FOUND"),
                (400, "M_INCOMPATIBLE_ROOM_VERSION"),
                (400, "M_UNABLE_TO_AUTHORISE_JOIN"),
            ):
                reply = Reply({"errcode": errcode, "error": "so", "room_version": "x"}, status)
                self.peer.on[endpoint] = always(reply)
                answer = await self.join(room)
                self.assert_error(answer, status, errcode)
                self.assertEqual(answer.body["error"], "so")
        self.assertEqual(answer.body.get("room_version"), None)

    async def test_refusals_that_would_be_misunderstood(self) -> None:
        """What another server says of its own requests is nothing that the client did."""
        await self.start()
        room = self.peer.create_room()
        for status, errcode in ((401, "M_UNKNOWN_TOKEN"), (403, "M_USER_DEACTIVATED"), (418, "X")):
            reply = Reply({"errcode": errcode, "error": "so"}, status)
            self.peer.on["make_join"] = always(reply)
            self.assert_error(await self.join(room), 502, "M_UNKNOWN")

    async def test_nobody_to_ask(self) -> None:
        await self.start()
        answer = await self.alice.call("POST", "/join/!x0000000000", {})
        self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_guests_stay_out(self) -> None:
        await self.start()
        room = self.peer.create_room()
        status, body = await self.hearth.client.post(
            "/_matrix/client/v3/register", {}, query={"kind": "guest"}
        )
        self.assertEqual(status, 200)
        status, body = await self.hearth.client.with_token(body["access_token"]).request(
            "POST",
            f"/_matrix/client/v3/join/{quote(room.room_id)}",
            {},
            query={"via": self.peer.name},
        )
        self.assertEqual((status, body["errcode"]), (403, "M_GUEST_ACCESS_FORBIDDEN"))

    async def test_old_send_join(self) -> None:
        """Servers that do not know version 2 are asked by version 1."""
        await self.start()
        room = self.peer.create_room()
        self.peer.on["send_join"] = lambda request: Reply({"errcode": "M_UNRECOGNIZED"}, 404)
        answer = await self.join(room)
        self.assertEqual(answer.status, 502)
        [_, old] = [r for r in self.peer.requests if "send_join" in r.path]
        self.assertTrue(old.path.startswith("/_matrix/federation/v1/send_join/"), old.path)


class AnswerTest(RemoteCase):
    """What is in the answer to send_join."""

    async def test_badly_signed_events_are_dropped(self) -> None:
        """Shows FJ-7."""
        await self.start()
        room = self.peer.create_room("11")
        good = room.grow("m.room.name", {"name": "A"}, self.peer.user(), "")
        bad = room.grow("m.room.topic", {"topic": "B"}, self.peer.user(), "")
        unknown = room.grow("m.room.avatar", {"url": "mxc://a/b"}, self.peer.user(), "")

        def spoil(pdus: list[Any]) -> list[Any]:
            found: list[Any] = ["rubbish", {}, {"type": 5}]
            for pdu in pdus:
                if pdu["type"] == "m.room.topic":
                    pdu = {**pdu, "content": {}, "depth": 3}
                if pdu["type"] == "m.room.avatar":
                    pdu = {**pdu, "signatures": {"nowhere.invalid": {"ed25519:a": "AAAA"}}}
                found.append(pdu)
            return found

        self.alter(self.peer, "send_join", state=spoil)
        await self.joined(room)
        found = await self.state(room)
        self.assertIn(good.event_id, found)
        self.assertFalse({bad.event_id, unknown.event_id} & found)
        self.assertEqual(len(found), len(room.state) - 2)

    async def test_what_hangs_on_a_bad_event_is_dropped_too(self) -> None:
        """Shows FJ-7."""
        await self.start()
        room = self.peer.create_room("11")
        carol = self.peer.user("carol")
        room.grow("m.room.member", {"membership": "join"}, carol, carol)
        topic = room.grow("m.room.topic", {"topic": "B"}, carol, "")

        def spoil(pdus: list[Any]) -> list[Any]:
            return [{**p, "depth": 99} if p.get("state_key") == carol else p for p in pdus]

        self.alter(self.peer, "send_join", state=spoil, auth_chain=spoil)
        await self.joined(room)
        self.assertNotIn(topic.event_id, await self.state(room))

    async def test_answers_without_what_a_join_needs(self) -> None:
        """Shows FJ-8."""
        await self.start()

        def without(event_type: str) -> Any:
            return lambda pdus: [pdu for pdu in pdus if pdu["type"] != event_type]

        for version in ("1", "6", "11", "12"):
            for event_type in ("m.room.create", "m.room.join_rules", "m.room.power_levels"):
                room = self.peer.create_room(version)
                drop = without(event_type)
                self.alter(self.peer, "send_join", state=drop, auth_chain=drop)
                self.assert_error(await self.join(room), 502, "M_UNKNOWN")
                self.assertIsNone(await self.hearth.homeserver.db.read(rooms.get, room.room_id))

    async def test_another_version(self) -> None:
        """Shows FJ-8: the versions of the template and of the room must be the same."""
        await self.start()
        room = self.peer.create_room("10")
        for version in ("9", "11", "no such", None, 7):
            self.alter(self.peer, "make_join", room_version=version)
            self.assert_error(await self.join(room), 502, "M_UNKNOWN")

    async def test_other_rubbish(self) -> None:
        """Shows FJ-8."""
        await self.start()
        room, elsewhere = self.peer.create_room(), self.peer.create_room()
        other = [elsewhere.events[each].pdu for each in elsewhere.state.values()]
        message = room.message(self.peer.user())
        forged = room.make("m.room.join_rules", {"join_rule": "public"}, self.peer.user(), "")
        answers: list[JsonObject] = [
            {"state": other, "auth_chain": other},
            {"state": lambda pdus: [*pdus, message.pdu]},
            {"state": lambda pdus: [*pdus, forged.pdu]},
            {"state": []},
            {"state": None},
            {"auth_chain": None},
            {"event": 5},
            {"members_omitted": "yes"},
        ]
        for changes in answers:
            self.alter(self.peer, "send_join", **changes)
            self.assert_error(await self.join(room), 502, "M_UNKNOWN")
            self.assertIsNone(await self.membership(room.room_id, self.alice.user_id))
        self.peer.on = {}
        await self.joined(room)

    async def test_a_state_that_does_not_allow_the_join(self) -> None:
        await self.start()
        room = self.peer.create_room(join_rule="invite")
        self.assert_error(await self.join(room), 502, "M_UNKNOWN")
        self.assertIsNone(await self.membership(room.room_id, self.alice.user_id))


class RestrictedTest(RemoteCase):
    async def test_authorised_by_the_next_server(self) -> None:
        """Shows FJ-10."""
        await self.start()
        unable, unwilling, able = [await self.another_peer() for _ in range(3)]
        room = self.restricted_room(able)
        for peer, errcode in (
            (unable, "M_UNABLE_TO_AUTHORISE_JOIN"),
            (unwilling, "M_UNABLE_TO_GRANT_JOIN"),
        ):
            reply = Reply({"errcode": errcode, "error": "no"}, 400)
            peer.on["make_join"] = always(reply)
        await self.joined(room, unable, unwilling, able)
        member = room.state_event("m.room.member", self.alice.user_id)
        assert member is not None
        self.assertEqual(member.content["join_authorised_via_users_server"], able.user())

    async def test_without_the_signature_of_the_authorising_server(self) -> None:
        """Shows FJ-10."""
        await self.start()
        room = self.restricted_room(self.peer)
        usual = self.peer.on["send_join"]
        for event in (None, {}, {"signatures": {self.peer.name: {"ed25519:peer": "AAAA"}}}):
            self.peer.on["send_join"] = partial(self.answer_with, usual, event)
            self.assert_error(await self.join(room), 502, "M_UNKNOWN")
        self.peer.on["send_join"] = usual
        await self.joined(room)

    async def test_an_authorising_user_of_another_server(self) -> None:
        await self.start()
        room = self.restricted_room(self.peer)
        content = {"membership": "join", "join_authorised_via_users_server": "@a:elsewhere.invalid"}
        self.alter(self.peer, "make_join", event=fork({"content": content}))
        self.assert_error(await self.join(room), 502, "M_UNKNOWN")

    async def test_help_of_another_server_in_a_room_that_is_known(self) -> None:
        """Shows FJ-10: nobody here may let the user in, so somebody elsewhere is asked."""
        await self.start()
        room = self.restricted_room(self.peer)
        space = await self.alice.create_room(preset="public_chat")
        rules = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": space}],
        }
        room.grow("m.room.join_rules", rules, self.peer.user(), "")
        room.grow(
            "m.room.power_levels",
            {"users": {self.peer.user(): 100}, "invite": 50},
            self.peer.user(),
            "",
        )
        await self.joined(room)
        bob = await self.hearth.register("bob")
        answer = await self.join(room, user=bob)
        self.assert_error(answer, 403, "M_FORBIDDEN")
        self.assertEqual(len(self.peer.received("make_join")), 1)
        await bob.join(space)
        answer = await self.join(room, user=bob)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(len(self.peer.received("make_join")), 2)
        self.assertIn(bob.user_id, room.members())
        self.assertEqual(await self.state(room, bob), set(room.state.values()))

    def answer_with(self, usual: Any, event: Any, request: Received) -> Any:
        return altered(usual(request), {"event": event})

    def restricted_room(self, peer: Peer) -> Any:
        """A room in which `peer` lets everybody in."""
        room = peer.create_room("10")
        room.grow("m.room.join_rules", {"join_rule": "restricted", "allow": []}, peer.user(), "")

        def make(request: Received) -> Any:
            user_id = request.parts[1]
            content = {
                "membership": "join",
                "join_authorised_via_users_server": peer.user(),
            }
            event = room.make("m.room.member", content, user_id, user_id)
            template = {k: v for k, v in event.pdu.items() if k not in ("hashes", "signatures")}
            return {"event": template, "room_version": "10"}

        def send(request: Received) -> Any:
            sign_event(request.body, room.version, peer.name, peer.key)
            return peer.answer_send_join(request)

        peer.on["make_join"], peer.on["send_join"] = make, send
        return room


class OneAtATimeTest(RemoteCase):
    async def test_joins_at_the_same_time(self) -> None:
        """Several users, and one user several times, join a room through one handshake."""
        await self.start()
        room = self.peer.create_room()
        bob = await self.hearth.register("bob")
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(self.join(room, user=user))
                for user in (self.alice, bob, self.alice, bob)
            ]
        )
        self.assertEqual([answer.status for answer in answers], [200] * 4)
        self.assertEqual(len(self.peer.received("send_join")), 1)
        await eventually(lambda: {self.alice.user_id, bob.user_id} <= set(room.members()))

    async def test_another_process_joins(self) -> None:
        await self.start()
        room = self.peer.create_room()
        db, name = self.hearth.homeserver.db, "join:" + room.room_id
        now_ms = int(self.federation.network.reactor_of(self.hearth.name).seconds() * 1000)
        await db.write(leases.claim, [name], "another", now_ms, 60_000)
        joining = Deferred.fromCoroutine(self.join(room))
        bob = await self.hearth.register("bob")
        await bob.sync()
        self.assertEqual(self.peer.received("make_join"), [])
        await db.write(leases.release, [name], "another")
        self.assertEqual((await joining).status, 200)
        self.assertIsNone(await db.read(leases.owner_of, name, now_ms))

    async def test_events_that_come_before_the_answer(self) -> None:
        """What others send as soon as they know of the join is not lost."""
        await self.start()
        room = self.peer.create_room()
        sending: list[Any] = []

        async def answer(request: Received) -> Any:
            found = self.peer.answer_send_join(request)
            message = room.message(self.peer.user())
            sending.append(message)
            sending.append(Deferred.fromCoroutine(self.peer.send(self.hearth.name, [message])))
            await self.federation_pause()
            return found

        self.peer.on["send_join"] = answer
        await self.joined(room)
        message, answered = sending
        status, body = await answered
        self.assertEqual((status, body["pdus"]), (200, {message.event_id: {}}))
        path = f"/rooms/{quote(room.room_id)}/event/{quote(message.event_id)}"
        await self.alice.ok("GET", path)

    async def federation_pause(self) -> None:
        """Long enough for the events to arrive before the join is done."""
        await sleep(reactor, 0.3)

    async def test_the_server_stops_in_the_middle(self) -> None:
        """Nothing is left of a join that was given up, and it can be made again."""
        await self.start()
        room = self.peer.create_room()
        self.peer.on["send_join"] = lambda request: Reply(hang=True)
        joining = Deferred.fromCoroutine(self.join(room))
        joining.addErrback(lambda failure: None)
        await eventually(lambda: len(self.peer.received("send_join")) == 1)
        await self.hearth.restart()
        self.alice.server = self.hearth
        self.assertIsNone(await self.hearth.homeserver.db.read(rooms.get, room.room_id))
        self.peer.on = {}
        await self.joined(room)
