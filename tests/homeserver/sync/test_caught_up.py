"""Answers from memory say what the database says."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.core.filters import parse_filter
from homeserver.core.tokens import SyncToken
from homeserver.sync.engine import SyncEngine
from homeserver.sync.journal import Journal
from homeserver.sync.long_poll import Sync, Wish
from homeserver.sync.notifier import Notifier
from homeserver.sync.request import SyncRequest
from homeserver.users.presence import PresenceTracker
from homeserver.web.responses import encode_json
from storage import rooms
from storage.ephemeral import EphemeralStore
from storage.state import StateStore
from tests.homeserver.sync.scene import bodies, joined
from tests.support.databases import migrated_database, redis_url
from tests.support.server import TestServer, User, make_server

Json = dict[str, Any]

PLAIN: tuple[Json, ...] = (
    {},
    {"room": {"timeline": {"limit": 100}, "state": {"lazy_load_members": True}}},
    {"room": {"timeline": {"limit": 2}}},
    {"room": {"timeline": {"unread_thread_notifications": True}}},
    {
        "room": {
            "timeline": {"unread_thread_notifications": True, "limit": 20},
            "state": {"lazy_load_members": True},
        },
        "presence": {"not_types": ["*"]},
    },
)
SPECIAL: tuple[Json, ...] = (
    {"room": {"timeline": {"not_types": ["m.reaction"]}, "state": {"lazy_load_members": True}}},
    {"room": {"state": {"lazy_load_members": True, "include_redundant_members": True}}},
    {"room": {"ephemeral": {"not_types": ["m.typing"]}}},
    {"event_fields": ["content.body", "sender"]},
)


_AGES = {"age", "last_active_ago", "msc4354_sticky_duration_ttl_ms"}
_STATES = {"state", "state_after", "org.matrix.msc4222.state_after"}


class Follower:
    """A device that syncs, and what a server without any memory would have told it."""

    def __init__(self, server: TestServer, user: User, number: int, filters: Any = PLAIN) -> None:
        self.user = user
        self._filter = parse_filter(filters[number % len(filters)])
        self._after = number % 3
        """How `state` is called: that, `state_after`, or as that was called before."""
        services = server.homeserver.services
        self._fast = services[Sync]
        self._general, self._notifier = general(server)
        self._ephemeral = services.following(EphemeralStore)
        self.since: str | None = None
        self.has_moved = False
        """Whether somebody went idle, say, between the last two answers."""

    async def sync(self) -> tuple[Json, Json]:
        """The two answers; the device goes on with the first."""
        token = None if self.since is None else SyncToken.parse(self.since)
        request = SyncRequest(
            user_id=self.user.user_id,
            device_id=self.user.device_id,
            since=token.durable if token else None,
            ephemeral_since=token.ephemeral if token else None,
            to_device_since=token.to_device if token else None,
            filter=self._filter,
            sticky_since=token.sticky if token else None,
            use_state_after=self._after > 0,
        )
        wish = Wish(0, "offline", lambda stop: None, self._after > 1)
        before = await self._ephemeral.position()
        answer = _parsed(await self._fast.sync(request, wish))
        other = _parsed(await self._general.sync(request, wish))
        # It is asked anew each time.
        (await self._notifier.watch(self.user.user_id)).settled.clear()
        self.since = answer["next_batch"]
        self.has_moved = await self._ephemeral.position() != before
        return answer, other


def general(server: TestServer) -> tuple[Sync, Notifier]:
    """What answers `/sync` from the database alone."""
    homeserver = server.homeserver
    services, db, clock = homeserver.services, homeserver.db, homeserver.reactor
    ephemeral, states = services.following(EphemeralStore), services[StateStore]
    notifier = Notifier(db, homeserver.feed, homeserver.bus, clock)
    name = homeserver.config.server_name
    presence = services[PresenceTracker]
    journal = Journal(db, states, notifier, ephemeral, presence, clock, name)
    made = Sync(db, SyncEngine(states), notifier, ephemeral, presence, clock, journal)
    made.caught_up.is_off = True
    return made, notifier


def _parsed(answer: Any) -> Json:
    text = answer if isinstance(answer, bytes) else encode_json(answer)
    found: Json = _ageless(json.loads(text))
    if "presence" in found:
        # In no order.
        found["presence"]["events"].sort(key=lambda event: event["sender"])
    for section in found.get("rooms", {}).get("join", {}).values():
        for name in _STATES & section.keys():
            # In no order.
            section[name]["events"].sort(key=lambda event: json.dumps(event, sort_keys=True))
    return found


def _ageless(value: Any) -> Any:
    """Without what tells how old events are, which changes from one answer to the next."""
    if isinstance(value, dict):
        return {key: _ageless(part) for key, part in value.items() if key not in _AGES}
    return [_ageless(part) for part in value] if isinstance(value, list) else value


def _forget_places(answer: Json) -> None:
    for kind in ("join", "leave"):
        for section in answer.get("rooms", {}).get(kind, {}).values():
            section["timeline"].pop("prev_batch", None)


class Crowd:
    """Users who do all kinds of things, most often say something."""

    def __init__(self, users: list[User], rooms: list[str], chance: random.Random) -> None:
        self.users = users
        self.rooms = rooms
        self.chance = chance
        self.stranger: User | None = None
        """Somebody who is in the last room now and then, and otherwise known to few."""
        self.sent: list[tuple[str, str]] = []
        self.done: Counter[str] = Counter()
        self._count = 0

    async def act(self) -> None:
        """Do something."""
        rare: list[Callable[[], Awaitable[object]]] = [
            self.react,
            self.edit,
            self.reply,
            self.redact,
            self.set_state,
            self.rename,
            self.move,
            self.mention,
            self.read,
            self.type_,
            self.ignore,
            self.mute,
            self.write_data,
            self.send_to_device,
            self.log_in,
            self.several,
            self.change_presence,
            self.change_presence,
            self.come_and_go,
        ]
        work = self.say if self.chance.random() < 0.6 else self.chance.choice(rare)
        self.done[work.__name__] += 1
        await work()

    def _who(self) -> tuple[User, str]:
        return self.chance.choice(self.users), quote(self.chance.choice(self.rooms))

    def _number(self) -> int:
        self._count += 1
        return self._count

    async def _send(self, content: Json, kind: str = "m.room.message") -> None:
        user, room = self._who()
        path = f"/rooms/{room}/send/{kind}/c{self._number()}"
        status, answer = await user.call("PUT", path, content)
        if status == 200:
            self.sent.append((room, answer["event_id"]))

    async def say(self) -> None:
        await self._send({"msgtype": "m.text", "body": f"message {self._number()}"})

    async def several(self) -> None:
        for _ in range(self.chance.randint(2, 4)):
            await self.say()

    async def _relate(self, kind: str, relation: Json, **content: Any) -> None:
        if self.sent:
            room, event_id = self.chance.choice(self.sent[-6:])
            user = self.chance.choice(self.users)
            body = {"m.relates_to": {"event_id": event_id, **relation}, **content}
            path = f"/rooms/{room}/send/{kind}/c{self._number()}"
            status, answer = await user.call("PUT", path, body)
            if status == 200:
                self.sent.append((room, answer["event_id"]))

    async def react(self) -> None:
        await self._relate("m.reaction", {"rel_type": "m.annotation", "key": str(self._number())})

    async def edit(self) -> None:
        new = {"msgtype": "m.text", "body": "edited"}
        relation = {"rel_type": "m.replace"}
        await self._relate("m.room.message", relation, **new, **{"m.new_content": new})

    async def reply(self) -> None:
        relation = {"rel_type": "m.thread"}
        await self._relate("m.room.message", relation, msgtype="m.text", body="in a thread")

    async def redact(self) -> None:
        if self.sent:
            room, event_id = self.chance.choice(self.sent[-6:])
            path = f"/rooms/{room}/redact/{quote(event_id)}/c{self._number()}"
            await self.chance.choice(self.users).call("PUT", path, {})

    async def set_state(self) -> None:
        user, room = self._who()
        kind, content = self.chance.choice(
            [("m.room.topic", {"topic": str(self._number())}), ("test.state", {"a": 1})]
        )
        await user.call("PUT", f"/rooms/{room}/state/{kind}/", content)

    async def rename(self) -> None:
        user = self.chance.choice(self.users)
        path = f"/profile/{quote(user.user_id)}/displayname"
        await user.ok("PUT", path, {"displayname": f"Name {self._number()}"})

    async def move(self) -> None:
        user, room = self._who()
        if self.chance.random() < 0.3:
            await user.call("POST", f"/rooms/{room}/leave", {})
        await user.call("POST", f"/join/{room}", {})

    async def change_presence(self) -> None:
        user = self.chance.choice([*self.users, self.stranger or self.users[0]])
        state = self.chance.choice(["online", "unavailable", "offline"])
        body = {"presence": state, "status_msg": f"status {self._number()}"}
        await user.ok("PUT", f"/presence/{quote(user.user_id)}/status", body)

    async def come_and_go(self) -> None:
        if self.stranger is not None:
            room = quote(self.rooms[-1])
            status, _ = await self.stranger.call("POST", f"/rooms/{room}/leave", {})
            if status != 200:
                await self.stranger.call("POST", f"/join/{room}", {})

    async def mention(self) -> None:
        user = self.chance.choice(self.users)
        mentions = {"user_ids": [user.user_id]} if self.chance.random() < 0.7 else {"room": True}
        await self._send({"msgtype": "m.text", "body": "you", "m.mentions": mentions})

    async def read(self) -> None:
        if self.sent:
            room, event_id = self.chance.choice(self.sent[-6:])
            kind = self.chance.choice(["m.read", "m.read.private"])
            body = self.chance.choice([{}, {"thread_id": "main"}])
            path = f"/rooms/{room}/receipt/{kind}/{quote(event_id)}"
            await self.chance.choice(self.users).call("POST", path, body)

    async def type_(self) -> None:
        user, room = self._who()
        body = {"typing": self.chance.random() < 0.7, "timeout": 30_000}
        await user.call("PUT", f"/rooms/{room}/typing/{quote(user.user_id)}", body)

    async def ignore(self) -> None:
        user = self.chance.choice(self.users)
        others = self.chance.sample(self.users, self.chance.randint(0, 1))
        content: Json = {"ignored_users": {other.user_id: {} for other in others}}
        path = f"/user/{quote(user.user_id)}/account_data/m.ignored_user_list"
        await user.ok("PUT", path, content)

    async def mute(self) -> None:
        user, room = self._who()
        actions = self.chance.choice([["notify"], []])
        await user.ok("PUT", f"/pushrules/global/room/{room}", {"actions": actions})

    async def write_data(self) -> None:
        user, room = self._who()
        where = self.chance.choice(["", f"/rooms/{room}"])
        path = f"/user/{quote(user.user_id)}{where}/account_data/test.data"
        await user.call("PUT", path, {"number": self._number()})

    async def send_to_device(self) -> None:
        user, other = self.chance.choice(self.users), self.chance.choice(self.users)
        body = {"messages": {other.user_id: {"*": {"number": self._number()}}}}
        await user.ok("PUT", f"/sendToDevice/test.hello/c{self._number()}", body)

    async def log_in(self) -> None:
        user = self.chance.choice(self.users)
        keys = {
            "algorithms": [],
            "device_id": user.device_id,
            "user_id": user.user_id,
            "keys": {f"ed25519:{user.device_id}": "a" * 43},
            "signatures": {},
            "unsigned": {"device_display_name": str(self._number())},
        }
        await user.call("POST", "/keys/upload", {"device_keys": keys})


"""What reads answers from the database."""


class EqualityTest(TestCase):
    """The same requests, answered from memory where that is done, and from the database."""

    timeout = 180
    maxDiff = None
    crowd: type[Crowd] = Crowd

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self._prepare())

    async def _prepare(self) -> None:
        await self._start()
        self.users = [await self.server.register(f"user{number}") for number in range(4)]
        self.rooms = []
        for number in range(2):
            self.rooms.append(await self.users[number].create_room(preset="public_chat"))
            for user in self.users:
                await user.join(self.rooms[-1])
        self.stranger = await self.server.register("stranger")
        alone = await self.stranger.create_room(preset="public_chat")
        await self.users[0].join(alone)

    async def _start(self) -> None:
        self.server = await make_server(self)

    def actors(self) -> list[User]:
        """Those who do something."""
        return self.users

    def ways(self) -> Counter[str]:
        """How many answers were made why."""
        found: Counter[str] = Counter()
        for metric in self.server.homeserver.metrics.sync_answers.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    found[sample.labels["reason"] or sample.labels["way"]] += int(sample.value)
        return found

    async def compare(self, seed: int, steps: int) -> Counter[str]:
        chance = random.Random(seed)
        crowd = self.crowd(self.actors(), self.rooms, chance)
        crowd.stranger = self.stranger
        followers = [
            Follower(self.server, self.users[number % 4], seed + number) for number in range(4)
        ]
        for user in self.users[:2]:
            # Another device of somebody who has one already.
            login = {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": user.user_id},
                "password": "wonderland",
            }
            _, answer = await self.server.client.post("/_matrix/client/v3/login", login)
            other = User(self.server, user.user_id, answer["access_token"], answer["device_id"])
            filters = PLAIN if user is self.users[0] else SPECIAL
            followers.append(Follower(self.server, other, seed + len(followers), filters))
        for step in range(steps):
            for _ in range(chance.choice([1, 1, 1, 2, 3])):
                await crowd.act()
            for follower in followers:
                if chance.random() < 0.15:
                    continue  # It lags behind.
                since, before = follower.since, self.ways()["fast"]
                answer, other_answer = await follower.sync()
                if follower.has_moved:
                    continue
                if self.ways()["fast"] == before:
                    # The database has two ways to name a place before a timeline.
                    for each in (answer, other_answer):
                        _forget_places(each)
                if answer["next_batch"] == since:
                    # It was known without a look that there is nothing new.
                    other_answer["next_batch"] = since
                self.assertEqual(
                    answer,
                    other_answer,
                    f"seed {seed}, step {step}, {follower.user.user_id} since {since}",
                )
        self.assertGreater(len(crowd.done), 12)
        return self.ways()

    async def test_random_1(self) -> None:
        ways = await self.compare(1, 50)
        self.assertGreater(ways["fast"], 50, ways)

    async def test_random_2(self) -> None:
        ways = await self.compare(2, 50)
        self.assertGreater(ways["fast"], 50, ways)

    async def test_random_3(self) -> None:
        ways = await self.compare(3, 50)
        self.assertGreater(ways["fast"], 50, ways)


class ProcessesTest(EqualityTest):
    """The same where another process on the database does half of what happens."""

    async def _start(self) -> None:
        shared: Json = {
            "database_url": migrated_database(self, "postgres"),
            "redis": {"url": redis_url()},
            "data_directory": str(Path(self.mktemp()).resolve()),
            # Of presence processes hear at different times.
            "presence": {"enabled": False},
        }
        self.server = await make_server(self, **shared)
        self.other = await make_server(self, **shared)

    def actors(self) -> list[User]:
        others = [User(self.other, user.user_id, user.token, user.device_id) for user in self.users]
        return self.users + others

    async def test_a_lost_hint(self) -> None:
        """When hints may have been lost, what is known of positions is not relied on."""
        room_id = self.rooms[0]
        here, there = self.users[0], self.actors()[5]
        since = (await here.sync())["next_batch"]
        for number in range(3):
            await here.send(room_id, str(number))
            since = (await here.sync(since))["next_batch"]
        poll = Deferred.fromCoroutine(here.sync(since, timeout=20_000))
        self.patch(self.other.homeserver.bus, "publish", lambda *told: None)
        await there.send(room_id, "in secret")
        nid = await self.server.homeserver.db.read(rooms.nid, room_id)
        self.server.homeserver.services[Notifier]._gap([f"room:{nid}"])
        self.assertEqual(bodies(joined(await poll, room_id)), ["in secret"])

    async def test_waiting(self) -> None:
        """What is sent through one process reaches those who wait at the other."""
        room_id = self.rooms[0]
        here, there = self.users[0], self.actors()[5]
        since = (await here.sync())["next_batch"]
        for number in range(4):
            poll = Deferred.fromCoroutine(here.sync(since, timeout=20_000))
            await there.send(room_id, f"message {number}")
            answer = await poll
            self.assertEqual(bodies(joined(answer, room_id)), [f"message {number}"])
            since = answer["next_batch"]
        self.assertGreater(self.ways()["fast"], 0)
