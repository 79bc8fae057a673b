"""Tests of events that arrive before what they come after, with honest and hostile servers."""

from __future__ import annotations

from typing import Any

import structlog
from msgspec import Raw
from twisted.internet.task import Clock

from federation.client.errors import BadAnswer, RemoteTimeout
from federation.client.events import StateIds, StatePdus
from federation.client.pdus import PduChecker
from homeserver.core.event import Event
from homeserver.rooms import fetch, missing
from homeserver.rooms.fetch import Fetcher
from homeserver.rooms.judged import NOT_ADDED, Judged
from storage.events import ACCEPTED, REJECTED
from tests.support.events import test_key
from tests.support.history import BOB, CAROL, OTHER, PEER, HistoryCase, Keys, reactor
from tests.support.peer_room import PeerRoom


class MissingCase(HistoryCase):
    async def receive(self, *events: Event, origin: str = PEER) -> Judged:
        """What became of the last of the events."""
        judged = await self.missing.receive(origin, self.room_id, self.room.version, events)
        self.assertEqual(set(judged), {event.event_id for event in events})
        return judged[events[-1].event_id]

    async def shown(self, event: Event) -> bool:
        """Whether Alice can fetch an event."""
        path = f"/rooms/{self.room_id}/event/{event.event_id}"
        status, _ = await self.alice.call("GET", path)
        self.assertIn(status, (200, 404))
        return status == 200


class FillingGaps(MissingCase):
    async def test_nothing_is_missing(self) -> None:
        """Nobody is asked about an event that stands on what is here."""
        await self.start()
        (message,) = self.messages(1)
        self.assertEqual((await self.receive(message)).status, ACCEPTED)
        self.assertEqual(self.source.asked, [])

    async def test_missing_events(self) -> None:
        """What lies between is asked for and takes its place. Shows RECV-8."""
        await self.start()
        *between, last = self.messages(15)
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        server, name, (earliest, latest, limit, min_depth) = self.source.asked[0]
        self.assertEqual((server, name), (PEER, "missing"))
        self.assertEqual(earliest, (self.join_event.event_id,))
        self.assertEqual(latest, (last.event_id,))
        self.assertGreaterEqual(limit, 10)
        self.assertLessEqual(min_depth, self.join_event.depth)
        self.assertEqual(len(self.source.asked), 1)
        self.assertEqual(await self.extremities(), {last.event_id})
        for event in between:
            self.assertTrue(await self.shown(event))

    async def test_page_after_page(self) -> None:
        """A longer gap is filled with several requests. Shows RECV-8."""
        await self.start()
        *between, last = self.messages(3 * missing.PAGE)
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("missing"), 3)
        self.assertEqual(self.source.count("state_ids"), 0)
        self.assertTrue(await self.shown(between[0]))
        before = [gap for gap in await self.gaps() if gap.depth > self.join_event.depth]
        self.assertEqual(before, [])

    async def test_a_gap_too_long(self) -> None:
        """Where asking has to end, the room goes on from the state there, and the gap is noted;
        state that was only fetched is no part of the timeline. Shows RECV-8, RECV-10."""
        self.patch(missing, "ROUNDS", 2)
        await self.start()
        topic = self.room.grow("m.room.topic", {"topic": "new"}, BOB, "")
        *between, last = self.messages(60)
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("missing"), 2)
        self.assertEqual(self.source.count("state_ids"), 1)
        self.assertEqual((await self.current())[("m.room.topic", "")], topic.event_id)
        row = await self.row(topic)
        assert row is not None
        self.assertIsNone(row.pos)
        self.assertFalse(await self.shown(topic))
        self.assertFalse(await self.shown(between[0]))
        self.assertTrue(await self.shown(between[-1]))
        oldest = between[-2 * missing.PAGE]
        self.assertIn((oldest.prev_event_ids[0], oldest.event_id, oldest.depth), await self.gaps())

    async def test_many_events_of_the_state(self) -> None:
        """Of a state that is mostly unknown all is asked for at once. Shows RECV-8."""
        await self.start()
        for number in range(40):
            self.member(f"@u{number}:{PEER}", test_key(PEER), PEER)
        (last,) = self.messages(1)
        self.source.on[PEER, "missing"] = lambda *_: []
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("state"), 1)
        self.assertEqual(self.source.count("event"), 0)
        self.assertIn(("m.room.member", f"@u39:{PEER}"), await self.current())

    async def test_a_state_that_is_no_json(self) -> None:
        """What one event makes unreadable counts for nothing: the next server is asked."""
        await self.start()
        for number in range(40):
            self.member(f"@u{number}:{PEER}", test_key(PEER), PEER)
        (last,) = self.messages(1)
        self.source.on[PEER, "missing"] = lambda *_: []
        unreadable = Raw(b'{"sender":"\xff"}')
        honest = self.source.state_of(last.event_id)
        assert honest is not None
        texts = [*(Raw(event.to_json()) for event in honest), unreadable]
        self.source.on[PEER, "state"] = lambda *_: StatePdus(texts, [])
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("state"), 1)
        # Each was asked for singly.
        self.assertGreaterEqual(self.source.count("event"), 40)
        self.assertIn(("m.room.member", f"@u39:{PEER}"), await self.current())

    async def test_a_state_as_text(self) -> None:
        await self.start()
        for number in range(40):
            self.member(f"@u{number}:{PEER}", test_key(PEER), PEER)
        (last,) = self.messages(1)
        self.source.on[PEER, "missing"] = lambda *_: []
        honest = self.source.state_of(last.event_id)
        assert honest is not None
        texts = [Raw(event.to_json()) for event in honest]
        self.source.on[PEER, "state"] = lambda *_: StatePdus(texts, [])
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("event"), 0)
        self.assertIn(("m.room.member", f"@u39:{PEER}"), await self.current())

    async def test_partly_known(self) -> None:
        """Of an event on two branches the unknown one is fetched with its state: what is known
        here counts too. Shows RECV-8."""
        await self.start()
        (known,) = self.messages(1)
        self.assertEqual((await self.receive(known)).status, ACCEPTED)
        topic = self.room.grow("m.room.topic", {"topic": "here"}, BOB, "", prev=[known])
        self.assertEqual((await self.receive(topic)).status, ACCEPTED)
        self.room.states["$far"] = dict(self.room.states[known.event_id])
        side = self.room.message(BOB, "side", prev=["$far"], depth=topic.depth)
        both = self.room.message(BOB, "both", prev=[topic, side], depth=topic.depth + 1)
        self.source.on[PEER, "missing"] = lambda *_: []
        self.assertEqual((await self.receive(both)).status, ACCEPTED)
        self.assertEqual((await self.current())[("m.room.topic", "")], topic.event_id)
        self.assertTrue(await self.shown(side))
        self.assertEqual((self.source.count("event"), self.source.count("state_ids")), (1, 1))
        self.assertIn(("$far", side.event_id, side.depth), await self.gaps())

    async def test_from_other_servers(self) -> None:
        """What the sending server does not tell, others of the room are asked. Shows RECV-8."""
        await self.start()
        topic = self.room.grow("m.room.topic", {"topic": "new"}, BOB, "")
        *_, last = self.messages(2)
        for name in ("missing", "state_ids", "state", "event", "event_auth"):
            self.source.on[PEER, name] = RemoteTimeout(PEER, "no answer")
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("state_ids", OTHER), 1)
        self.assertEqual((await self.current())[("m.room.topic", "")], topic.event_id)

    async def test_judged_again(self) -> None:
        """What could not be judged for want of others is accepted once they are there.
        Shows RECV-9."""
        await self.start()
        topic = self.room.grow("m.room.topic", {"topic": "new"}, BOB, "")
        *_, last = self.messages(2)
        self.source.away = {PEER, OTHER}
        judged = await self.receive(last)
        self.assertEqual(judged.status, NOT_ADDED)
        self.assertIn("predecessors are missing", judged.reason or "")
        self.assertIsNone(await self.row(last))
        self.source.away = set()
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual((await self.current())[("m.room.topic", "")], topic.event_id)


class HostileAnswers(MissingCase):
    async def unharmed(self, last: Event) -> None:
        """The event is received all the same, from the state before it."""
        before = await self.current()
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(await self.current(), before)
        self.assertEqual(await self.extremities(), {self.join_event.event_id, last.event_id})

    async def test_rubbish(self) -> None:
        """Rubbish instead of missing events is dropped, and one line of the log says who sent
        it. Shows RECV-8."""
        await self.start()
        *_, last = self.messages(3)
        rubbish: list[Any] = [None, 1, "x", [], {}, {"type": "m.room.message"}, {"event_id": "$x"}]
        self.source.on[PEER, "missing"] = lambda *_: rubbish
        with structlog.testing.capture_logs() as lines:
            await self.unharmed(last)
        (line,) = [line for line in lines if line["event"] == "missing events looked for"]
        self.assertEqual((line["origin"], line["room_id"]), (PEER, self.room_id))
        self.assertEqual((line["refused"], line["not_added"]), (len(rubbish), 0))

    async def test_another_history(self) -> None:
        """Sound events that lie on no way to those asked for are not taken. Shows RECV-8."""
        await self.start()
        elsewhere = [self.room.message(BOB, "rewritten", prev=[self.join_event])]
        for _ in range(5):
            elsewhere.append(self.room.message(BOB, "rewritten", prev=[elsewhere[-1]]))
        self.room.heads = [self.join_event.event_id]
        *_, last = self.messages(3)
        self.source.on[PEER, "missing"] = lambda *_: [event.pdu for event in elsewhere]
        await self.unharmed(last)
        for event in elsewhere:
            self.assertIsNone(await self.row(event))

    async def test_forged(self) -> None:
        """Events that their senders did not sign are dropped, wherever they come from."""
        await self.start()
        forged = self.room.grow(
            "m.room.message", {"body": "forged"}, CAROL, key=test_key(PEER), signer=PEER
        )
        (last,) = self.messages(1)
        await self.unharmed(last)
        self.assertEqual(self.source.count("missing"), 1)
        self.assertIsNone(await self.row(forged))

    async def test_bad_json_for_the_version(self) -> None:
        """An event with a number that its version forbids is dropped alone, the others of the
        answer are used. Shows RECV-12."""
        await self.start()
        bad = self.room.make("m.room.message", {"body": "bad"}, BOB)
        pdu = {**bad.pdu, "content": {"body": "bad", "number": 1.5}}
        self.room.add(bad)
        *good, last = self.messages(3)
        answer = [pdu, *(event.pdu for event in good)]
        self.source.on[PEER, "missing"] = lambda *_: answer
        self.source.on[PEER, "event"] = lambda event_id: pdu
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertIsNone(await self.row(bad))
        for event in good:
            self.assertTrue(await self.shown(event))

    async def test_events_of_other_rooms(self) -> None:
        """Events of another room are dropped. Shows RECV-8."""
        await self.start()
        other = PeerRoom.created(PEER, test_key(PEER), "10", BOB)
        *_, last = self.messages(2)
        self.source.on[PEER, "missing"] = lambda *_: [e.pdu for e in other.events.values()]
        await self.unharmed(last)
        for event in other.events.values():
            self.assertIsNone(await self.row(event))

    async def test_a_history_without_end(self) -> None:
        """A peer that always has more is not asked for ever, and little is kept. Shows RECV-8."""
        await self.start()
        self.messages(600)
        (last,) = self.messages(1)
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("missing"), missing.ROUNDS)
        count = await self.db.read(lambda txn: txn.value("SELECT COUNT(*) FROM events"))
        self.assertLess(count, missing.MAX_COLLECTED)

    async def test_a_slow_peer(self) -> None:
        """One that takes minutes for each answer is given up; the event waits."""
        await self.start()
        clock = Clock()
        fetcher = Fetcher(
            self.db, self.source, PduChecker(Keys(), reactor), self.receiver, clock, "hearth.test"
        )
        *_, last = self.messages(400)
        honest = self.room.missing

        def slowly(earliest: Any, latest: Any, limit: int, depth: int) -> Any:
            clock.advance(fetch.ERRAND_S / 3)
            return [event.pdu for event in honest(earliest, latest, limit)]

        self.source.on[PEER, "missing"] = slowly
        slow = missing.MissingEvents(self.db, fetcher, self.receiver)
        judged = await slow.receive(PEER, self.room_id, self.room.version, [last])
        self.assertEqual(judged[last.event_id].status, NOT_ADDED)
        self.assertIn("gave up", judged[last.event_id].reason or "")
        self.assertEqual(len(self.source.asked), 3)

    async def test_the_same_again(self) -> None:
        """A peer that repeats itself is asked once more at most."""
        await self.start()
        *_, middle, last = self.messages(5)
        self.source.on[PEER, "missing"] = lambda *_: [middle.pdu]
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        self.assertEqual(self.source.count("missing"), 2)

    async def test_states_that_lack_something(self) -> None:
        """A state without create event, power levels or the sender is refused, and another server
        is asked. Shows RECV-8."""
        await self.start()
        for lacking in ("m.room.create", "m.room.power_levels", "m.room.member"):
            topic = self.room.grow("m.room.topic", {"topic": lacking}, BOB, "")
            (last,) = self.messages(1)
            self.source.asked.clear()
            self.source.on[PEER, "missing"] = lambda *_: []
            self.source.on[PEER, "state_ids"] = lambda event_id, lacking=lacking: (
                self.source.state_ids(event_id, without=[lacking])
            )
            self.assertEqual((await self.receive(last)).status, ACCEPTED, lacking)
            self.assertEqual(self.source.count("state_ids", OTHER), 1)
            self.assertEqual((await self.current())[("m.room.topic", "")], topic.event_id)

    async def test_nobody_tells_the_state(self) -> None:
        """If all states are refused, the event waits and the room stays as it is. Shows RECV-8."""
        await self.start()
        before = await self.current()
        *_, last = self.messages(2)
        self.source.on[PEER, "missing"] = BadAnswer(PEER, "rubbish")
        for server in (PEER, OTHER):
            self.source.on[server, "state_ids"] = lambda event_id: StateIds((), ())
        judged = await self.receive(last)
        self.assertEqual(judged.status, NOT_ADDED)
        self.assertIn("rubbish", judged.reason or "")
        self.assertEqual(await self.current(), before)
        self.assertEqual(await self.extremities(), {self.join_event.event_id})

    async def test_a_state_of_another_room(self) -> None:
        """The state of another room is no state of this one."""
        await self.start()
        other = PeerRoom.created(PEER, test_key(PEER), "10", BOB)
        names = tuple(other.state.values())
        *_, last = self.messages(2)
        self.source.on[PEER, "missing"] = lambda *_: []
        self.source.on[PEER, "state_ids"] = lambda event_id: StateIds(names, ())
        self.source.on[PEER, "event"] = lambda event_id: (
            other.events[event_id].pdu if event_id in other.events else None
        )
        await self.unharmed(last)


class AuthEvents(MissingCase):
    def levels(self, number: int, prev: Event) -> list[Event]:
        """Power levels, each authorised by the one before, on a branch of their own."""
        chain: list[Event] = []
        state = dict(self.room.states[prev.event_id])
        key = ("m.room.power_levels", "")
        content = dict(self.room.events[state[key]].content)
        for n in range(number):
            event = self.room.make(
                *key[:1], {**content, "n": n}, BOB, "", prev=[prev], state=state, depth=n + 50
            )
            self.room.events[event.event_id] = event
            state[key] = event.event_id
            chain.append(event)
        return chain

    async def test_missing_auth_events(self) -> None:
        """Auth events that are not here are fetched; they are not in the timeline.
        Shows RECV-8, RECV-10."""
        await self.start()
        chain = self.levels(3, self.join_event)
        own = self.room.state[("m.room.member", BOB)]
        create = self.room.state[("m.room.create", "")]
        message = self.room.message(BOB, "x", auth=[chain[-1], own, create])
        self.assertEqual((await self.receive(message)).status, ACCEPTED)
        self.assertEqual(self.source.count("event_auth"), 1)
        for event in chain:
            row = await self.row(event)
            assert row is not None
            self.assertIsNone(row.pos)

    async def test_one_by_one(self) -> None:
        """If nobody gives the chain, its events are asked for singly."""
        await self.start()
        chain = self.levels(3, self.join_event)
        own = self.room.state[("m.room.member", BOB)]
        create = self.room.state[("m.room.create", "")]
        message = self.room.message(BOB, "x", auth=[chain[-1], own, create])
        for server in (PEER, OTHER):
            self.source.on[server, "event_auth"] = lambda event_id: []
        self.assertEqual((await self.receive(message)).status, ACCEPTED)
        self.assertEqual(self.source.count("event", PEER), 3)

    async def test_a_deep_chain(self) -> None:
        """An auth chain of 10,000 events is stored. Shows RECV-8."""
        await self.start()
        chain = self.levels(10_000, self.join_event)
        own = self.room.state[("m.room.member", BOB)]
        create = self.room.state[("m.room.create", "")]
        message = self.room.message(BOB, "x", auth=[chain[-1], own, create])
        self.assertEqual((await self.receive(message)).status, ACCEPTED)
        self.assertIsNotNone(await self.row(chain[0]))

    async def test_a_chain_without_end(self) -> None:
        """A chain that is told event by event is not followed for ever. Shows RECV-8."""
        self.patch(fetch, "MAX_REQUESTS", 50)
        await self.start()
        chain = self.levels(100, self.join_event)
        own = self.room.state[("m.room.member", BOB)]
        create = self.room.state[("m.room.create", "")]
        message = self.room.message(BOB, "x", auth=[chain[-1], own, create])
        for server in (PEER, OTHER):
            self.source.on[server, "event_auth"] = lambda event_id: []
        judged = await self.receive(message)
        self.assertEqual(judged.status, NOT_ADDED)
        self.assertLessEqual(len(self.source.asked), 50)
        self.assertIsNone(await self.row(chain[-1]))

    async def test_of_another_room(self) -> None:
        """An event that another room's events authorise is not accepted. Shows RECV-11."""
        await self.start()
        other = await self.alice.create_room()
        row = await self.db.read(
            lambda txn: txn.one(
                "SELECT event_id FROM events WHERE type = 'm.room.power_levels' AND room_nid ="
                " (SELECT room_nid FROM rooms WHERE room_id = ?)",
                (other,),
            )
        )
        assert row is not None
        own = self.room.state[("m.room.member", BOB)]
        create = self.room.state[("m.room.create", "")]
        topic = self.room.make("m.room.topic", {}, BOB, "", auth=[row[0], own, create])
        self.room.events[topic.event_id] = topic
        self.assertEqual((await self.receive(topic)).status, REJECTED)
        far = dict(self.room.states[self.join_event.event_id])
        self.room.states["$far"] = {**far, ("m.room.topic", ""): topic.event_id}
        message = self.room.message(BOB, "x", prev=["$far"], depth=60)
        self.assertEqual((await self.receive(message)).status, ACCEPTED)
        self.assertNotIn(("m.room.topic", ""), await self.current())

    async def test_nowhere(self) -> None:
        """An event whose auth events nobody has waits. Shows RECV-9."""
        await self.start()
        message = self.room.message(BOB, "x", auth=["$nowhere"])
        judged = await self.receive(message)
        self.assertEqual(judged.status, NOT_ADDED)
        self.assertIn("auth events are missing", judged.reason or "")


class OldVersions(MissingCase):
    version = "1"

    async def test_cycles(self) -> None:
        """Events that claim to come before each other are not added, and nothing hangs."""
        await self.start()
        name = f"$one:{PEER}"
        two = self.room.make("m.room.message", {}, BOB, prev=[name])
        one = self.room.make("m.room.message", {}, BOB, prev=[two], event_id=name)
        for event in (one, two):
            self.room.events[event.event_id] = event
            self.room.states[event.event_id] = dict(self.room.state)
        self.source.on[PEER, "missing"] = lambda *_: [one.pdu, two.pdu]
        await self.receive(two)
        self.assertEqual(self.source.count("missing"), 1)
        self.assertIsNone(await self.row(one))

    async def test_cycles_of_auth_events(self) -> None:
        """Events that authorise each other are not stored."""
        await self.start()
        name = f"$one:{PEER}"
        two = self.room.make("m.room.power_levels", {}, BOB, "", auth=[name])
        one = self.room.make("m.room.power_levels", {}, BOB, "", auth=[two], event_id=name)
        for event in (one, two):
            self.room.events[event.event_id] = event
        message = self.room.message(BOB, "x", auth=[two])
        self.assertEqual((await self.receive(message)).status, NOT_ADDED)
        self.assertIsNone(await self.row(one))
        self.assertIsNone(await self.row(two))

    async def test_another_event_of_the_same_id(self) -> None:
        """An event that is here is not replaced by another of its ID. Shows RECV-8."""
        await self.start()
        (known,) = self.messages(1)
        self.assertEqual((await self.receive(known)).status, ACCEPTED)
        *_, last = self.messages(2)
        other = self.room.make("m.room.message", {"body": "other"}, BOB, event_id=known.event_id)
        honest = self.room.missing
        self.source.on[PEER, "missing"] = lambda earliest, latest, limit, depth: [
            other.pdu,
            *(event.pdu for event in honest(earliest, latest, limit)),
        ]
        self.assertEqual((await self.receive(last)).status, ACCEPTED)
        row = await self.row(known)
        assert row is not None
        self.assertNotIn("other", row.json)
