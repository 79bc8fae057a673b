"""A peer that uses the freedom which the rules leave: forks, old places, many heads."""

from __future__ import annotations

from homeserver.core.event import Event
from tests.conformance import test_hostile_peer
from tests.conformance.hostile_peer import HostilePeerCase
from tests.support.federation import eventually


class ForgedEventsV12Test(test_hostile_peer.ForgedEventsTest):
    version = "12"


class ForgedEventsV1Test(test_hostile_peer.ForgedEventsTest):
    version = "1"


class MalformedEventsV12Test(test_hostile_peer.MalformedEventsTest):
    version = "12"


class ForksTest(HostilePeerCase):
    async def test_banned_user_goes_back_in_time(self) -> None:
        """Shows RECV-5: events placed before the ban are not shown, and change no state."""
        place = list(self.room.heads)
        state = dict(self.room.state)
        levels = await self.alice.ok("GET", f"/rooms/{self.room_id}/state/m.room.power_levels")
        levels["users"][self.mallory] = 50
        await self.alice.set_state(self.room_id, "m.room.power_levels", levels)
        await eventually(lambda: self.room.heads != place)
        place, state = list(self.room.heads), dict(self.room.state)
        await self.alice.ok(
            "POST", f"/rooms/{self.room_id}/ban", {"user_id": self.mallory, "reason": "x"}
        )
        self.before = await self.state()
        message = self.said("from the past", prev=place, state=state)
        topic = self.room.make(
            "m.room.topic", {"topic": "past"}, self.mallory, "", prev=place, state=state
        )
        await self.not_shown([message, topic])
        on_top = self.said("on top", prev=[message], state=state)
        await self.not_shown([on_top])
        after_ban = self.said("after the ban", state=state)
        await self.refused(after_ban)
        self.assertEqual(await self.state(), self.before)
        said = await self.alice.send(self.room_id, "still here")
        event = (await self.alice.ok("GET", f"/rooms/{self.room_id}/event/{said}"))["event_id"]
        self.assertEqual(event, said)

    async def test_many_heads(self) -> None:
        """Hundreds of forks: alice's next event names at most twenty of them, and all works."""
        place = list(self.room.heads)
        events = [self.said(f"fork {number}", prev=place) for number in range(300)]
        for start in range(0, len(events), 50):
            await self.peer.sent(self.hearth.name, *events[start : start + 50])
        for event in events:
            self.room.add(event)
        sent = await self.alice.send(self.room_id, "after the forks")
        await eventually(lambda: sent in self.room.events)
        event = self.room.events[sent]
        self.assertLessEqual(len(event.prev_event_ids), 20)
        await self.unharmed()

    async def test_forks_of_state(self) -> None:
        """Conflicting states again and again end in one state, the rules being kept."""
        member = ("m.room.member", self.mallory)
        place = list(self.room.heads)
        events: list[Event] = []
        for number in range(60):
            content = {"membership": "join", "displayname": f"m{number}"}
            events.append(
                self.room.make("m.room.member", content, self.mallory, self.mallory, prev=place)
            )
        for start in range(0, len(events), 20):
            await self.peer.sent(self.hearth.name, *events[start : start + 20])
        for event in events:
            self.room.add(event)
        state = await self.state()
        self.assertIn(state.pop(member), [event.event_id for event in events])
        del self.before[member]
        self.assertEqual(state, self.before)
        self.before = await self.state()
        await self.unharmed()

    async def test_depths_without_end(self) -> None:
        """A depth at the limit does not end the room: events after it are still made."""
        deepest = self.said("deepest", depth=2**53 - 1)
        await self.peer.sent(self.hearth.name, deepest)
        self.room.add(deepest)
        sent = await self.alice.send(self.room_id, "deeper")
        self.assertTrue(await self.has(sent))
        await eventually(lambda: sent in self.room.events)
        self.assertLessEqual(self.room.events[sent].depth, 2**53 - 1)
        await self.unharmed()
