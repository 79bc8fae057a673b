"""Messages that are not kept for ever (MSC1763)."""

from __future__ import annotations

from typing import Any

import config
from homeserver.rooms.purge import HistoryPurge
from homeserver.rooms.retention import RetentionPurge
from homeserver.rooms.room_tasks import RoomTasks
from storage import events
from storage.transaction import Transaction
from tests.support.asking import AskingServer
from tests.support.room_case import RoomTestCase, q
from tests.support.server import make_server

CONFIGURATION = "/_matrix/client/unstable/org.matrix.msc1763/retention/configuration"
HOUR = 3_600_000


def _age(txn: Transaction, event_id: str, by_ms: int) -> None:
    txn.execute(
        "UPDATE events SET origin_server_ts = origin_server_ts - ? WHERE event_id = ?",
        (by_ms, event_id),
    )


def _age_all(txn: Transaction, by_ms: int) -> None:
    txn.execute("UPDATE events SET origin_server_ts = origin_server_ts - ?", (by_ms,))


class RetentionTest(RoomTestCase):
    async def begin(self, **wanted: Any) -> None:
        self.server = await make_server(self, message_retention={"enabled": True, **wanted})
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.room_id = await self.alice.create_room(preset="public_chat", name="Tea")
        await self.bob.join(self.room_id)
        self.db = self.server.homeserver.db
        await self.db.write(_age_all, 2000 * HOUR)

    async def say(self, text: str, age: int = 0) -> str:
        """A message that is so many hours old."""
        event_id = await self.alice.send(self.room_id, text)
        await self.db.write(_age, event_id, age * HOUR)
        return event_id

    async def shown(self) -> list[str]:
        """Texts in the room's history; `/sync` and `/messages` agree."""
        path = f"/rooms/{q(self.room_id)}/messages"
        chunk = (await self.bob.ok("GET", path, query={"dir": "f", "limit": 100}))["chunk"]
        found = [e["content"]["body"] for e in chunk if e["type"] == "m.room.message"]
        timeline = (await self.bob.sync())["rooms"]["join"][self.room_id]["timeline"]["events"]
        synced = [e["content"]["body"] for e in timeline if e["type"] == "m.room.message"]
        self.assertEqual(synced, found)
        return found

    async def purge(self) -> int:
        services = self.server.homeserver.services
        begun = await services[RetentionPurge].run()
        tasks = services[RoomTasks]
        for task in await tasks.of_room(HistoryPurge.KIND, self.room_id):
            await tasks.work_on(task.task_id)
        return begun

    async def test_old_messages_are_hidden_and_then_purged(self) -> None:
        await self.begin(max_lifetime="1d")
        first = await self.say("first", 30)
        relation = {"rel_type": "m.reference", "event_id": first}
        content = {"msgtype": "m.text", "body": "about", "m.relates_to": relation}
        about = await self.alice.send(self.room_id, content)
        await self.db.write(_age, about, 26 * HOUR)
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "old"})
        kept = await self.say("kept", 23)
        await self.say("new")
        self.assertEqual(await self.shown(), ["kept", "new"])
        for path in (f"event/{q(first)}", f"context/{q(first)}"):
            answer = await self.bob.call("GET", f"/rooms/{q(self.room_id)}/{path}")
            self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
        path = f"/_matrix/client/v1/rooms/{q(self.room_id)}/relations/{q(first)}"
        self.assertEqual((await self.bob.call("GET", path)).status, 404)
        context = await self.get(self.bob, f"context/{q(kept)}")
        told = [e["content"].get("body") for e in context["events_before"]]
        self.assertFalse({"first", "about"} & set(told))
        self.assertEqual(await self.purge(), 1)
        self.assertEqual(await self.db.read(events.get_many, [first, about]), {})
        self.assertEqual(await self.shown(), ["kept", "new"])
        state = await self.get(self.bob, "state/m.room.topic/")
        self.assertEqual(state, {"topic": "old"})
        self.assertEqual(await self.purge(), 0)
        self.assertEqual(await self.say("next") and (await self.shown())[-1], "next")

    async def test_the_head_of_a_room_stays(self) -> None:
        await self.begin(max_lifetime="1d")
        await self.say("first", 50)
        last = await self.say("last", 40)
        self.assertEqual(await self.shown(), ["last"])
        self.assertEqual(await self.purge(), 1)
        self.assertEqual(await self.purge(), 0)
        self.assertEqual(await self.shown(), ["last"])
        await self.say("next")
        self.assertEqual(await self.shown(), ["next"])
        self.assertEqual((await self.alice.call("GET", f"/rooms/x/event/{q(last)}")).status, 400)

    async def test_what_rooms_say(self) -> None:
        await self.begin(shortest="2h", longest="10h")
        for age in (9, 5, 1):
            await self.say(f"{age}h", age)
        await self.say("now")
        for kind, content, expected in (
            ("m.room.retention", {"max_lifetime": 6 * HOUR}, ["5h", "1h", "now"]),
            ("m.room.retention", {"max_lifetime": 1}, ["1h", "now"]),
            ("m.room.retention", {}, ["1h", "now"]),
            ("m.room.retention", {"max_lifetime": "x"}, ["1h", "now"]),
            ("m.room.retention", {"max_lifetime": 2**53 - 1}, ["9h", "5h", "1h", "now"]),
        ):
            await self.alice.set_state(self.room_id, kind, content)
            self.assertEqual(await self.shown(), expected, content)
        other = await self.alice.create_room(
            preset="public_chat",
            initial_state=[
                {
                    "type": "org.matrix.msc1763.retention",
                    "state_key": "",
                    "content": {"max_lifetime": 3 * HOUR},
                }
            ],
        )
        self.room_id = other
        await self.bob.join(other)
        await self.say("4h", 4)
        await self.say("now")
        self.assertEqual(await self.shown(), ["now"])
        told = await self.alice.ok("GET", CONFIGURATION)
        limit = {"min": 2 * HOUR, "max": 10 * HOUR}
        self.assertEqual(told, {"policies": {}, "limits": {"max_lifetime": limit}})

    async def test_wrong_times(self) -> None:
        """They make nothing else go, and keep nothing."""
        await self.begin(max_lifetime="1d")
        await self.say("future", -1000)
        await self.say("old", 30)
        await self.say("new")
        await self.say("claims to be old", 30)
        await self.say("last")
        self.assertEqual(await self.shown(), ["future", "new", "last"])
        self.assertEqual(await self.purge(), 1)
        self.assertEqual(await self.shown(), ["new", "last"])
        self.assertEqual(await self.purge(), 0)

    async def test_other_servers_get_nothing_of_it(self) -> None:
        await self.begin(max_lifetime="1d")
        asking = await AskingServer.start(self.server)
        await asking.membership(self.room_id)
        old = await self.say("old", 30)
        new = await self.say("new")
        for event_id, is_kept in ((old, False), (new, True)):
            answer = await asking.get("/event/{}", event_id)
            content = answer.body["pdus"][0]["content"]
            self.assertEqual("body" in content, is_kept)
        query = {"v": [new], "limit": 10}
        pdus = (await asking.get("/backfill/{}", self.room_id, query=query)).body["pdus"]
        bodies = [pdu["content"].get("body") for pdu in pdus if pdu["type"] == "m.room.message"]
        self.assertEqual(sorted(bodies, key=str), [None, "new"])

    async def test_a_server_that_keeps_everything(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        self.db = self.server.homeserver.db
        await self.alice.set_state(self.room_id, "m.room.retention", {"max_lifetime": 1})
        await self.say("old", 30)
        await self.say("new")
        self.assertEqual(await self.shown(), ["old", "new"])
        self.assertEqual(await self.purge(), 0)
        answer = await self.alice.call("GET", CONFIGURATION)
        self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_UNRECOGNIZED"))

    def test_times_that_do_not_fit(self) -> None:
        for wanted, said in (
            ({"shortest": "2d", "longest": "1d"}, "longest: is less than shortest"),
            ({"max_lifetime": "2d", "longest": "1d"}, "max_lifetime: is more than longest"),
            ({"max_lifetime": "1d", "min_lifetime": "2d"}, "max_lifetime: is less than"),
            ({"max_lifetime": "1h", "shortest": "2h"}, "max_lifetime: is less than"),
        ):
            with self.assertRaises(config.ConfigError) as caught:
                config.from_dict({"server_name": "a", "message_retention": wanted})
            self.assertIn(said, str(caught.exception))
