"""Answers to transactions that are stored together with the events."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from storage.database import Database
from storage.received import Keep
from tests.federation.server.test_transactions import TransactionCase


class KeptAnswerTest(TransactionCase):
    async def kept(self) -> dict[str, Any]:
        """All answers that are stored, by transaction ID."""
        rows = await self.hearth.homeserver.db.read(
            lambda txn: txn.all("SELECT txn_id, answer FROM received_transactions")
        )
        return {txn_id: json.loads(answer)["pdus"] for txn_id, answer in rows}

    async def sent(self, txn_id: str, *pdus: Any) -> tuple[dict[str, Any], bool]:
        """The answer, and whether it took no transaction of its own to store it."""
        apart = []
        write_single = Database.write_single

        async def counted(db: Database, single: Any) -> Any:
            if isinstance(single, Keep):
                apart.append(single)
            return await write_single(db, single)

        with patch.object(Database, "write_single", counted):
            answer = await self.transaction(*pdus, txn_id=txn_id)
        self.assertEqual((await self.kept())[txn_id], answer)
        self.assertEqual(await self.transaction(*pdus, txn_id=txn_id), answer)
        return answer, not apart

    async def test_whatever_becomes_of_the_events(self) -> None:
        """Shows TXN-2, TXN-6."""
        model = await self.enter()
        good = [model.message(self.mallory, str(n)) for n in range(3)]
        found = await self.sent("good", *good)
        self.assertEqual(found, ({event.event_id: {} for event in good}, True))
        # What is known already.
        self.assertEqual(await self.sent("again", *good), found)
        # With events that are refused before, and when they are judged.
        last, nobody = model.message(self.mallory, "last"), f"@nobody:{self.peer.name}"
        forged, hated = self.unsent("forged"), self.unsent("hated", sender=nobody)
        forged["signatures"] = {self.peer.name: {self.peer.key.key_id: "A" * 86}}
        answer, at_once = await self.sent("mixed", last, forged, hated)
        self.assertTrue(at_once)
        self.assertEqual(answer.pop(last.event_id), {})
        self.assertEqual([list(each) for each in answer.values()], [["error"]] * 2)
        # What has to wait for other events is stored elsewhere.
        model.message(self.mallory, "not sent")
        early = model.message(self.mallory, "early")
        for name in ("missing", "event", "state", "state_ids", "event_auth", "backfill"):
            self.peer.on[name] = lambda request: None
        self.assertEqual(await self.sent("early", early), ({early.event_id: {}}, False))
        # Nothing is added.
        self.assertEqual((await self.sent("none", forged))[1], False)

    async def test_events_of_several_rooms(self) -> None:
        """Shows TXN-6."""
        first = await self.enter()
        second = await self.peer.join(self.hearth.name, await self.room("10"))
        events = [first.message(self.mallory), second.message(self.mallory)]
        found = await self.sent("two", *events)
        self.assertEqual(found, ({event.event_id: {} for event in events}, False))
