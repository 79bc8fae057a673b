"""Messages of one kind are judged once, as each of them would be."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

from homeserver.core import push_rules
from homeserver.core.event import Event
from homeserver.rooms import unread
from homeserver.rooms.unread import Judgement
from tests.homeserver.api.client.test_push_rules import put_rule
from tests.support.history import BOB, CAROL, HistoryCase

KEYWORD = {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "tea"}
TYPES = (
    *("m.room.message", "m.room.message", "m.room.encrypted", "m.reaction", "m.call.invite"),
    *("M.Room.Message", "m.sticker", "m.room.redaction", "m.room.tombstone"),
)
MSGTYPES: tuple[Any, ...] = (
    "m.text",
    "m.text",
    "m.notice",
    "M.Notice",
    "m.image",
    None,
    5,
    ["m.notice"],
    {},
)
EVENT_CLASS = push_rules.event_class
JUDGE = unread.judge


def content(drawn: random.Random, user_id: str, known: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"body": drawn.choice(("hello", "tea", "tea?"))}
    if drawn.random() < 0.9:
        made["msgtype"] = drawn.choice(MSGTYPES) if drawn.random() < 0.4 else "m.text"
    if drawn.random() < 0.2:
        users = {"user_ids": [user_id, "@no:where"]}
        made["m.mentions"] = drawn.choice((users, {"room": True}, {}, None, 5, {"user_ids": 5}))
    if drawn.random() < 0.2 and known:
        rel_type = drawn.choice(("m.replace", "m.thread", "m.annotation", "x", 5))
        relation = {"rel_type": rel_type, "event_id": drawn.choice(known)}
        made["m.relates_to"] = drawn.choice((relation, relation, None, {}))
    if drawn.random() < 0.1:
        made |= {"membership": "invite", "url": "mxc://x/y", "m.mentions.room": True}
    return made


class JudgedByKindTest(HistoryCase):
    def _judge(self, *given: Any) -> dict[str, Judgement]:
        """Judge both ways; they say the same."""
        asked: list[object] = []

        def count(event: Any) -> Any:
            asked.append(event)
            return EVENT_CLASS(event)

        with patch.object(push_rules, "event_class", count):
            found = JUDGE(*given)
            self.asked += len(asked)
            with patch.object(unread, "_kind_of", lambda event: None):
                each = JUDGE(*given)
        self.assertEqual(found, each)
        return found

    async def _receive(self, seed: int) -> int:
        drawn, known = random.Random(seed), list[str]()
        for _ in range(6):
            batch: list[Event] = []
            for _ in range(25):
                made = content(drawn, self.alice.user_id, known)
                kind = drawn.choice(TYPES) if drawn.random() < 0.4 else "m.room.message"
                sender = drawn.choice((BOB, BOB, CAROL))
                event = self.room.grow(kind, made, sender)
                batch.append(event)
                known.append(event.event_id)
            with patch.object(unread, "judge", self._judge):
                await self.receiver.add(self.room_id, batch)
        return len(known)

    async def test_by_default_rules(self) -> None:
        """Nobody has others: most messages are of a kind that was judged."""
        self.asked = 0
        await self.start()
        total = await self._receive(5)
        self.assertLess(self.asked, total * 3 // 4)

    async def test_own_rules(self) -> None:
        """Somebody has others: each message is looked at."""
        self.asked = 0
        await self.start()
        await put_rule(self.alice, "content", "tea", KEYWORD)
        self.assertGreater(await self._receive(6), 100)
        self.assertGreater(self.asked, 100)
