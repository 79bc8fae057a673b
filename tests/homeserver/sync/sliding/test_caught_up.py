"""Answers of sliding sync from memory say what the database says."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import msgspec

from homeserver.api.client.sliding_sync import SlidingBody, parse
from homeserver.core.ids import UserID
from homeserver.core.tokens import SlidingToken
from homeserver.sync.long_poll import Wish
from homeserver.sync.sliding.engine import Found, SlidingEngine
from homeserver.sync.sliding.long_poll import SlidingSync
from homeserver.sync.sliding.request import SlidingRequest
from homeserver.users.presence import PresenceTracker
from homeserver.web.endpoint import Requester
from homeserver.web.responses import encode_json
from storage.ephemeral import EphemeralStore
from storage.state import StateStore
from tests.homeserver.sync import test_caught_up as plain
from tests.homeserver.sync.sliding.scene import SlidingTestCase, texts, window
from tests.homeserver.sync.test_long_poll import pause
from tests.support.server import TestServer, User

Json = dict[str, Any]

LAZY = [["m.room.name", ""], ["m.room.member", "$LAZY"]]
ALL = [["*", "*"]]
EXTENSIONS = {
    name: {"enabled": True} for name in ("account_data", "receipts", "typing", "e2ee", "to_device")
}
BODIES: tuple[Json, ...] = (
    {"lists": {"all": window((0, 99), limit=20, required_state=LAZY)}, "extensions": EXTENSIONS},
    {"lists": {"top": window((0, 0), limit=3, required_state=ALL)}, "extensions": EXTENSIONS},
    {"lists": {"all": window((0, 0), (1, 9), limit=1, required_state=LAZY)}},
    {
        "lists": {
            "top": window((0, 1), limit=50, required_state=LAZY),
            "low": window((1, 9), limit=50, required_state=[]),
        },
        "extensions": {
            **EXTENSIONS,
            "receipts": {"enabled": True, "lists": ["low"]},
            "typing": {"enabled": True, "lists": ["top"]},
        },
    },
    {
        "lists": {"few": window((0, 99), limit=10, required_state=ALL, filters={"is_dm": True})},
        "extensions": EXTENSIONS,
    },
)


class _Engine(SlidingEngine):
    """Its answers go nowhere: the connection goes on with the token of another answer."""

    token: SlidingToken

    def told(self, request: SlidingRequest, token: SlidingToken, found: Found) -> None:
        # Somebody may go idle, which `Follower.has_moved` tells.
        assert token.durable == self.token.durable, "nothing else happens in between"
        super().told(request, self.token, found)


class Follower:
    """A connection, and what a server without any memory would have told it."""

    def __init__(self, server: TestServer, user: User, number: int, rooms: list[str]) -> None:
        self.user = user
        self.pos: str | None = None
        self.body = dict(BODIES[number % len(BODIES)])
        if number % 3 == 0:
            config = {"timeline_limit": 9, "required_state": LAZY}
            self.body["room_subscriptions"] = {rooms[0]: config}
        services, hs = server.homeserver.services, server.homeserver
        self._fast = services[SlidingSync]
        self._ephemeral = services.following(EphemeralStore)
        states, presence = services[StateStore], services[PresenceTracker]
        general, notifier = plain.general(server)
        journal, engine = general._journal, _Engine(states)
        self._engine = engine
        # Of many answers to one position, those with the highest numbers are kept.
        engine._connections._numbers = self._fast._engine._connections._numbers
        self._general = SlidingSync(
            hs.db, engine, notifier, self._ephemeral, presence, hs.reactor, journal
        )
        self._general.caught_up.is_off = True
        self.has_moved = False

    async def sync(self) -> tuple[Json, Json]:
        """The two answers; the connection goes on with the first."""
        requester = Requester(UserID.parse(self.user.user_id), self.user.device_id, False)
        request = parse(requester, _body({**self.body, "conn_id": "x"}), self.pos)
        wish = Wish(0, "offline", lambda stop: None)
        before = await self._ephemeral.position()
        answer = await self._fast.sync(request, wish)
        self._engine.token = SlidingToken.parse(_parsed(answer)["pos"])
        other = await self._general.sync(request, wish)
        self.has_moved = await self._ephemeral.position() != before
        found = [_parsed(one) for one in (answer, other)]
        self.pos = found[0]["pos"]
        for one in found:
            # Both have a number of their own for what the connection was sent.
            one["pos"] = SlidingToken.parse(one["pos"])[1:]
        place = found[0]["extensions"].get("to_device", {}).get("next_batch")
        if place is not None:
            self.body["extensions"]["to_device"] = {"enabled": True, "since": place}
        return found[0], found[1]


def _body(body: Json) -> SlidingBody:
    return msgspec.convert(json.loads(json.dumps(body)), SlidingBody)


def _parsed(answer: Any) -> Json:
    text = answer if isinstance(answer, bytes) else encode_json(answer)
    found: Json = plain._ageless(json.loads(text))
    for section in found["rooms"].values():
        # In no order.
        section.get("required_state", []).sort(key=lambda event: json.dumps(event, sort_keys=True))
    return found


class EqualityTest(plain.EqualityTest):
    """The same requests, answered from memory where that is done, and from the database."""

    def ways(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for metric in self.server.homeserver.metrics.sliding_answers.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    found[sample.labels["reason"] or sample.labels["way"]] += int(sample.value)
        return found

    async def compare(self, seed: int, steps: int) -> Counter[str]:
        chance = random.Random(seed)
        for number in range(2):
            self.rooms.append(await self.users[number].create_room(preset="public_chat"))
            for user in self.users[:3]:
                await user.join(self.rooms[-1])
        direct = {self.users[0].user_id: [self.rooms[1]]}
        path = f"/user/{self.users[0].user_id}/account_data/m.direct"
        await self.users[0].ok("PUT", path, direct)
        crowd = self.crowd(self.actors(), self.rooms, chance)
        followers = [
            Follower(self.server, self.users[number % 4], seed + number, self.rooms)
            for number in range(5)
        ]
        # A device has a connection of this name once.
        followers[4].user = await self._another_device(self.users[0])
        for step in range(steps):
            for _ in range(chance.choice([1, 1, 1, 2, 3])):
                await crowd.act()
            for follower in followers:
                if chance.random() < 0.15:
                    continue  # It lags behind.
                before = follower.pos
                if chance.random() < 0.05:
                    follower.body["lists"] = BODIES[chance.randrange(len(BODIES))]["lists"]
                answer, other = await follower.sync()
                if chance.random() < 0.05 and before is not None:
                    follower.pos = before  # The answer was lost.
                if not follower.has_moved:
                    where = f"seed {seed}, step {step}, {follower.user.user_id} {before}"
                    self.assertEqual(answer, other, where)
        self.assertGreater(len(crowd.done), 12)
        return self.ways()

    async def _another_device(self, user: User) -> User:
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user.user_id},
            "password": "wonderland",
        }
        _, answer = await self.server.client.post("/_matrix/client/v3/login", login)
        return User(self.server, user.user_id, answer["access_token"], answer["device_id"])


class ProcessesTest(EqualityTest):
    """The same where another process on the database does half of what happens."""

    other: TestServer
    _start = plain.ProcessesTest._start
    actors = plain.ProcessesTest.actors

    async def test_a_new_connection_elsewhere(self) -> None:
        """A position that another process has ended is known no more."""
        user, path = self.users[0], "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
        there = User(self.other, user.user_id, user.token, user.device_id)
        body = {"conn_id": "one", "lists": {"all": window()}}
        _, answer = await user.call("POST", path, body)
        for number in range(3):
            await self.users[1].send(self.rooms[0], str(number))
            query = {"pos": answer["pos"]}
            status, answer = await user.call("POST", path, body, query=query)
            self.assertEqual(status, 200)
        self.assertGreater(self.ways()["fast"], 0)
        for _ in range(3):
            await there.call("POST", path, body)
        await self.users[1].send(self.rooms[0], "more")
        status, answer = await user.call("POST", path, body, query={"pos": answer["pos"]})
        self.assertEqual((status, answer["errcode"]), (400, "M_UNKNOWN_POS"))


class CostTest(SlidingTestCase):
    """What answers from memory cost."""

    async def prepare(self) -> None:
        await super().prepare()
        self.reads: list[str] = []
        read = self.server.homeserver.db.read

        def counted(fn: Any, *args: Any, **options: Any) -> Any:
            self.reads.append(fn.__qualname__)
            return read(fn, *args, **options)

        self.patch(self.server.homeserver.db, "read", counted)

    async def test_one_message(self) -> None:
        room_id = await self.shared_room()
        answer = await self.slide(self.bob)
        # The first one is read: what it takes to tell of messages is not in memory yet.
        await self.alice.send(room_id, "zero")
        answer = await self.slide(self.bob, answer["pos"])
        for text in ("one", "two"):
            await self.alice.send(room_id, text)
            self.reads.clear()
            answer = await self.slide(self.bob, answer["pos"])
            self.assertEqual(texts(answer["rooms"][room_id]), [text])
            self.assertEqual(self.reads, [])

    async def test_members_of_windows_that_grow(self) -> None:
        """Members that came with a larger window, while nothing happened, are had like others."""
        rooms = [await self.shared_room() for _ in range(3)]
        for room_id in rooms:
            await self.alice.send(room_id, "first")
        bodies: list[Json] = [
            {"lists": {"all": window((0, last), limit=1, required_state=LAZY)}} for last in (0, 9)
        ]
        small, large = bodies
        answer = await self.slide(self.bob, **small)
        answer = await self.slide(self.bob, answer["pos"], **large)
        self.assertEqual(set(answer["rooms"]), set(rooms[:2]))
        for room_id in rooms:
            await self.alice.send(room_id, "second")
            self.reads.clear()
            answer = await self.slide(self.bob, answer["pos"], **large)
            section = answer["rooms"][room_id]
            self.assertEqual(texts(section), ["second"])
            self.assertEqual(section.get("required_state", []), [])
            self.assertNotIn("SlidingEngine.read", self.reads)

    async def test_waiting(self) -> None:
        """A client that waits is told without the database, and is not told of other rooms."""
        rooms = [await self.shared_room() for _ in range(3)]
        body: Json = {
            "lists": {"none": window(filters={"is_dm": True})},
            "room_subscriptions": {rooms[0]: {"timeline_limit": 3, "required_state": []}},
        }
        answer = await self.slide(self.bob, **body)
        waiting = self.wait(self.bob, answer["pos"], **body)
        await pause()
        self.reads.clear()
        for room_id in rooms[1:]:
            await self.alice.send(room_id, "elsewhere")
            await pause()
        self.assertFalse(waiting.called)
        await self.alice.send(rooms[0], "here")
        answer = await waiting
        self.assertEqual(list(answer["rooms"]), [rooms[0]])
        self.assertEqual(texts(answer["rooms"][rooms[0]]), ["here"])
        self.assertNotIn("SlidingEngine.read", self.reads)
        self.assertEqual(answer["rooms"][rooms[0]]["notification_count"], 1)

    async def test_a_room_that_fell_out_of_the_window(self) -> None:
        """What happens there is told when it comes back, also what did not bring it back."""
        room_id, other = await self.shared_room(), await self.shared_room()
        event_id = await self.alice.send(room_id, "first")
        body: Json = {"lists": {"top": window((0, 0), limit=10)}}
        answer = await self.slide(self.bob, **body)
        self.assertEqual(list(answer["rooms"]), [room_id])
        await self.alice.send(other, "above it")
        answer = await self.slide(self.bob, answer["pos"], **body)
        self.assertEqual(list(answer["rooms"]), [other])
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": "+"}
        reaction = await self.alice.send(room_id, {"m.relates_to": relation}, "m.reaction")
        for text in ("one", "two"):
            await self.alice.send(other, text)
            answer = await self.slide(self.bob, answer["pos"], **body)
            self.assertEqual(texts(answer["rooms"][other]), [text])
        back = await self.alice.send(room_id, "back")
        answer = await self.slide(self.bob, answer["pos"], **body)
        section = answer["rooms"][room_id]
        shown = [event["event_id"] for event in section["timeline"]]
        self.assertEqual((shown, section["limited"]), ([reaction, back], False))

    async def test_ignored(self) -> None:
        carol = await self.server.register("carol")
        room_id = await self.shared_room()
        await carol.join(room_id)
        await self.alice.send(room_id, "first")
        path = f"/user/{self.bob.user_id}/account_data/m.ignored_user_list"
        await self.bob.ok("PUT", path, {"ignored_users": {carol.user_id: {}}})
        answer = await self.slide(self.bob)
        for number in range(3):
            await carol.send(room_id, "unheard")
            answer = await self.slide(self.bob, answer["pos"])
            self.assertEqual(texts({"timeline": [], **answer["rooms"].get(room_id, {})}), [])
            await self.alice.send(room_id, str(number))
            answer = await self.slide(self.bob, answer["pos"])
            self.assertEqual(texts(answer["rooms"][room_id]), [str(number)])
