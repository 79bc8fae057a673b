"""How events look to clients."""

from __future__ import annotations

import json
from typing import Any

from homeserver.core.types import JsonObject
from homeserver.rooms.view import RoomView
from storage import events, rooms
from storage.state import StateStore
from storage.transaction import Transaction
from tests.support.room_case import RoomTestCase, q


class UnsignedTest(RoomTestCase):
    async def test_age(self) -> None:
        """Shows EVT-13."""
        await self.start()
        event_id = await self.alice.send(self.room_id)
        first = (await self.event(self.alice, event_id))["unsigned"]["age"]
        self.assertIsInstance(first, int)
        self.assertGreaterEqual(first, 0)
        again = (await self.event(self.alice, event_id))["unsigned"]["age"]
        self.assertGreaterEqual(again, first)

    async def test_replaced_state(self) -> None:
        """Shows EVT-13, EVT-15."""
        await self.start()
        first = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "one"})
        second = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "two"})
        unsigned = (await self.event(self.alice, first))["unsigned"]
        self.assertNotIn("prev_content", unsigned)
        self.assertNotIn("replaces_state", unsigned)
        for shown in (
            await self.event(self.alice, second),
            (await self.messages(self.alice))[0],
            (await self.get(self.alice, f"context/{q(first)}"))["events_after"][0],
        ):
            self.assertEqual(shown["event_id"], second)
            self.assertEqual(shown["unsigned"]["prev_content"], {"topic": "one"})
            self.assertEqual(shown["unsigned"]["replaces_state"], first)
        event = await self.get(self.alice, "state/m.room.topic", format="event")
        self.assertEqual(event["unsigned"]["replaces_state"], first)
        # A message has neither.
        message = await self.alice.send(self.room_id)
        unsigned = (await self.event(self.alice, message))["unsigned"]
        self.assertNotIn("replaces_state", unsigned)

    async def test_replaced_state_that_was_redacted(self) -> None:
        """Shows EVT-15, SND-9."""
        await self.start()
        first = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "one"})
        second = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "two"})
        await self.put_ok(self.alice, f"redact/{q(first)}/t", {})
        unsigned = (await self.event(self.alice, second))["unsigned"]
        self.assertEqual(unsigned["prev_content"], {})

    async def test_replaced_state_that_one_may_not_see(self) -> None:
        """Shows EVT-15."""
        visibility = {
            "type": "m.room.history_visibility",
            "content": {"history_visibility": "joined"},
        }
        await self.start(initial_state=[visibility])
        first = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "s3cret"})
        await self.bob.join(self.room_id)
        second = await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "two"})
        unsigned = (await self.event(self.bob, second))["unsigned"]
        self.assertNotIn("prev_content", unsigned)
        self.assertEqual(unsigned["replaces_state"], first)
        unsigned = (await self.event(self.alice, second))["unsigned"]
        self.assertEqual(unsigned["prev_content"], {"topic": "s3cret"})

    async def test_membership_at_the_event(self) -> None:
        """Shows EVT-14."""
        await self.start()
        before = await self.alice.send(self.room_id, "before")
        await self.alice.invite(self.room_id, self.bob.user_id)
        invited = await self.alice.send(self.room_id, "invited")
        await self.bob.join(self.room_id)
        joined = await self.alice.send(self.room_id, "joined")
        await self.bob.leave(self.room_id)
        await self.alice.send(self.room_id, "away")
        await self.bob.join(self.room_id)
        back = await self.alice.send(self.room_id, "back")
        chunk = (await self.get(self.bob, "messages", dir="f", limit=100))["chunk"]
        own = [
            (event["content"]["membership"], event["unsigned"]["membership"])
            for event in chunk
            if event.get("state_key") == self.bob.user_id
        ]
        # A change of one's own counts for itself.
        self.assertEqual(own, [(name, name) for name in ("invite", "join", "leave", "join")])
        found = {
            event["content"]["body"]: event["unsigned"]["membership"]
            for event in chunk
            if event["type"] == "m.room.message"
        }
        self.assertEqual(
            found,
            {
                "before": "leave",
                "invited": "invite",
                "joined": "join",
                "away": "leave",
                "back": "join",
            },
        )
        for event_id, expected in (
            (before, "leave"),
            (invited, "invite"),
            (joined, "join"),
            (back, "join"),
        ):
            shown = await self.event(self.bob, event_id)
            self.assertEqual(shown["unsigned"]["membership"], expected)
        self.assertEqual((await self.event(self.alice, before))["unsigned"]["membership"], "join")

    async def test_membership_of_state_is_right_where_it_is_told(self) -> None:
        """Shows EVT-14."""
        await self.start()
        await self.bob.join(self.room_id)
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "x"})
        told = {
            (event["type"], event["state_key"]): event["unsigned"].get("membership")
            for event in await self.get(self.bob, "state")
        }
        self.assertEqual(told[("m.room.topic", "")], "join")
        self.assertEqual(told[("m.room.member", self.bob.user_id)], "join")
        self.assertIn(told[("m.room.create", "")], (None, "leave"))

    async def test_what_another_server_put_into_unsigned_is_not_shown(self) -> None:
        """Shows EVT-13."""
        await self.start()
        event_id = await self.alice.send(self.room_id)

        def tamper(txn: Transaction) -> None:
            row = events.get(txn, event_id)
            assert row is not None
            pdu = json.loads(row.json)
            pdu["unsigned"] = {"age": 99, "redacted_because": {}, "m.relations": {}, "more": 1}
            txn.execute(
                "UPDATE events SET json = ? WHERE event_id = ?", (json.dumps(pdu), event_id)
            )

        await self.server.homeserver.db.write(tamper)
        for shown in (await self.event(self.alice, event_id), (await self.messages(self.alice))[0]):
            self.assertEqual(shown["unsigned"].keys(), {"age", "membership", "transaction_id"})

    async def test_only_keys_of_client_events(self) -> None:
        """Shows EVT-13."""
        await self.start()
        await self.alice.send(self.room_id)
        for event in [*(await self.messages(self.alice)), *(await self.get(self.alice, "state"))]:
            self.assertLessEqual(
                event.keys(),
                {
                    "content",
                    "event_id",
                    "origin_server_ts",
                    "room_id",
                    "sender",
                    "state_key",
                    "type",
                    "unsigned",
                },
            )
            self.assertEqual(event["room_id"], self.room_id)


class FederationFormatTest(RoomTestCase):
    async def test_the_stored_form(self) -> None:
        """Shows EVT-17."""
        await self.start()
        event_id = await self.alice.send(self.room_id)

        def read(txn: Transaction) -> list[Any]:
            room = rooms.get(txn, self.room_id)
            row = events.get(txn, event_id)
            assert room is not None and row is not None
            view = RoomView(
                txn,
                self.server.homeserver.services[StateStore],
                room,
                self.alice.user_id,
                self.alice.device_id,
            )
            shown: list[JsonObject] = view.render(view.visible([row]), 0, federation_format=True)
            return [shown[0], json.loads(row.json)]

        shown, stored = await self.server.homeserver.db.read(read)
        self.assertEqual(shown, stored)
        self.assertLessEqual({"auth_events", "prev_events", "hashes", "signatures"}, shown.keys())
