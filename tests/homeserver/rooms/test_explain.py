"""State resolution explained, and state resets noticed."""

from __future__ import annotations

from homeserver.core.errors import MatrixError
from homeserver.rooms.explain import Explanation, explain
from homeserver.rooms.judged import Reset
from homeserver.rooms.resets import ResetWatch
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database
from tests.support.events import ALICE as REMOTE
from tests.support.events import BOB


class Counted:
    """A counter of the metrics."""

    total = 0.0

    def inc(self, amount: float = 1) -> None:
        self.total += amount


@on_each_database
class ExplainTest(ReceivingCase):
    async def explain(self, event_id: str | None = None) -> Explanation:
        return await self.db.read(explain, self.services.states, self.room.room_id, event_id)

    async def test_forks(self) -> None:
        """At the head, then merged by an event; the steps tell what was refused, and why."""
        await self.enter("11", users={BOB: 50})
        first, last = (await self.explain()).lines()
        self.assertTrue(first.endswith("version 11: the state at the head of the room."))
        self.assertIn("There is no fork", last)
        branch = self.room.fork()
        ban = self.room.ban(REMOTE, BOB)
        topic = branch.set_state("m.room.topic", {"topic": "mine"}, BOB)
        await self.receive(topic)
        await self.receive(ban)
        found = await self.explain()
        self.assertIsNone(found.merged_by)
        self.assertEqual({b.event_id for b in found.branches}, {ban.event_id, topic.event_id})
        self.assertEqual(found.result, {ban.key: ban.event_id, topic.key: None})
        tried = [(step.event.event_id, step.refusal is None) for step in found.steps]
        self.assertIn((ban.event_id, True), tried)
        self.assertEqual(tried[-1], (topic.event_id, False))
        text = "\n".join(found.lines())
        self.assertIn(f"{topic.event_id} m.room.topic by {BOB} [others] refused", text)
        merged = await self.services.say(self.room.room_id)
        after = await self.services.say(self.room.room_id)
        self.assertEqual((await self.explain()).result, found.result)
        self.assertEqual((await self.explain()).merged_by, merged)
        self.assertEqual((await self.explain(merged)).result, found.result)
        self.assertEqual((await self.explain(after)).branches[1:], [])

    async def test_unknown(self) -> None:
        await self.enter()
        with self.assertRaises(MatrixError):
            await self.explain("$unknown")
        with self.assertRaises(MatrixError):
            await self.db.read(explain, self.services.states, "!unknown:a.example")

    async def test_resets_are_counted(self) -> None:
        await self.enter()
        counted = Counted()
        watch = ResetWatch(counted)
        watch.noticed(self.room.room_id, [Reset(("m.room.name", ""), "$a", "$b")] * 3)
        self.assertEqual(counted.total, 3)
