"""Redacting what relates to an event."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed_reactor

from storage.database import sleep
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User

reactor: Any = installed_reactor


class RelatedRedactionsTest(RoomTestCase):
    timeout = 60

    async def react(self, user: User, to: str, key: str) -> str:
        relation = {"rel_type": "m.annotation", "event_id": to, "key": key}
        return await user.send(self.room_id, {"m.relates_to": relation}, "m.reaction")

    async def edit(self, user: User, of: str) -> str:
        content = {
            "msgtype": "m.text",
            "body": "* new",
            "m.new_content": {"msgtype": "m.text", "body": "new"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": of},
        }
        return await user.send(self.room_id, content)

    async def is_redacted(self, event_id: str) -> bool:
        return "redacted_because" in (await self.event(self.alice, event_id)).get("unsigned", {})

    async def redact(self, user: User, event_id: str, body: Any) -> None:
        await user.ok("PUT", f"/rooms/{q(self.room_id)}/redact/{q(event_id)}/r1", body)

    async def test_with_relations(self) -> None:
        """Events of the named relation types are redacted, others not."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.alice.send(self.room_id, "hello")
        reactions = [
            await self.react(user, event_id, key) for user in (self.alice, self.bob) for key in "ab"
        ]
        edit = await self.edit(self.alice, event_id)
        other = await self.alice.send(self.room_id, "other")
        elsewhere = await self.react(self.alice, other, "a")
        body = {"reason": "spam", "org.matrix.msc3912.with_relations": ["m.annotation"]}
        await self.redact(self.alice, event_id, body)
        for reaction in reactions:
            while not await self.is_redacted(reaction):
                await sleep(reactor, 0.01)
        shown = await self.event(self.alice, reactions[0])
        content = shown["unsigned"]["redacted_because"]["content"]
        self.assertEqual((content["reason"], content["redacts"]), ("spam", reactions[0]))
        self.assertEqual(set(content), {"reason", "redacts"})
        self.assertFalse(await self.is_redacted(edit))
        self.assertFalse(await self.is_redacted(elsewhere))
        self.assertTrue(await self.is_redacted(event_id))

    async def test_all_relations(self) -> None:
        """Of all types; what the user may not redact stays."""
        await self.start()
        await self.bob.join(self.room_id)
        event_id = await self.bob.send(self.room_id, "hello")
        edit = await self.edit(self.bob, event_id)
        own = await self.react(self.bob, event_id, "a")
        of_alice = await self.react(self.alice, event_id, "b")
        await self.redact(self.bob, event_id, {"with_rel_types": ["*"]})
        for each in (edit, own):
            while not await self.is_redacted(each):
                await sleep(reactor, 0.01)
        self.assertFalse(await self.is_redacted(of_alice))

    async def test_malformed(self) -> None:
        """A list of strings, and not many."""
        await self.start()
        event_id = await self.alice.send(self.room_id, "hello")
        for bad in ("m.annotation", [1], {"a": 1}, None, ["x"] * 21):
            path = f"/rooms/{q(self.room_id)}/redact/{q(event_id)}/x"
            answer = await self.alice.call("PUT", path, {"with_rel_types": bad})
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        self.assertFalse(await self.is_redacted(event_id))
