"""A client that only follows sliding sync ends with what the server has, whatever happens.

Rooms change, windows and limits change, rooms fall out of windows and come back, answers are lost:
at the end the client asks for everything, and must have the state, the names, the numbers of
members, account data and an unbroken end of the timeline of each room.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.homeserver.sync.sliding.scene import SlidingTestCase, window
from tests.support.server import User

Json = dict[str, Any]
STEPS = 50
SMALL = [["m.room.name", ""]]
LARGE = [["m.room.name", ""], ["m.room.topic", ""], ["org.example", "*"], ["m.room.member", "$ME"]]
ACCOUNT_DATA = {"account_data": {"enabled": True}}
ALL_MEMBERS = [*LARGE, ["m.room.member", "*"]]


class Follower:
    """What the client knows."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.pos: str | None = None
        self.rooms: dict[str, Json] = {}
        self.data: dict[tuple[str, str], Json] = {}

    def take(self, answer: Json) -> None:
        self.pos = answer["pos"]
        for room_id, section in answer["rooms"].items():
            if section.get("initial"):
                self.rooms[room_id] = {"state": {}, "timeline": [], "name": None}
            self._room(self.rooms[room_id], section)
        data = answer["extensions"].get("account_data", {}).get("rooms", {})
        for room_id, events in data.items():
            for event in events:
                self.data[room_id, event["type"]] = event["content"]

    def _room(self, room: Json, section: Json) -> None:
        for name in ("membership", "joined_count", "name", "notification_count", "bump_stamp"):
            if name in section:
                room[name] = section[name]
        for event in section.get("required_state", ()):
            room["state"][event["type"], event["state_key"]] = event["event_id"]
        ids = [event["event_id"] for event in section.get("timeline", ())]
        if section.get("limited") or section.get("unstable_expanded_timeline"):
            room["timeline"] = ids
        else:
            room["timeline"] += ids


class ModelTest(SlidingTestCase):
    timeout = 180

    async def prepare(self) -> None:
        await super().prepare()
        self.carol = await self.server.register("carol")

    async def follow(self, seed: int) -> None:
        random = Random(seed)
        rooms = [await self.shared_room() for _ in range(4)]
        client = Follower(self.bob.user_id)
        for step in range(STEPS):
            for _ in range(random.randrange(4)):
                await self.change(random, rooms, step)
            body = self.request(random, rooms)
            for _ in range(random.choice([0, 0, 0, 1, 2])):
                # The answer is lost on the way.
                await self.slide(self.bob, client.pos, **body)
                await self.change(random, rooms, step)
                body = random.choice([body, self.request(random, rooms)])
            client.take(await self.slide(self.bob, client.pos, conn_id="", **body))
        for state in (LARGE, ALL_MEMBERS):
            lists = {"all": window((0, 99), limit=3, required_state=state)}
            client.take(
                await self.slide(self.bob, client.pos, lists=lists, extensions=ACCOUNT_DATA)
            )
        await self.check(client, seed)

    def request(self, random: Random, rooms: list[str]) -> Json:
        """Something that a client could ask for."""
        last = random.choice([0, 1, 1, 2, 9])
        limit = random.choice([1, 2, 3, 6])
        state = random.choice([SMALL, LARGE, ALL_MEMBERS])
        body: Json = {"lists": {"top": window((0, last), limit=limit, required_state=state)}}
        if random.random() < 0.8:
            body["extensions"] = ACCOUNT_DATA
        if random.random() < 0.4:
            config = {"timeline_limit": random.choice([1, 4]), "required_state": LARGE}
            body["room_subscriptions"] = {random.choice(rooms): config}
        return body

    async def change(self, random: Random, rooms: list[str], step: int) -> None:
        """Something that could happen."""
        room_id = random.choice(rooms)
        kind = random.randrange(11)
        text = f"{step}-{random.randrange(1000)}"
        if kind < 3:
            await self.alice.send(room_id, text)
        elif kind == 3:
            await self.alice.set_state(room_id, "m.room.name", {"name": text})
        elif kind == 4:
            await self.alice.set_state(room_id, "m.room.topic", {"topic": text})
        elif kind == 5:
            key = random.choice(["", "a", "b"])
            await self.alice.set_state(room_id, "org.example", {"v": text}, key)
        elif kind == 6:
            await self.toggle(self.carol, room_id)
        elif kind == 7:
            await self.toggle(self.bob, room_id)
        elif kind == 8:
            event_id = await self.alice.send(room_id, text)
            await self.bob.call("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {})
        elif kind == 9:
            path = f"/user/{self.bob.user_id}/rooms/{room_id}/account_data/org.example"
            await self.bob.ok("PUT", path, {"v": text})
        else:
            rooms.append(await self.shared_room(name=text))

    async def toggle(self, user: User, room_id: str) -> None:
        joined = await user.ok("GET", "/joined_rooms")
        if room_id in joined["joined_rooms"]:
            await user.leave(room_id)
        else:
            await user.join(room_id)

    async def check(self, client: Follower, seed: int) -> None:
        joined = (await self.bob.ok("GET", "/joined_rooms"))["joined_rooms"]
        known = {room_id for room_id, room in client.rooms.items() if room["membership"] == "join"}
        self.assertEqual(known, set(joined), seed)
        full = await self.bob.sync()
        for room_id in joined:
            room, where = client.rooms[room_id], f"seed {seed}, {room_id}"
            events = await self.bob.ok("GET", f"/rooms/{room_id}/state")
            kinds = ("m.room.name", "m.room.topic", "org.example", "m.room.member")
            state = {
                (event["type"], event["state_key"]): event["event_id"]
                for event in events
                if event["type"] in kinds
            }
            self.assertEqual(room["state"], state, where)
            path = f"/user/{self.bob.user_id}/rooms/{room_id}/account_data/org.example"
            status, data = await self.bob.call("GET", path)
            known_data = client.data.get((room_id, "org.example"))
            self.assertEqual(known_data, data if status == 200 else None, where)
            names = [event["content"] for event in events if event["type"] == "m.room.name"]
            self.assertEqual(room["name"], names[0]["name"] if names else None, where)
            members = [e for e in events if e["type"] == "m.room.member"]
            count = sum(event["content"]["membership"] == "join" for event in members)
            self.assertEqual(room["joined_count"], count, where)
            page = await self.bob.ok(
                "GET", f"/rooms/{room_id}/messages", query={"dir": "b", "limit": 500}
            )
            whole = [event["event_id"] for event in page["chunk"]][::-1]
            timeline = room["timeline"]
            self.assertGreaterEqual(len(timeline), 3, where)
            self.assertEqual(timeline, whole[-len(timeline) :], where)
            unread = full["rooms"]["join"][room_id]["unread_notifications"]
            self.assertEqual(room["notification_count"], unread["notification_count"], where)

    async def test_0(self) -> None:
        """Shows XC-1."""
        for seed in range(3):
            await self.follow(seed)

    async def test_1(self) -> None:
        for seed in range(100, 103):
            await self.follow(seed)

    async def test_2(self) -> None:
        for seed in range(200, 203):
            await self.follow(seed)
