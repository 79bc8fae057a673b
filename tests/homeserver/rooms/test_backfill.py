"""Tests of history that is got from other servers when somebody reads as far as a gap."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from federation.client.errors import BadAnswer
from federation.client.events import StateIds, TimedEvent
from federation.client.keyring import Pauses
from federation.client.pdus import PduChecker
from homeserver.core.event import Event
from homeserver.core.tokens import SyncToken
from homeserver.rooms import timeline
from homeserver.rooms.backfill import Backfill
from storage import destinations
from storage.destinations import DestinationRow
from storage.state import StateStore
from tests.support.events import test_key
from tests.support.history import BOB, OTHER, PEER, HistoryCase, Keys, reactor
from tests.support.peer_room import PeerRoom
from tests.support.server import SERVER_NAME


class BackfillCase(HistoryCase):
    async def with_history(self, number: int, *more: Any) -> list[Event]:
        """Messages that were sent before Alice joined."""
        told: list[Event] = []

        def before(room: PeerRoom) -> None:
            told.extend(room.message(BOB, f"old {n}") for n in range(number))

        await self.start(before)
        return told

    def newest_first(self) -> list[str]:
        """The IDs of all events of the room's graph."""
        return list(self.room.states)[::-1]

    async def everything(self, limit: int = 10, **query: Any) -> list[str]:
        """The event IDs of all pages, from the newest."""
        found: list[str] = []
        options = query
        for _ in range(100):
            page = await self.page(limit=limit, **options)
            found += [event["event_id"] for event in page["chunk"]]
            if "end" not in page:
                return found
            options = {**query, "from": page["end"]}
        raise AssertionError("the pages never end")


class Paging(BackfillCase):
    async def test_beyond_what_is_here(self) -> None:
        """Paging goes back to the room's beginning; each gap is asked for once. Shows BF-8."""
        await self.with_history(30)
        self.assertEqual(len(await self.gaps()), 1)
        found = await self.everything()
        self.assertEqual(found, self.newest_first())
        self.assertEqual(await self.gaps(), [])
        self.assertEqual(self.source.count("backfill"), 1)
        server, _, (names, limit) = self.source.asked[0]
        self.assertEqual(server, PEER)
        self.assertEqual(tuple(names), self.join_event.prev_event_ids)
        self.assertGreaterEqual(limit, 30)

    async def test_a_gap_that_moves(self) -> None:
        """A long history is got piece by piece, as it is read. Shows BF-8."""
        await self.with_history(230)
        page = await self.page(limit=20)
        self.assertEqual(len(page["chunk"]), 20)
        self.assertEqual(self.source.count("backfill"), 1)
        self.assertEqual(len(await self.gaps()), 1)
        found = await self.everything(limit=50)
        self.assertEqual(found, self.newest_first())
        self.assertEqual(self.source.count("backfill"), 3)
        self.assertEqual(await self.gaps(), [])

    async def test_more_than_one_answer_for_a_page(self) -> None:
        """A page that is larger than an answer takes several. Shows BF-8."""
        told = await self.with_history(150)
        page = await self.page(limit=140)
        self.assertEqual(len(page["chunk"]), 140)
        self.assertEqual(page["chunk"][139]["event_id"], told[-139].event_id)
        self.assertEqual(self.source.count("backfill"), 2)

    async def test_the_next_server(self) -> None:
        """If the first server fails, the next one is asked. Shows BF-8."""
        told = await self.with_history(5)
        self.source.away = {PEER}
        found = await self.everything()
        self.assertIn(told[0].event_id, found)
        self.assertEqual(
            [(s, n) for s, n, _ in self.source.asked[:2]],
            [(PEER, "backfill"), (OTHER, "backfill")],
        )

    async def test_servers_that_were_there(self) -> None:
        """Servers that joined after the gap are asked last, however many users they have.
        Shows BF-8."""
        await self.with_history(5)
        late = "late.example"
        for number in range(3):
            event = self.member(f"@u{number}:{late}", test_key(late), late)
            judged = await self.receiver.add(self.room_id, [event])
            self.assertTrue(judged[event.event_id].accepted)
        for server in (PEER, OTHER, late):
            self.source.on[server, "backfill"] = lambda *_: []
        await self.page()
        asked = [server for server, name, _ in self.source.asked if name == "backfill"]
        self.assertEqual(asked, [PEER, OTHER, late])

    async def test_servers_that_are_down(self) -> None:
        """Servers that could not be reached lately are asked last. Shows BF-8."""
        told = await self.with_history(5)
        row = DestinationRow(PEER, 0, 0, failing_since=1, retry_at=2, retry_interval=1)
        await self.db.write(destinations.put, [row])
        self.assertIn(told[0].event_id, await self.everything())
        self.assertEqual(self.source.asked[0][:2], (OTHER, "backfill"))

    async def test_rejected_events_hide_nothing(self) -> None:
        """History before an event that is rejected is got as well. Shows BF-8."""

        def before(room: PeerRoom) -> None:
            for number in range(150):
                # By somebody who is not in the room: rejected, also where an answer ends.
                sender = f"@nobody:{PEER}" if number in (50, 70) else BOB
                room.message(sender, f"old {number}")

        await self.start(before)
        found = await self.everything(limit=50)
        self.assertIn(self.room.state["m.room.create", ""], found)
        self.assertEqual(len(found), len(self.room.states) - 2)

    async def test_from_a_token_of_sync(self) -> None:
        """A gap right before an event is found from a token of /sync before it. Shows BF-8."""
        told = await self.with_history(5)
        row = await self.row(self.join_event)
        assert row is not None and row.pos is not None
        token = str(SyncToken(row.pos - 1, 0))
        page = await self.page(**{"from": token})
        self.assertEqual(page["chunk"][0]["event_id"], told[-1].event_id)

    async def test_nobody_is_told(self) -> None:
        """What is fetched is no news to /sync, and counts as unread nowhere. Shows BF-9."""
        await self.with_history(5)
        first = await self.alice.sync()
        await self.everything()
        second = await self.alice.sync(first["next_batch"])
        self.assertNotIn("join", second.get("rooms", {}))
        room = (await self.alice.sync())["rooms"]["join"][self.room_id]
        self.assertEqual(room["unread_notifications"]["notification_count"], 0)

    async def test_visibility(self) -> None:
        """History that is shown to members of the time only is fetched, but not shown to those
        who came later. Shows BF-8."""
        hidden: list[Event] = []

        def before(room: PeerRoom) -> None:
            room.message(BOB, "shown")
            visibility = {"history_visibility": "joined"}
            room.grow("m.room.history_visibility", visibility, BOB, "")
            hidden.extend(room.message(BOB, "hidden") for _ in range(3))

        await self.start(before)
        found = await self.everything()
        self.assertIsNotNone(await self.row(hidden[0]))
        self.assertFalse({event.event_id for event in hidden} & set(found))
        self.assertIn(self.room.state["m.room.create", ""], found)

    async def test_a_filter(self) -> None:
        """Pages of which a filter leaves little are got as well."""
        await self.with_history(20)
        found = await self.everything(filter='{"types": ["m.room.create"]}')
        self.assertEqual(found, [self.room.state["m.room.create", ""]])

    async def test_around_an_event(self) -> None:
        """The surroundings of an event are got too. Shows BF-8."""
        told = await self.with_history(8)
        path = f"/rooms/{self.room_id}/context/{self.join_event.event_id}"
        answer = await self.alice.ok("GET", path, query={"limit": 6})
        self.assertEqual(
            [event["event_id"] for event in answer["events_before"]],
            [event.event_id for event in reversed(told[-3:])],
        )


class Unfilled(BackfillCase):
    async def test_not_on_every_page(self) -> None:
        """A gap that nobody fills is left alone for a while, and can be tried again later from
        the page's end. Shows BF-8."""
        await self.with_history(5)
        self.source.away = {PEER, OTHER}
        page = await self.page()
        self.assertEqual(len(page["chunk"]), 1)
        self.assertEqual(self.source.count("backfill"), 2)
        self.assertEqual(len((await self.page())["chunk"]), 1)
        self.assertEqual(self.source.count("backfill"), 2)
        empty = await self.page(**{"from": page["end"]})
        self.assertEqual((empty["chunk"], "end" in empty), ([], False))

    async def test_again_later(self) -> None:
        """After the pause the servers are asked again, from where the page ended. Shows BF-8."""
        self.patch(Pauses, "AFTER_FAILURE", 0)
        told = await self.with_history(5)
        self.source.away = {PEER, OTHER}
        page = await self.page()
        self.source.away = set()
        page = await self.page(**{"from": page["end"]})
        self.assertEqual(page["chunk"][0]["event_id"], told[-1].event_id)

    async def test_a_slow_server(self) -> None:
        """A page waits for others for a bounded time; what they say then is on the next one.
        Shows BF-8."""
        self.patch(timeline, "FILL_S", 0.05)
        told = await self.with_history(5)
        slow: Deferred[Any] = Deferred()
        self.source.on[PEER, "backfill"] = lambda *_: slow
        page = await self.page()
        self.assertEqual(len(page["chunk"]), 1)
        self.assertIn("end", page)
        self.patch(timeline, "FILL_S", 20.0)
        second = ensureDeferred(self.page(**{"from": page["end"]}))
        slow.callback([event.pdu for event in self.room.history([told[-1].event_id], 100)])
        page = await second
        self.assertEqual(page["chunk"][0]["event_id"], told[-1].event_id)
        self.assertEqual(self.source.count("backfill"), 1)

    async def test_one_request_for_all(self) -> None:
        """Readers of the same room wait for one request. Shows BF-8."""
        told = await self.with_history(5)
        slow: Deferred[Any] = Deferred()
        asked: Deferred[None] = Deferred()

        def backfill(*_: Any) -> Deferred[Any]:
            asked.callback(None)
            return slow

        self.source.on[PEER, "backfill"] = backfill
        reading = [ensureDeferred(self.page()) for _ in range(5)]
        await asked
        slow.callback([event.pdu for event in self.room.history([told[-1].event_id], 100)])
        pages: list[Any] = await gatherResults(reading)
        self.assertEqual([len(page["chunk"]) for page in pages], [10] * 5)
        self.assertEqual(self.source.count("backfill"), 1)

    async def test_another_process_is_quicker(self) -> None:
        """What another process of this server got meanwhile is read, and no failure. Shows
        BF-8."""
        told = await self.with_history(5)
        states = self.server.homeserver.services[StateStore]
        other = Backfill(self.db, states, self.fetcher, self.receiver, reactor, SERVER_NAME)
        self.addCleanup(other.stop)
        holes = await self.gaps()
        quicker: list[bool] = []

        async def backfill() -> Any:
            # The other process asks while this one waits for its answer.
            if self.source.count("backfill") == 1:
                quicker.append(await other.fill(self.room_id, holes))
            return [event.pdu for event in self.room.history([told[-1].event_id], 100)]

        self.source.on[PEER, "backfill"] = lambda *_: ensureDeferred(backfill())
        page = await self.page()
        self.assertEqual(quicker, [True])
        self.assertEqual(len(page["chunk"]), 10)
        self.assertEqual(self.source.count("backfill", OTHER), 0)


class HostileHistory(BackfillCase):
    async def unharmed(self, *strange: Event) -> None:
        """The other server is asked, and its history is shown."""
        current = await self.current()
        found = await self.everything()
        self.assertEqual(self.source.count("backfill", PEER), 1)
        self.assertEqual(self.source.count("backfill", OTHER), 1)
        self.assertEqual(found, self.newest_first())
        self.assertEqual(await self.current(), current)
        for event in strange:
            self.assertIsNone(await self.row(event))

    async def test_rubbish(self) -> None:
        """Answers that are no history of this room change nothing."""
        for rubbish in ([], [None, 1, "x", {}, {"type": "m.room.message"}]):
            await self.with_history(3)
            answer: list[Any] = rubbish
            self.source.on[PEER, "backfill"] = lambda *_, answer=answer: answer
            await self.unharmed()

    async def test_a_bad_answer(self) -> None:
        """So does an answer that is none."""
        await self.with_history(3)
        self.source.on[PEER, "backfill"] = BadAnswer(PEER, "rubbish")
        await self.unharmed()

    async def test_other_events(self) -> None:
        """Events that do not come before the gap are not taken. Shows BF-10."""
        await self.with_history(3)
        other = PeerRoom.created(PEER, test_key(PEER), "10", BOB)
        aside = self.room.make("m.room.message", {"body": "aside"}, BOB, prev=[self.join_event])
        strange = [*other.events.values(), aside]
        self.source.on[PEER, "backfill"] = lambda *_: [event.pdu for event in strange]
        await self.unharmed(*strange)

    async def test_predecessors_of_another_room(self) -> None:
        """An event that comes after one of another room is refused: nobody pages from one room
        into the other. Shows BF-10."""
        await self.start()
        first_room, secret = self.room_id, self.messages(1)[0]
        judged = await self.receiver.add(first_room, [secret])
        self.assertTrue(judged[secret.event_id].accepted)
        bad_room = PeerRoom.created(PEER, test_key(PEER), "10", BOB)
        bad = bad_room.make(
            "m.room.message", {"body": "bad"}, BOB, prev=[secret], state=bad_room.state, depth=9
        )
        bad_room.events[bad.event_id] = bad
        state = [bad_room.events[name] for name in bad_room.state.values()]
        join = bad_room.make(
            "m.room.member", {"membership": "join"}, self.alice.user_id, self.alice.user_id,
            prev=[bad], state=bad_room.state, depth=10,
            key=test_key("hearth.test"), signer="hearth.test",
        )  # fmt: skip
        await self.receiver.adopt(join, bad_room.version, state, state, servers=[PEER])
        self.room, self.room_id = bad_room, bad_room.room_id
        self.source.room = bad_room
        self.source.on[PEER, "backfill"] = lambda *_: [bad.pdu, secret.pdu]
        page = await self.page()
        self.assertEqual([event["event_id"] for event in page["chunk"]], [join.event_id])
        self.assertIsNone(await self.row(bad))

    async def test_bad_json_for_the_version(self) -> None:
        """An event with a number that its version forbids is dropped alone. Shows RECV-12."""
        told = await self.with_history(4)
        pdus = [event.pdu for event in self.room.history([told[-1].event_id], 100)]
        pdus[2] = {**pdus[2], "content": {"body": "old 1", "number": 1.5}}
        self.source.on[PEER, "backfill"] = lambda *_: pdus
        page = await self.page()
        shown = [event["event_id"] for event in page["chunk"]]
        self.assertIn(told[3].event_id, shown)
        self.assertIn(told[2].event_id, shown)
        row = await self.row(told[1])
        if row is not None:
            self.assertNotIn("1.5", row.json)

    async def test_events_with_many_predecessors(self) -> None:
        """Old events may name more than twenty; new ones that come with transactions may not."""

        def before(room: PeerRoom) -> None:
            place = list(room.heads)
            branches = [room.message(BOB, f"branch {n}", prev=place) for n in range(25)]
            self.merge = room.message(BOB, "merge", prev=branches)

        await self.start(before)
        self.assertEqual(len(self.merge.prev_event_ids), 25)
        found = await self.everything()
        self.assertIn(self.merge.event_id, found)
        self.assertEqual(set(found), set(self.room.states))
        checker = PduChecker(Keys(), reactor)
        [new] = await checker.check([self.merge.pdu], self.room.version)
        self.assertIsNone(new.event)

    async def test_a_false_state(self) -> None:
        """History before which nobody tells a sound state is not taken."""
        told = await self.with_history(150)
        for server in (PEER, OTHER):
            self.source.on[server, "state_ids"] = lambda event_id: StateIds((), ())
        page = await self.page()
        self.assertEqual(len(page["chunk"]), 1)
        self.assertIsNone(await self.row(told[-1]))


class ByTime(BackfillCase):
    async def nearest(self, ts: int, direction: str) -> Any:
        path = f"/_matrix/client/v1/rooms/{self.room_id}/timestamp_to_event"
        return await self.alice.call("GET", path, query={"ts": ts, "dir": direction})

    async def with_times(self) -> list[Event]:
        """Ten messages, 1000 s apart, long before Alice joined."""
        told: list[Event] = []

        def before(room: PeerRoom) -> None:
            told.extend(
                room.message(BOB, f"old {n}", ts=1_600_000_000_000 + n * 1_000_000)
                for n in range(10)
            )

        await self.start(before)
        return told

    async def test_from_others(self) -> None:
        """Where history is missing, others are asked, and what they name is fetched; paging goes
        on from there. Shows BF-11."""
        told = await self.with_times()
        for direction, index in (("f", 4), ("b", 3)):
            status, found = await self.nearest(told[3].origin_server_ts + 5, direction)
            self.assertEqual((status, found["event_id"]), (200, told[index].event_id), direction)
            self.assertEqual(found["origin_server_ts"], told[index].origin_server_ts)
        path = f"/rooms/{self.room_id}/context/{told[4].event_id}"
        answer = await self.alice.ok("GET", path, query={"limit": 2})
        self.assertEqual(answer["event"]["content"]["body"], "old 4")
        self.assertEqual(answer["events_before"][0]["event_id"], told[3].event_id)

    async def test_nothing_is_missing(self) -> None:
        """Where no history is missing, nobody is asked. Shows BF-11."""
        told = await self.with_times()
        await self.everything()
        self.source.asked.clear()
        status, found = await self.nearest(told[3].origin_server_ts + 5, "f")
        self.assertEqual((status, found["event_id"]), (200, told[4].event_id))
        self.assertEqual(self.source.asked, [])

    async def test_lies(self) -> None:
        """An event that is on the other side, has another time, or does not exist is not taken;
        the next server is asked. Shows BF-11."""
        told = await self.with_times()
        ts = told[3].origin_server_ts + 5
        for number, lie in enumerate(
            (
                TimedEvent(told[2].event_id, told[2].origin_server_ts),
                TimedEvent(told[2].event_id, ts + 1),
                TimedEvent("$nowhere", ts + 1),
            )
        ):
            self.source.asked.clear()
            self.source.on[PEER, "timestamp"] = lambda *_, lie=lie: lie
            self.source.on[OTHER, "timestamp"] = lambda *_: None
            status, found = await self.nearest(ts + number, "f")
            self.assertEqual((status, found["event_id"]), (200, self.join_event.event_id))
            self.assertEqual(self.source.count("timestamp"), 2)
            self.assertIsNone(await self.row(told[2]))

    async def test_nobody_answers(self) -> None:
        """What is here is the answer then, or that there is nothing. Shows BF-11."""
        told = await self.with_times()
        self.source.away = {PEER, OTHER}
        status, found = await self.nearest(told[0].origin_server_ts, "f")
        self.assertEqual((status, found["event_id"]), (200, self.join_event.event_id))
        status, found = await self.nearest(told[0].origin_server_ts, "b")
        self.assertEqual((status, found["errcode"]), (404, "M_NOT_FOUND"))

    async def test_events_that_are_on_their_way(self) -> None:
        """What comes after the room's head is for the timeline, not for the history."""
        await self.with_times()
        topic = self.room.grow("m.room.topic", {"topic": "new"}, BOB, "")
        message = self.room.message(BOB)
        for event, direction in ((topic, "f"), (message, "f"), (message, "b")):
            ts = event.origin_server_ts + (1 if direction == "b" else -1)
            self.source.on[PEER, "timestamp"] = lambda *_, event=event: TimedEvent(
                event.event_id, event.origin_server_ts
            )
            await self.nearest(ts, direction)
            self.assertIsNone(await self.row(event))
        self.assertGreater(self.source.count("timestamp"), 0)
        judged = await self.receiver.add(self.room_id, [topic, message])
        self.assertTrue(all((item.pos or 0) > 0 for item in judged.values()))
        state = await self.alice.ok("GET", f"/rooms/{self.room_id}/state/m.room.topic")
        self.assertEqual(state["topic"], "new")
