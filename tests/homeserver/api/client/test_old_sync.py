"""`/initialSync`, `/events` and peeking over the API."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from homeserver.core.tokens import SyncToken
from homeserver.sync.notifier import Notifier
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User

WORLD_READABLE = {
    "type": "m.room.history_visibility",
    "content": {"history_visibility": "world_readable"},
}
LONG = 50_000


def bodies(events: list[Any]) -> list[str]:
    """The texts among events."""
    return [e["content"]["body"] for e in events if e["type"] == "m.room.message"]


def kinds(events: list[Any]) -> list[str]:
    """The types of events."""
    return [event["type"] for event in events]


class OldSyncCase(RoomTestCase):
    timeout = 60

    async def events(self, user: User, since: str | None = None, **query: Any) -> Any:
        """One /events, without waiting unless `timeout` is given (ms)."""
        options = {"timeout": 0, **query}
        if since is not None:
            options["from"] = since
        return await user.ok("GET", "/events", query=options)

    def wait(self, user: User, since: str | None, **query: Any) -> Deferred[Any]:
        """An /events that waits for something to happen."""
        return Deferred.fromCoroutine(self.events(user, since, timeout=LONG, **query))

    async def guest(self) -> User:
        status, answer = await self.server.client.post("/_matrix/client/v3/register?kind=guest", {})
        self.assertEqual(status, 200, answer)
        return User(self.server, answer["user_id"], answer["access_token"], answer["device_id"])

    async def change_visibility(self, value: str) -> None:
        await self.alice.set_state(
            self.room_id, "m.room.history_visibility", {"history_visibility": value}
        )

    async def waiting_on(self, count: int) -> None:
        """Wait until so many requests wait."""
        notifier = self.server.homeserver.services[Notifier]
        while sum(len(watch.waiters) for watch in notifier._all()) < count:
            await deferLater(reactor, 0.01, lambda: None)


class InitialSyncTest(OldSyncCase):
    async def test_rooms(self) -> None:
        """Shows SYN-29."""
        await self.start(name="Tea", visibility="public")
        await self.bob.join(self.room_id)
        for number in range(5):
            await self.alice.send(self.room_id, f"message {number}")
        invited = await self.alice.create_room(invite=[self.bob.user_id])
        knock = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        knocked = await self.alice.create_room(initial_state=[knock])
        await self.bob.ok("POST", f"/knock/{q(knocked)}", {})
        own = f"/user/{self.bob.user_id}"
        await self.bob.ok("PUT", f"{own}/account_data/org.test.kind", {"a": 1})
        await self.bob.ok(
            "PUT", f"{own}/rooms/{q(self.room_id)}/account_data/org.test.room", {"a": 1}
        )
        answer = await self.bob.ok("GET", "/initialSync", query={"limit": 3})
        found = {room["room_id"]: room for room in answer["rooms"]}
        self.assertEqual(found.keys(), {self.room_id, invited})
        room = found[self.room_id]
        self.assertEqual(room["membership"], "join")
        self.assertEqual(room["visibility"], "public")
        chunk = room["messages"]["chunk"]
        self.assertEqual(bodies(chunk), ["message 2", "message 3", "message 4"])
        self.assertEqual({event["room_id"] for event in chunk + room["state"]}, {self.room_id})
        state = {(e["type"], e["state_key"]): e["content"] for e in room["state"]}
        self.assertEqual(state["m.room.name", ""], {"name": "Tea"})
        self.assertIn(("m.room.member", self.bob.user_id), state)
        self.assertIn("org.test.room", kinds(room["account_data"]))
        self.assertEqual(found[invited]["membership"], "invite")
        self.assertEqual(found[invited]["inviter"], self.alice.user_id)
        invite = found[invited]["invite"]
        self.assertEqual(invite["content"]["membership"], "invite")
        self.assertEqual(invite["state_key"], self.bob.user_id)
        self.assertNotIn("state", found[invited])
        self.assertIn("org.test.kind", kinds(answer["account_data"]))
        self.assertIn("m.push_rules", kinds(answer["account_data"]))
        # The tokens go on in both directions.
        older = await self.get(self.bob, "messages", dir="b", **{"from": room["messages"]["start"]})
        self.assertEqual(bodies(older["chunk"]), ["message 1", "message 0"])
        await self.alice.send(self.room_id, "newer")
        newer = await self.get(self.bob, "messages", dir="f", **{"from": room["messages"]["end"]})
        self.assertEqual(bodies(newer["chunk"]), ["newer"])
        self.assertEqual(bodies((await self.events(self.bob, answer["end"]))["chunk"]), ["newer"])

    async def test_no_messages(self) -> None:
        """Shows SYN-29."""
        await self.start()
        answer = await self.alice.ok("GET", "/initialSync", query={"limit": 0})
        self.assertEqual(answer["rooms"][0]["messages"]["chunk"], [])
        self.assertIn("m.room.create", kinds(answer["rooms"][0]["state"]))

    async def test_own_presence(self) -> None:
        """Shows SYN-29."""
        await self.start()
        answer = await self.bob.ok("GET", "/initialSync")
        self.assertEqual(answer["rooms"], [])
        (presence,) = answer["presence"]
        self.assertEqual((presence["type"], presence["sender"]), ("m.presence", self.bob.user_id))
        self.assertEqual(presence["content"]["presence"], "online")

    async def test_receipts(self) -> None:
        """Shows SYN-29."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.alice.send(self.room_id, "read me")
        path = f"/rooms/{q(self.room_id)}/receipt/m.read/{q(event_id)}"
        await self.bob.ok("POST", path, {})
        answer = await self.alice.ok("GET", "/initialSync")
        (receipt,) = answer["receipts"]
        self.assertEqual((receipt["type"], receipt["room_id"]), ("m.receipt", self.room_id))
        self.assertIn(self.bob.user_id, receipt["content"][event_id]["m.read"])
        room = await self.get(self.alice, "initialSync")
        self.assertEqual(room["receipts"], [receipt])

    async def test_left_rooms(self) -> None:
        """Rooms that were left are given on demand, as they were. Shows SYN-29."""
        await self.start(name="before")
        await self.bob.join(self.room_id)
        await self.alice.send(self.room_id, "seen")
        await self.bob.leave(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.name", {"name": "after"})
        await self.alice.send(self.room_id, "unseen")
        declined = await self.alice.create_room(invite=[self.bob.user_id])
        await self.bob.leave(declined)
        self.assertEqual((await self.bob.ok("GET", "/initialSync"))["rooms"], [])
        answer = await self.bob.ok("GET", "/initialSync", query={"archived": "true"})
        (room,) = answer["rooms"]
        alone = await self.get(self.bob, "initialSync")
        for shown in (room, alone):
            self.assertEqual(shown["room_id"], self.room_id)
            self.assertEqual(shown["membership"], "leave")
            self.assertEqual(bodies(shown["messages"]["chunk"]), ["seen"])
            (name,) = [e for e in shown["state"] if e["type"] == "m.room.name"]
            self.assertEqual(name["content"], {"name": "before"})
        self.assertEqual(alone["presence"], [])
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/forget", {})
        answer = await self.bob.ok("GET", "/initialSync", query={"archived": "true"})
        self.assertEqual(answer["rooms"], [])

    async def test_ignored_people_invite_nobody(self) -> None:
        """Shows SYN-29."""
        await self.start()
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, {"ignored_users": {self.alice.user_id: {}}})
        since = (await self.bob.ok("GET", "/initialSync"))["end"]
        await self.alice.invite(self.room_id, self.bob.user_id)
        self.assertEqual((await self.bob.ok("GET", "/initialSync"))["rooms"], [])
        self.assertNotIn("m.room.member", kinds((await self.events(self.bob, since))["chunk"]))

    async def test_guests_have_sync(self) -> None:
        """Shows SYN-29."""
        await self.start()
        answer = await (await self.guest()).call("GET", "/initialSync")
        self.assert_error(answer, 403, "M_GUEST_ACCESS_FORBIDDEN")


class RoomInitialSyncTest(OldSyncCase):
    async def test_member(self) -> None:
        """Shows SYN-29."""
        await self.start(visibility="private")
        await self.alice.send(self.room_id, "hello")
        await self.bob.join(self.room_id)
        await self.bob.sync()
        answer = await self.get(self.alice, "initialSync")
        self.assertEqual(answer["membership"], "join")
        self.assertEqual(answer["visibility"], "private")
        self.assertEqual(bodies(answer["messages"]["chunk"]), ["hello"])
        self.assertIn(self.bob.user_id, [event["sender"] for event in answer["presence"]])
        self.assertEqual(bodies((await self.get(self.alice, "initialSync?limit=1"))["state"]), [])
        one = (await self.get(self.alice, "initialSync", limit=1))["messages"]["chunk"]
        self.assertEqual(kinds(one), ["m.room.member"])

    async def test_peeking(self) -> None:
        """Shows HV-6, SYN-29."""
        await self.start(initial_state=[WORLD_READABLE], name="Tea")
        await self.alice.send(self.room_id, "hello")
        for user in (self.bob, await self.guest()):
            answer = await self.get(user, "initialSync")
            self.assertNotIn("membership", answer)
            self.assertEqual(bodies(answer["messages"]["chunk"]), ["hello"])
            self.assertIn("m.room.name", kinds(answer["state"]))
            # What members do is not for those who look in.
            self.assertEqual(answer["presence"], [])
            self.assertNotIn("receipts", answer)
        await self.change_visibility("shared")
        for user in (self.bob, await self.guest()):
            refused = await user.call("GET", f"/rooms/{q(self.room_id)}/initialSync")
            self.assert_error(refused, 403, "M_FORBIDDEN")

    async def test_peeking_shows_what_is_world_readable(self) -> None:
        """Shows HV-6."""
        await self.start()
        await self.change_visibility("joined")
        await self.alice.send(self.room_id, "s3cret")
        await self.change_visibility("world_readable")
        await self.alice.send(self.room_id, "hello")
        answer = await self.get(self.bob, "initialSync", limit=50)
        self.assertEqual(bodies(answer["messages"]["chunk"]), ["hello"])
        self.assertNotIn("s3cret", json.dumps(answer))

    async def test_strangers_and_invited_people(self) -> None:
        """Shows HV-6."""
        await self.start()
        await self.alice.invite(self.room_id, self.bob.user_id)
        for user in (self.bob, await self.server.register("carol")):
            answer = await user.call("GET", f"/rooms/{q(self.room_id)}/initialSync")
            self.assert_error(answer, 403, "M_FORBIDDEN")
        unknown = await self.bob.call("GET", f"/rooms/{q('!no:hearth.test')}/initialSync")
        self.assert_error(unknown, 403, "M_FORBIDDEN")


class EventsTest(OldSyncCase):
    async def start_both(self) -> str:
        """A room that both are in; Bob's token."""
        await self.start()
        await self.bob.join(self.room_id)
        await self.bob.ok("GET", "/initialSync")
        end: str = (await self.events(self.bob))["end"]
        return end

    async def test_waits_for_a_message(self) -> None:
        """Shows SYN-29."""
        since = await self.start_both()
        waiting = self.wait(self.bob, since)
        await self.waiting_on(1)
        event_id = await self.alice.send(self.room_id, "hello")
        answer = await waiting
        self.assertEqual(answer["start"], since)
        (event,) = [e for e in answer["chunk"] if e["type"] == "m.room.message"]
        self.assertEqual((event["event_id"], event["room_id"]), (event_id, self.room_id))
        again = await self.events(self.bob, since)
        self.assertEqual(bodies(again["chunk"]), ["hello"])
        after = await self.events(self.bob, answer["end"])
        self.assertEqual(bodies(after["chunk"]), [])

    async def test_without_a_token_from_now_on(self) -> None:
        """Shows SYN-29."""
        await self.start_both()
        await self.alice.send(self.room_id, "old")
        answer = await self.events(self.bob)
        self.assertEqual((answer["chunk"], answer["start"]), ([], answer["end"]))

    async def test_times_out(self) -> None:
        """Shows SYN-29."""
        since = await self.start_both()
        answer = await self.events(self.bob, since, timeout=50)
        self.assertEqual(answer["chunk"], [])

    async def test_a_token_of_the_future(self) -> None:
        """A token from before a backup was restored goes on with the present. Shows SYN-29."""
        now = SyncToken.parse(await self.start_both())
        future = str(now._replace(durable=now.durable + 1000))
        answer = await self.wait(self.bob, future)
        self.assertEqual(SyncToken.parse(answer["end"]).durable, now.durable)

    async def test_pages(self) -> None:
        """Nothing is left out where there is more than the limit. Shows SYN-29."""
        since = await self.start_both()
        other = await self.alice.create_room(preset="public_chat")
        await self.bob.join(other)
        since = (await self.events(self.bob, since, limit=100))["end"]
        for number in range(7):
            await self.alice.send((self.room_id, other)[number % 2], f"{number}")
        found = []
        for size in (3, 3, 1, 0):
            answer = await self.events(self.bob, since, limit=3)
            self.assertEqual(len(bodies(answer["chunk"])), size)
            found += bodies(answer["chunk"])
            since = answer["end"]
        self.assertEqual(found, [f"{number}" for number in range(7)])

    async def test_own_memberships(self) -> None:
        """Invites, joins and leaves are among the events. Shows SYN-29."""
        await self.start()
        since = (await self.events(self.bob))["end"]
        waiting = self.wait(self.bob, since)
        await self.waiting_on(1)
        await self.alice.invite(self.room_id, self.bob.user_id)
        answer = await waiting
        (invite,) = [e for e in answer["chunk"] if e["type"] == "m.room.member"]
        self.assertEqual(invite["content"]["membership"], "invite")
        self.assertEqual((invite["room_id"], invite["state_key"]), (self.room_id, self.bob.user_id))
        self.assertEqual([e for e in answer["chunk"] if e["type"] == "m.room.create"], [])
        await self.bob.join(self.room_id)
        joined = await self.events(self.bob, answer["end"])
        await self.alice.send(self.room_id, "seen")
        await self.alice.ok("POST", f"/rooms/{q(self.room_id)}/kick", {"user_id": self.bob.user_id})
        await self.alice.send(self.room_id, "unseen")
        left = await self.events(self.bob, joined["end"])
        self.assertEqual(bodies(left["chunk"]), ["seen"])
        (leave,) = [e for e in left["chunk"] if e["type"] == "m.room.member"]
        self.assertEqual(leave["content"]["membership"], "leave")
        after = await self.events(self.bob, left["end"])
        self.assertEqual([e for e in after["chunk"] if "event_id" in e], [])

    async def test_what_is_not_an_event(self) -> None:
        """Typing, receipts, account data and presence. Shows SYN-29."""
        since = await self.start_both()
        event_id = await self.alice.send(self.room_id, "hello")
        room = f"/rooms/{q(self.room_id)}"
        await self.alice.ok("POST", f"{room}/receipt/m.read/{q(event_id)}", {})
        await self.alice.ok(
            "PUT", f"{room}/typing/{q(self.alice.user_id)}", {"typing": True, "timeout": 30_000}
        )
        await self.alice.ok(
            "PUT", f"/presence/{q(self.alice.user_id)}/status", {"presence": "online"}
        )
        own = f"/user/{self.bob.user_id}"
        await self.bob.ok("PUT", f"{own}/account_data/org.test.kind", {"a": 1})
        await self.bob.ok(
            "PUT", f"{own}/rooms/{q(self.room_id)}/account_data/org.test.room", {"a": 1}
        )
        answer = await self.events(self.bob, since)
        found = {event["type"]: event for event in answer["chunk"]}
        self.assertEqual(found["m.typing"]["content"]["user_ids"], [self.alice.user_id])
        self.assertIn(event_id, found["m.receipt"]["content"])
        self.assertEqual(found["org.test.kind"]["content"], {"a": 1})
        self.assertIn("m.presence", found)
        for kind in ("m.typing", "m.receipt", "org.test.room"):
            self.assertEqual(found[kind]["room_id"], self.room_id)
        self.assertEqual((await self.events(self.bob, answer["end"]))["chunk"], [])

    async def test_one_room_of_several(self) -> None:
        """Shows SYN-29."""
        since = await self.start_both()
        other = await self.alice.create_room(preset="public_chat")
        await self.bob.join(other)
        await self.alice.send(other, "elsewhere")
        await self.alice.send(self.room_id, "here")
        answer = await self.events(self.bob, since, room_id=self.room_id)
        self.assertEqual(bodies(answer["chunk"]), ["here"])
        self.assertNotIn("m.presence", kinds(answer["chunk"]))

    async def test_bad_parameters(self) -> None:
        """Shows RD-9."""
        await self.start()
        bad = ("limit=-2", "limit=x", "timeout=-1", "timeout=soon", "from=x", "from=t1-2")
        paths = [f"/events?{query}" for query in (*bad, "from=s-1_0", "room_id=x")]
        paths += [f"/initialSync?{query}" for query in ("limit=-1", "limit=x", "archived=perhaps")]
        paths += [f"/rooms/{q(self.room_id)}/initialSync?limit={n}" for n in ("-1", "1.5")]
        for path in paths:
            answer = await self.alice.call("GET", path)
            self.assertEqual((answer.status, path), (400, path))
            self.assertEqual(answer.body["errcode"], "M_INVALID_PARAM", path)


class PeekTest(OldSyncCase):
    async def test_follows_a_room(self) -> None:
        """Shows HV-6, SYN-29."""
        await self.start(initial_state=[WORLD_READABLE])
        guest = await self.guest()
        for user in (self.bob, guest):
            since = (await self.get(user, "initialSync"))["messages"]["end"]
            waiting = self.wait(user, since, room_id=self.room_id)
            await self.waiting_on(1)
            await self.alice.send(self.room_id, "hello")
            answer = await waiting
            self.assertEqual(bodies(answer["chunk"]), ["hello"])
            self.assertEqual(answer["chunk"][0]["room_id"], self.room_id)
            # Receipts and typing are for members.
            await self.alice.ok(
                "PUT",
                f"/rooms/{q(self.room_id)}/typing/{q(self.alice.user_id)}",
                {"typing": True, "timeout": 30_000},
            )
            after = await self.events(user, answer["end"], room_id=self.room_id)
            self.assertEqual(after["chunk"], [])
        notifier = self.server.homeserver.services[Notifier]
        self.assertEqual(notifier._rooms, {})

    async def test_after_leaving(self) -> None:
        """Who was in the room may peek like everybody else. Shows HV-6."""
        await self.start(initial_state=[WORLD_READABLE])
        await self.bob.join(self.room_id)
        await self.bob.leave(self.room_id)
        since = (await self.events(self.bob))["end"]
        await self.alice.send(self.room_id, "hello")
        answer = await self.events(self.bob, since, room_id=self.room_id)
        self.assertEqual(bodies(answer["chunk"]), ["hello"])

    async def test_ends_with_world_readability(self) -> None:
        """Shows HV-6."""
        await self.start(initial_state=[WORLD_READABLE])
        waiting = Deferred.fromCoroutine(
            self.bob.call("GET", "/events", query={"room_id": self.room_id, "timeout": LONG})
        )
        await self.waiting_on(1)
        await self.change_visibility("shared")
        self.assert_error(await waiting, 403, "M_FORBIDDEN")

    async def test_refused(self) -> None:
        """Shows HV-6."""
        await self.start()
        guest = await self.guest()
        for user in (self.bob, guest):
            for room_id in (self.room_id, "!no:hearth.test"):
                query = {"room_id": room_id, "timeout": 0}
                answer = await user.call("GET", "/events", query=query)
                self.assert_error(answer, 403, "M_FORBIDDEN")
        answer = await guest.call("GET", "/events", query={"timeout": 0})
        self.assert_error(answer, 400, "M_MISSING_PARAM")

    async def test_client_goes_away(self) -> None:
        """Nothing is left of a peek whose client went away. Shows SYN-29."""
        await self.start(initial_state=[WORLD_READABLE])
        notifier = self.server.homeserver.services[Notifier]
        request = self.bob.client.build(
            "GET",
            "/_matrix/client/v3/events",
            query={"room_id": self.room_id, "timeout": LONG},
        )
        waiting = Deferred.fromCoroutine(self.server.homeserver.router.handle(request))
        await self.waiting_on(1)
        request.is_cancelled = True
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting
        self.assertEqual((notifier._rooms, notifier._watches), ({}, {}))

    async def test_server_stops(self) -> None:
        """Those who wait are answered when the server stops. Shows SYN-29."""
        await self.start(initial_state=[WORLD_READABLE])
        await self.alice.ok("GET", "/initialSync")
        since = (await self.events(self.alice))["end"]
        router = self.server.homeserver.router
        for user, query in ((self.alice, {}), (self.bob, {"room_id": self.room_id})):
            request = user.client.build(
                "GET",
                "/_matrix/client/v3/events",
                query={**query, "timeout": LONG, "from": since},
            )
            waiting = Deferred.fromCoroutine(router.handle(request))
            await self.waiting_on(1)
            self.assertTrue(request.shutting_down())
            response = await waiting
            self.assertEqual(response.status, 200)


class OneEventTest(OldSyncCase):
    async def test_event(self) -> None:
        """Shows SYN-29."""
        await self.start()
        event_id = await self.alice.send(self.room_id, "hello")
        event = await self.alice.ok("GET", f"/events/{q(event_id)}")
        self.assertEqual((event["event_id"], event["room_id"]), (event_id, self.room_id))
        self.assertEqual(event["content"]["body"], "hello")
        for user, name in ((self.bob, event_id), (self.alice, "$nothing")):
            answer = await user.call("GET", f"/events/{q(name)}")
            self.assert_error(answer, 404, "M_NOT_FOUND")
        await self.change_visibility("world_readable")
        shown = await self.alice.send(self.room_id, "open")
        open_event = await self.bob.ok("GET", f"/events/{q(shown)}")
        self.assertEqual(open_event["content"]["body"], "open")
