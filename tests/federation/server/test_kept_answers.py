"""Answers to transactions that are stored together with the events."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from federation.client.pdus import PduChecker
from storage import events
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

    async def test_another_process_was_faster(self) -> None:
        """Its answer is the one that is given. Shows TXN-2."""
        model = await self.enter()
        event = model.message(self.mallory)
        other = '{"pdus":{"$other":{}}}'
        check, db = PduChecker.check, self.hearth.homeserver.db
        keep = Keep(self.peer.name, "raced", other, 1)

        async def checked(checker: PduChecker, *args: Any, **kwargs: Any) -> Any:
            # Looked for it was before.
            await db.write(keep.in_steps)
            return await check(checker, *args, **kwargs)

        with patch.object(PduChecker, "check", checked):
            answer = await self.transaction(event, txn_id="raced")
        self.assertEqual({"pdus": answer}, json.loads(other))
        found = await db.read(events.get_many, [event.event_id])
        self.assertEqual([row.status for row in found.values()], [events.ACCEPTED])

    async def test_a_repetition_is_not_worked_on(self) -> None:
        """In a room that is known, in none, and with nothing in it. Shows TXN-2."""
        model = await self.enter()
        event, another = model.message(self.mallory), model.message(self.mallory)
        strange = {**another.pdu, "room_id": "!unknown:example.org"}
        for txn_id, pdus in (("a", [event]), ("b", [strange]), ("c", [event, strange]), ("d", [])):
            answer = await self.transaction(*pdus, txn_id=txn_id)
            with patch.object(PduChecker, "check") as check:
                # What is in a repetition does not matter.
                for again in (pdus, [event]):
                    self.assertEqual(await self.transaction(*again, txn_id=txn_id), answer)
            check.assert_not_called()

    async def test_events_of_several_rooms(self) -> None:
        """Shows TXN-6."""
        first = await self.enter()
        second = await self.peer.join(self.hearth.name, await self.room("10"))
        sent = [first.message(self.mallory), second.message(self.mallory)]
        found = await self.sent("two", *sent)
        self.assertEqual(found, ({event.event_id: {} for event in sent}, False))
