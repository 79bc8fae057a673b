"""Servers that go on sending to a room are not looked for again, until it is another."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from federation.client.pdus import PduChecker
from homeserver.rooms.backlog import Backlog
from homeserver.rooms.inbound import Inbound
from storage import received, room_removal, rooms
from storage.database import Database
from storage.received import Bounds, Keep, NewPdu
from storage.transaction import Transaction
from tests.federation.server.test_transactions import TransactionCase
from tests.support.federation import eventually


class FamiliarTest(TransactionCase):
    async def looked_up(self, *pdus: Any, **options: Any) -> tuple[dict[str, Any], int]:
        """The answer to a transaction, and how often the database was asked for its room before."""
        calls = []
        look_up = Inbound._look_up

        async def counted(inbound: Inbound, *args: Any) -> Any:
            calls.append(args)
            return await look_up(inbound, *args)

        with patch.object(Inbound, "_look_up", counted):
            answer = await self.transaction(*pdus, **options)
        return answer, len(calls)

    async def say(self, body: str) -> tuple[str, int]:
        """Have mallory say something: why it is refused, and how often the room was looked up."""
        event = self.model.message(self.mallory, body)
        answer, calls = await self.looked_up(event)
        return answer[event.event_id].get("error", ""), calls

    async def familiar(self) -> None:
        """The peer's user has said something, and the room is as it was then."""
        await self.enter()
        self.assertEqual(await self.say("first"), ("", 1))

    async def test_who_goes_on_is_not_looked_for(self) -> None:
        await self.familiar()
        for number in range(3):
            self.assertEqual(await self.say(f"{number}"), ("", 0))
        # What others say changes nothing of it.
        await self.alice.send(self.room_id, "ours")
        self.assertEqual(await self.say("more"), ("", 0))
        self.assertEqual(await self.shown(), ["first", "0", "1", "2", "ours", "more"])

    async def test_with_other_things_in_the_transaction(self) -> None:
        await self.familiar()
        typing = {"room_id": self.room_id, "user_id": self.mallory, "typing": True}
        edus = [{"edu_type": "m.typing", "content": typing}]
        event = self.model.message(self.mallory, "typed")
        found = await self.looked_up(event, edus=edus)
        self.assertEqual(found, ({event.event_id: {}}, 0))
        self.assertEqual(await self.shown(), ["first", "typed"])

    async def test_a_server_that_is_denied(self) -> None:
        """Shows ACL-3."""
        await self.familiar()
        content = {"allow": ["*"], "deny": ["localhost"]}
        await self.alice.set_state(self.room_id, "m.room.server_acl", content)
        heads = list(self.model.heads)
        reason, calls = await self.say("denied")
        self.assertIn("access control", reason)
        self.assertEqual(calls, 1)
        self.model.heads = heads
        await self.alice.set_state(self.room_id, "m.room.server_acl", {"allow": ["*"]})
        self.assertEqual(await self.say("allowed"), ("", 1))
        self.assertEqual(await self.shown(), ["first", "allowed"])

    async def test_nobody_is_there_any_more(self) -> None:
        await self.familiar()
        await self.alice.leave(self.room_id)
        reason, calls = await self.say("gone")
        self.assertIn("not in the room", reason)
        self.assertEqual(calls, 1)

    async def test_another_state_of_the_room(self) -> None:
        """The room is looked up some times before it is presumed to be the same again."""
        await self.familiar()
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "another"})
        found = [await self.say(f"{number}") for number in range(22)]
        self.assertEqual([calls for _, calls in found], [1] * 21 + [0])
        self.assertEqual({reason for reason, _ in found}, {""})
        self.assertEqual(len(await self.shown()), 23)

    async def test_a_room_that_is_being_deleted(self) -> None:
        await self.familiar()

        def close(txn: Transaction) -> None:
            row = rooms.lock(txn, [self.room_id])[self.room_id]
            room_removal.behead(txn, row.room_nid)

        await self.hearth.homeserver.db.write(close)
        reason, calls = await self.say("gone")
        self.assertIn("not in the room", reason)
        self.assertEqual(calls, 1)

    async def test_what_waits_comes_first(self) -> None:
        """Events of a server have to wait for those of its that wait."""
        await self.familiar()
        db, first = self.hearth.homeserver.db, self.model.message(self.mallory, "waits")
        pdu = NewPdu(first.event_id, first.depth, first.to_json().decode())

        def stage(txn: Transaction) -> None:
            nid = rooms.nid(txn, self.room_id) or 0
            received.stage(txn, nid, self.peer.name, [pdu], Bounds(), 1)

        with patch.object(Backlog, "look", lambda backlog: None):
            await db.write(stage)
            self.assertEqual(await self.say("after"), ("", 1))
            self.assertEqual(await self.shown(), ["first"])
        self.hearth.homeserver.services[Backlog].look()

        async def are_added() -> bool:
            return len(await self.shown()) == 3

        await eventually(are_added)
        self.assertEqual(await self.shown(), ["first", "waits", "after"])

    async def test_a_transaction_that_was_answered(self) -> None:
        """Here, or by another process. Shows TXN-2."""
        await self.familiar()
        event = self.model.message(self.mallory, "once")
        answer, calls = await self.looked_up(event, txn_id="twice")
        self.assertEqual(calls, 0)
        with patch.object(PduChecker, "check") as check:
            self.assertEqual(await self.looked_up(event, txn_id="twice"), (answer, 1))
        check.assert_not_called()
        late = self.model.message(self.mallory, "late")
        other = '{"pdus":{"$other":{}}}'
        await self.hearth.homeserver.db.write(Keep(self.peer.name, "raced", other, 1).in_steps)
        found = await self.looked_up(late, txn_id="raced")
        self.assertEqual(found, (json.loads(other)["pdus"], 1))
        self.assertEqual(await self.shown(), ["first", "once"])

    async def test_what_is_known_already(self) -> None:
        await self.familiar()
        event = self.model.message(self.mallory, "once")
        expected: dict[str, Any] = {event.event_id: {}}
        self.assertEqual(await self.looked_up(event), (expected, 0))
        # The last one is seen to be known.
        self.assertEqual(await self.looked_up(event), (expected, 0))
        self.assertEqual(await self.say("more"), ("", 0))
        self.assertEqual((await self.looked_up(event))[0], expected)
        self.assertEqual(await self.shown(), ["first", "once", "more"])

    async def test_nothing_of_it_is_asked_before(self) -> None:
        """No query, and no transaction but the one that adds the events."""
        await self.familiar()
        asked: list[str] = []
        query = Database.query

        async def counted(db: Database, wanted: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(wanted.__qualname__)
            return await query(db, wanted, *args, **kwargs)

        with patch.object(Database, "query", counted):
            await self.say("second")
        self.assertEqual(asked, [])
