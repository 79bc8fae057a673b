"""Purging histories: what goes, what stays, and that the rest works."""

from __future__ import annotations

import random
from typing import Any

from homeserver.core import state_tree
from homeserver.rooms import purge as purge_module
from homeserver.rooms import state_collection
from homeserver.rooms.purge import HistoryPurge, Point
from homeserver.rooms.room_tasks import RoomTasks
from homeserver.rooms.state_collection import StateCollection
from storage import room_tasks, rooms, state_nodes
from storage.database import Database
from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.admin import make_admin
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User

ADMIN = "/_synapse/admin/v1"


async def nodes(db: Database, room_id: str) -> tuple[set[bytes], set[bytes]]:
    """The hashes of the nodes that a room's states have, and of those that are stored."""

    def read(txn: Transaction) -> tuple[set[bytes], set[bytes]]:
        nid = rooms.nid(txn, room_id)
        assert nid is not None
        live = level = state_nodes.roots(txn, nid)
        while level:
            level = state_tree.below(level, lambda names: state_nodes.load(txn, nid, names)) - live
            live = live | level
        rows = txn.all("SELECT hash FROM state_nodes WHERE room_nid = ?", (nid,))
        return live - {state_tree.EMPTY}, {bytes(row[0]) for row in rows}

    return await db.read(read)


def _set_time(txn: Transaction, event_id: str, ts: int) -> None:
    txn.execute("UPDATE events SET origin_server_ts = ? WHERE event_id = ?", (ts, event_id))


class PurgeCase(RoomTestCase):
    timeout = 60

    async def start(self, **room: Any) -> str:
        await super().start(**room)
        self.db = self.server.homeserver.db
        await make_admin(self.alice)
        return self.room_id

    async def purge(self, point: str = "", **body: Any) -> str:
        """Purge the room; how it ended."""
        path = f"{ADMIN}/purge_history/{q(self.room_id)}" + (f"/{q(point)}" if point else "")
        answer = await self.alice.ok("POST", path, body)
        await self.server.homeserver.services[RoomTasks].over(answer["purge_id"])
        status = await self.alice.ok("GET", f"{ADMIN}/purge_history_status/{answer['purge_id']}")
        return str(status["status"])

    async def purge_all_before(self, point: str) -> None:
        self.assertEqual(await self.purge(point, delete_local_events=True), "complete")

    async def count(self, sql: str, *args: Any) -> int:
        found: int = await self.db.read(lambda txn: txn.value(sql, args))
        return found

    async def texts(self, user: User) -> list[str]:
        """The messages that a user can page back to, newest first."""
        found: list[str] = []
        query: dict[str, Any] = {"dir": "b", "limit": 3}
        while True:
            page = await self.get(user, "messages", **query)
            found += [
                event["content"].get("body", "")
                for event in page["chunk"]
                if event["type"] == "m.room.message"
            ]
            if "end" not in page:
                return found
            query["from"] = page["end"]

    async def unread(self, user: User) -> int:
        section = (await user.sync())["rooms"]["join"][self.room_id]
        count: int = section["unread_notifications"]["notification_count"]
        return count

    async def check_room(self) -> None:
        """Every event that is left can be looked at from all sides; the states are whole."""
        live, stored = await nodes(self.db, self.room_id)
        self.assertEqual(live, stored)
        rows = await self.db.read(
            lambda txn: txn.all(
                "SELECT e.event_id FROM events e JOIN rooms r ON r.room_nid = e.room_nid"
                " WHERE r.room_id = ? AND e.pos IS NOT NULL",
                (self.room_id,),
            )
        )
        for (event_id,) in rows:
            await self.event(self.alice, event_id)
            context = await self.get(self.alice, f"context/{q(event_id)}", limit=4)
            self.assertIn("m.room.create", [e["type"] for e in context["state"]])
            await self.get(self.alice, "messages", dir="b", **{"from": context["start"]})
            await self.get(self.alice, "members", at=context["end"])
        await self.get(self.alice, "state")
        await self.get(self.alice, "members")


class TestPurge(PurgeCase):
    async def test_messages_before_an_event_go(self) -> None:
        """Shows XC-4."""
        await self.start()
        await self.bob.join(self.room_id)
        sent = [await self.alice.send(self.room_id, f"number {n}") for n in range(10)]
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "after"})
        since = await self.bob.sync()
        await self.purge_all_before(sent[5])
        self.assertEqual(await self.texts(self.bob), [f"number {n}" for n in range(9, 4, -1)])
        for event_id in sent[:5]:
            answer = await self.bob.call("GET", f"/rooms/{q(self.room_id)}/event/{q(event_id)}")
            self.assert_error(answer, 404, "M_NOT_FOUND")
            answer = await self.bob.call("GET", f"/rooms/{q(self.room_id)}/context/{q(event_id)}")
            self.assert_error(answer, 404, "M_NOT_FOUND")
        messages = "SELECT COUNT(*) FROM events WHERE type = 'm.room.message'"
        self.assertEqual(await self.count(messages), 5)
        await self.check_room()
        last = await self.alice.send(self.room_id, "and on")
        news = (await self.bob.sync(since["next_batch"]))["rooms"]["join"][self.room_id]
        self.assertEqual([e["event_id"] for e in news["timeline"]["events"]], [last])
        self.assertFalse(news["timeline"]["limited"])
        state = {e["type"] for e in await self.get(self.bob, "state")}
        self.assertLessEqual({"m.room.create", "m.room.power_levels", "m.room.topic"}, state)

    async def test_a_client_that_was_away_starts_behind_the_purge(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        before = (await self.bob.sync())["next_batch"]
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "one"})
        sent = [await self.alice.send(self.room_id, f"number {n}") for n in range(4)]
        await self.purge_all_before(sent[2])
        section = (await self.bob.sync(before))["rooms"]["join"][self.room_id]
        timeline = section["timeline"]
        self.assertEqual([e["event_id"] for e in timeline["events"]], sent[2:])
        self.assertTrue(timeline["limited"])
        topics = [e["content"] for e in section["state"]["events"] if e["type"] == "m.room.topic"]
        self.assertEqual(topics, [{"topic": "one"}])
        page = await self.get(self.bob, "messages", dir="b", **{"from": timeline["prev_batch"]})
        self.assertEqual(page["chunk"], [])
        first = (await self.bob.sync())["rooms"]["join"][self.room_id]
        self.assertTrue(first["timeline"]["limited"])

    async def test_what_local_users_sent_is_kept_unless_asked_for(self) -> None:
        await self.start()
        sent = [await self.alice.send(self.room_id, f"number {n}") for n in range(4)]
        self.assertEqual(await self.purge(sent[2]), "complete")
        self.assertEqual(await self.texts(self.alice), ["number 3", "number 2"])
        messages = "SELECT COUNT(*) FROM events WHERE type = 'm.room.message'"
        self.assertEqual(await self.count(messages), 4)
        await self.check_room()
        await self.purge_all_before(sent[2])
        self.assertEqual(await self.count(messages), 2)

    async def test_the_last_events_stay(self) -> None:
        """A time in the future takes everything but the heads of the room."""
        await self.start()
        for n in range(3):
            await self.alice.send(self.room_id, f"number {n}")
        await self.purge("", purge_up_to_ts=2**53 - 1, delete_local_events=True)
        self.assertEqual(await self.texts(self.alice), ["number 2"])
        await self.check_room()
        await self.alice.send(self.room_id, "number 3")
        await self.bob.join(self.room_id)
        await self.bob.send(self.room_id, "number 4")
        self.assertEqual(await self.texts(self.bob), ["number 4", "number 3", "number 2"])

    async def test_up_to_a_time(self) -> None:
        await self.start()
        sent = [await self.alice.send(self.room_id, f"number {n}") for n in range(6)]
        for number, event_id in enumerate(sent):
            await self.db.write(_set_time, event_id, 10**13 + 1000 * number)
        await self.purge("", purge_up_to_ts=10**13 + 2500, delete_local_events=True)
        self.assertEqual(await self.texts(self.alice), ["number 5", "number 4", "number 3"])
        answer = await self.alice.call(
            "POST", f"{ADMIN}/purge_history/{q(self.room_id)}", {"purge_up_to_ts": 1}
        )
        self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        other = await self.alice.create_room()
        path = f"{ADMIN}/purge_history/{q(self.room_id)}"
        self.assert_error(await self.bob.call("POST", path, {}), 403, "M_FORBIDDEN")
        self.assert_error(await self.alice.call("POST", path, {}), 400, "M_MISSING_PARAM")
        body = {"purge_up_to_event_id": "$unknown"}
        self.assert_error(await self.alice.call("POST", path, body), 404, "M_NOT_FOUND")
        path = f"{ADMIN}/purge_history/{q(other)}/{q(event_id)}"
        self.assert_error(await self.alice.call("POST", path, {}), 400, "M_INVALID_PARAM")
        path = f"{ADMIN}/purge_history/{q('!unknown:hearth.test')}/{q(event_id)}"
        self.assert_error(await self.alice.call("POST", path, {}), 404, "M_NOT_FOUND")
        path = f"{ADMIN}/purge_history_status/nothing"
        self.assert_error(await self.alice.call("GET", path), 404, "M_NOT_FOUND")


class TestWhatHangsOnEvents(PurgeCase):
    async def test_unread_counts(self) -> None:
        """What is purged is not unread; what is left is, and what was read stays read."""
        await self.start()
        await self.bob.join(self.room_id)
        carol = await self.server.register("carol")
        await carol.join(self.room_id)
        read = await self.alice.send(self.room_id, "read")
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/receipt/m.read/{q(read)}", {})
        mention = {"m.mentions": {"user_ids": [self.bob.user_id]}}
        sent = [
            await self.alice.send(
                self.room_id, {"msgtype": "m.text", "body": f"number {n}", **mention}
            )
            for n in range(6)
        ]
        await carol.ok("POST", f"/rooms/{q(self.room_id)}/receipt/m.read/{q(sent[4])}", {})
        self.assertEqual((await self.unread(self.bob), await self.unread(carol)), (6, 1))
        await self.purge_all_before(sent[2])
        self.assertEqual((await self.unread(self.bob), await self.unread(carol)), (4, 1))
        self.assertEqual(await self.count("SELECT COUNT(*) FROM notify_marks"), 4)
        self.assertEqual(await self.count("SELECT COUNT(*) FROM receipts"), 1)
        await self.alice.send(self.room_id, "more")
        self.assertEqual((await self.unread(self.bob), await self.unread(carol)), (5, 2))
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/receipt/m.read/{q(sent[5])}", {})
        self.assertEqual(await self.unread(self.bob), 1)

    async def test_relations_threads_and_search(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        root = await self.alice.send(self.room_id, "the root")
        thread = {"rel_type": "m.thread", "event_id": root}
        reply = {"msgtype": "m.text", "body": "the reply", "m.relates_to": thread}
        await self.alice.send(self.room_id, reply)
        kept = await self.alice.send(self.room_id, "kept root")
        late = await self.bob.send(self.room_id, reply)
        self.assertEqual(len(await self.threads()), 1)
        found = await self.search("root")
        self.assertEqual(found, 2)
        await self.purge_all_before(kept)
        self.assertEqual(await self.threads(), [])
        self.assertEqual(await self.search("root"), 1)
        await self.event(self.bob, late)
        answer = await self.bob.call(
            "GET", f"/_matrix/client/v1/rooms/{q(self.room_id)}/relations/{q(root)}"
        )
        self.assertEqual(answer.status, 404)
        await self.check_room()

    async def threads(self) -> list[Any]:
        path = f"/_matrix/client/v1/rooms/{q(self.room_id)}/threads"
        found: list[Any] = (await self.alice.ok("GET", path))["chunk"]
        return found

    async def search(self, term: str) -> int:
        body = {"search_categories": {"room_events": {"search_term": term}}}
        answer = await self.alice.ok("POST", "/search", body)
        count: int = answer["search_categories"]["room_events"]["count"]
        return count

    async def test_who_left_sees_the_state_of_then(self) -> None:
        """Also if that was before the purge; nothing of what came later is shown."""
        await self.start()
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "old"})
        await self.bob.join(self.room_id)
        await self.bob.leave(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "secret"})
        await self.alice.send(self.room_id, "one")
        last = await self.alice.send(self.room_id, "two")
        await self.purge_all_before(last)
        state = await self.get(self.bob, "state")
        topics = [e["content"]["topic"] for e in state if e["type"] == "m.room.topic"]
        self.assertEqual(topics, ["old"])
        self.assertEqual((await self.get(self.bob, "messages", dir="b"))["chunk"], [])
        await self.check_room()

    async def test_positions_that_are_mixed(self) -> None:
        """Counts are right where a purged event came after one that stays."""
        await self.start()
        await self.bob.join(self.room_id)
        one = await self.alice.send(self.room_id, "one")
        two = await self.alice.send(self.room_id, "two")
        three = await self.alice.send(self.room_id, "three")

        def swap(txn: Transaction) -> None:
            # As if the first had come last, from another branch of the graph.
            sql = "SELECT pos FROM events WHERE event_id = ?"
            first, last = txn.value(sql, (one,)), txn.value(sql, (three,))
            middle = txn.value(sql, (two,))
            for event_id, pos in ((one, -10), (two, first), (three, middle), (one, last)):
                txn.execute("UPDATE events SET pos = NULL WHERE pos = ?", (pos,))
                txn.execute("UPDATE events SET pos = ? WHERE event_id = ?", (pos, event_id))
            base = txn.value("SELECT notify_total FROM rooms") - 3
            for number, event_id in enumerate((two, three, one), base + 1):
                sql = "UPDATE events SET notify_total = ? WHERE event_id = ?"
                txn.execute(sql, (number, event_id))

        await self.db.write(swap)
        await self.bob.ok("POST", f"/rooms/{q(self.room_id)}/receipt/m.read/{q(two)}", {})
        self.assertEqual(await self.unread(self.bob), 2)
        await self.purge_all_before(two)
        self.assertEqual(await self.unread(self.bob), 1)
        await self.check_room()

    async def test_redacted_events_stay_redacted(self) -> None:
        await self.start()
        sent = await self.alice.send(self.room_id, "oops")
        kept = await self.alice.send(self.room_id, "kept")
        await self.alice.ok("PUT", f"/rooms/{q(self.room_id)}/redact/{q(sent)}/t", {})
        await self.purge_all_before(kept)
        held = "SELECT COUNT(*) FROM pending_redactions WHERE redacts = ?"
        self.assertEqual(await self.count(held, sent), 1)
        last = await self.alice.send(self.room_id, "last")
        await self.purge_all_before(last)
        self.assertEqual(await self.count(held, sent), 0)


class TestInterrupted(PurgeCase):
    """What a killed process leaves is gone on with."""

    async def test_any_step_may_be_the_last_of_a_process(self) -> None:
        await self.start()
        self.patch(purge_module, "BATCH", 2)
        self.patch(purge_module, "LINKED", 5)
        sent = []
        for n in range(12):
            sent.append(await self.alice.send(self.room_id, f"number {n}"))
            await self.alice.set_state(self.room_id, "m.room.topic", {"topic": str(n)})
        services = self.server.homeserver.services
        purges, tasks = services[HistoryPurge], services[RoomTasks]
        begun: list[str] = []

        def begin(txn: Transaction) -> None:
            # Without the job, so that nobody else works on it.
            depth = purge_module._depth(txn, self.room_id, Point(sent[8]))
            wanted = {"depth": depth, "local": True}
            progress = {"phase": "events"}
            begun.append(room_tasks.add(txn, HistoryPurge.KIND, self.room_id, wanted, progress, 1))

        await self.db.write(begin)
        phases: list[str] = []
        while True:
            # Each step by a new object: all that it knows is in the database.
            fresh = HistoryPurge(
                self.db,
                RoomTasks(self.db, self.server.homeserver.feed, self.server.homeserver.reactor),
                StateCollection(self.db),
                self.server.homeserver.reactor,
                self.server.homeserver.config.server_name,
            )
            phase = await self.db.write(fresh._step, begun[0])
            if phase is None:
                break
            phases.append(phase)
            await self.alice.send(self.room_id, f"meanwhile in {phase}")
            await self.alice.set_state(self.room_id, "m.room.topic", {"topic": phase})
            await self.check_states()
            if phase == "states":
                await fresh._forget_states(self.room_id)
                await self.check_states()
                await fresh._forget_states(self.room_id)
                await self.db.write(fresh._pass, begun[0], "states", "nodes")
            elif phase == "nodes":
                await StateCollection(self.db).collect(self.room_id)
                await self.check_states()
                await self.db.write(fresh._pass, begun[0], "nodes", "leftovers")
        self.assertEqual(
            list(dict.fromkeys(phases)),
            ["events", "placeless", "links", "states", "nodes"],
        )
        self.assertGreater(phases.count("events"), 5)
        task = await tasks.get(HistoryPurge.KIND, begun[0])
        self.assertEqual(task.status if task else None, "complete")
        self.assertIsNone(await self.db.write(purges._step, begun[0]))
        await StateCollection(self.db).collect(self.room_id)
        self.assertNotIn("number 7", await self.texts(self.alice))
        self.assertIn("number 8", await self.texts(self.alice))
        await self.check_room()

    async def check_states(self) -> None:
        """Nothing that a state has is missing."""
        live, stored = await nodes(self.db, self.room_id)
        self.assertLessEqual(live, stored)
        await self.get(self.alice, "state")

    async def test_a_job_is_taken_over(self) -> None:
        """By the next process, after the first was stopped in the middle."""
        await self.start()
        self.patch(purge_module, "BATCH", 1)
        sent = [await self.alice.send(self.room_id, f"number {n}") for n in range(8)]
        path = f"{ADMIN}/purge_history/{q(self.room_id)}/{q(sent[6])}"
        purge_id = (await self.alice.ok("POST", path, {"delete_local_events": True}))["purge_id"]
        await self.server.restart()
        self.db = self.server.homeserver.db
        task = await self.server.homeserver.services[RoomTasks].over(purge_id)
        self.assertEqual(task.status if task else None, "complete")
        self.assertEqual(await self.texts(self.alice), ["number 7", "number 6"])
        await self.check_room()

    async def test_nodes_that_are_written_while_others_are_collected(self) -> None:
        """A part of a state that comes back after what is in use was looked for is kept."""
        await self.start()
        nid = await self.db.read(rooms.nid, self.room_id)
        assert nid is not None
        states = self.server.homeserver.services[StateStore]
        dead = {bytes([n]) * 16: b"dead" for n in (1, 2)}
        back = {bytes([1]) * 16: b"dead"}
        await self.db.write(states.save, nid, dead)
        _, since = await self.db.write(state_collection._begin, self.room_id)
        await self.db.write(states.save, nid, back)
        found = await self.db.read(state_nodes.older, nid, since, b"", 100)
        self.assertNotIn(bytes([1]) * 16, found)
        sweep = state_collection._sweep
        self.assertEqual(await self.db.write(sweep, self.room_id, nid, list(dead), since), 1)
        left = await self.db.read(state_nodes.load, nid, list(dead))
        self.assertEqual(left, back)


class TestAnyHistory(PurgeCase):
    async def test_random_rooms_and_points(self) -> None:
        """Whatever happened in a room and wherever it is purged, the rest works."""
        await self.start()
        choice = random.Random(12)
        await self.bob.join(self.room_id)
        sent: list[str] = []
        for _round in range(4):
            for n in range(15):
                sent.append(await self.something(choice, sent, n))
            point = choice.choice(sent[-12:])
            before = await self.texts(self.alice)
            status = await self.purge(point, delete_local_events=choice.random() < 0.7)
            self.assertEqual(status, "complete")
            after = await self.texts(self.alice)
            self.assertEqual(after, before[: len(after)])
            await self.check_room()
            initial = (await self.bob.sync())["rooms"]
            for section in [*initial.get("join", {}).values()]:
                self.assertIn(
                    "m.room.create",
                    [e["type"] for e in section["state"]["events"]]
                    + [e["type"] for e in section["timeline"]["events"]],
                )

    async def something(self, choice: random.Random, sent: list[str], n: int) -> str:
        """Have something happen in the room; the ID of its event."""
        kind = choice.randrange(6)
        if kind == 0:
            return await self.alice.set_state(
                self.room_id, "m.room.topic", {"topic": str(choice.random())}
            )
        if kind == 1 and sent:
            relation = {"rel_type": "m.annotation", "event_id": sent[-1], "key": str(n)}
            answer = await self.bob.call(
                "PUT",
                f"/rooms/{q(self.room_id)}/send/m.reaction/r{len(sent)}",
                {"m.relates_to": relation},
            )
            if answer.status == 200:
                return str(answer.body["event_id"])
        if kind == 2 and sent:
            path = f"/rooms/{q(self.room_id)}/redact/{q(choice.choice(sent[-5:]))}/d{len(sent)}"
            answer = await self.alice.call("PUT", path, {})
            if answer.status == 200:
                return str(answer.body["event_id"])
        if kind == 3:
            await self.bob.call("POST", f"/rooms/{q(self.room_id)}/leave", {})
            await self.bob.join(self.room_id)
        return await self.alice.send(self.room_id, f"text {choice.random()}")
