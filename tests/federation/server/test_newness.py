"""Events that are presumed to be new, or looked for: the same comes of both."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from homeserver.rooms import newness
from homeserver.rooms.newness import Newness
from homeserver.rooms.receiving import Receiving
from storage import events
from storage.database import sleep
from tests.federation.server.test_transactions import TransactionCase
from tests.support.databases import reactor


class NewnessTest(SynchronousTestCase):
    def test_after_one_that_was_known(self) -> None:
        found = Newness()
        self.assertTrue(found.presumed("!a"))
        found.disproved("!a")
        self.assertTrue(found.presumed("!b"))
        self.assertEqual([found.presumed("!a") for _ in range(newness.LOOKS)], [False] * 20)
        self.assertTrue(found.presumed("!a"))

    def test_bounded(self) -> None:
        found = Newness()
        for number in range(newness.MAX_ROOMS + 1):
            found.disproved(f"!{number}")
        self.assertTrue(found.presumed("!0"))
        self.assertFalse(found.presumed(f"!{newness.MAX_ROOMS}"))


class PresumedTest(TransactionCase):
    async def outcomes(self) -> list[Any]:
        """Of transactions with all sorts of events, some of them again."""
        model = await self.enter()
        for name in ("missing", "event", "state", "state_ids", "event_auth", "backfill"):
            self.peer.on[name] = lambda request: None
        one, two, three = (model.message(self.mallory, text) for text in ("1", "2", "3"))
        hated = self.unsent("hated", sender=f"@nobody:{self.peer.name}")
        topic = model.make("m.room.topic", {"topic": "not allowed"}, self.mallory, state_key="")
        batches: list[list[Any]] = [
            [one, two], [two, three], [one], [one, two, three], [hated], [hated], [topic.pdu],
        ]  # fmt: skip
        four = model.message(self.mallory, "4")
        redaction = model.message(self.mallory, "5")
        batches += [[four, hated], [redaction, four, hated], [topic.pdu, redaction]]
        withheld = model.message(self.mallory, "withheld")
        early = model.message(self.mallory, "early")
        batches += [[early], [early], [withheld, early], [withheld], [early]]
        found: list[Any] = []
        names: dict[str, int] = {}
        for batch in batches:
            answer = await self.transaction(*batch)
            for name in answer:
                names.setdefault(name, len(names))
            found.append({names[name]: list(each) for name, each in answer.items()})
        for _ in range(200):  # What waited for nothing but its turn is added afterwards.
            shown = await self.shown()
            if "withheld" in shown:
                break
            await sleep(reactor, 0.05)
        # When that is done which came too early, is for the backlog to say.
        names.pop(early.event_id)
        shown = [text for text in shown if text != "early"]
        rows = await self.hearth.homeserver.db.read(events.get_many, list(names))
        kept = [(number, rows[name]) for name, number in names.items() if name in rows]
        found.append([(number, row.status, row.pos is None) for number, row in kept])
        return [*found, shown]

    async def test_all_sorts_of_events(self) -> None:
        """Shows TXN-6."""
        found = []
        for presumed in (lambda *_: True, lambda *_: False, Newness.presumed):
            with patch.object(Newness, "presumed", presumed):
                found.append(await self.outcomes())
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[2], found[1])
        self.assertEqual(found[0][-1][:5], ["1", "2", "3", "4", "5"])

    async def test_new_ones_are_not_looked_for(self) -> None:
        model = await self.enter()
        sent = [model.message(self.mallory, str(number)) for number in range(5)]
        asked: list[str] = []
        load = Receiving._load

        def loading(receiving: Receiving, *args: Any) -> None:
            get_many = events.get_many

            def counted(txn: Any, names: Any) -> Any:
                asked.extend(names)
                return get_many(txn, names)

            with patch.object(events, "get_many", counted):
                load(receiving, *args)

        with patch.object(Receiving, "_load", loading):
            await self.transaction(*sent)
            self.assertFalse({event.event_id for event in sent}.intersection(asked))
            # A repetition in another transaction is found out, and then looked for.
            await self.transaction(*sent)
            self.assertLessEqual({event.event_id for event in sent}, set(asked))
            asked.clear()
            await self.transaction(model.message(self.mallory, "another"))
        self.assertEqual(await self.shown(), ["0", "1", "2", "3", "4", "another"])

    async def test_a_head_is_known(self) -> None:
        """It is not even tried to insert it."""
        model = await self.enter()
        sent = [model.message(self.mallory, str(number)) for number in range(2)]
        await self.transaction(*sent)
        inserted: list[str] = []
        insert = events.insert

        def noting(txn: Any, rows: Any) -> None:
            rows = list(rows)
            inserted.extend(row.event_id for row in rows)
            insert(txn, rows)

        aside = model.make("m.room.message", {"body": "aside"}, self.mallory, prev=[sent[0]])
        with patch.object(events, "insert", noting):
            answer = await self.transaction(aside, sent[1])
        self.assertEqual(answer, {aside.event_id: {}, sent[1].event_id: {}})
        self.assertEqual(inserted, [aside.event_id])
        self.assertEqual(await self.shown(), ["0", "1", "aside"])
