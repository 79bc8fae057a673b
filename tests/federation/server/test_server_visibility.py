"""What other servers are shown of a room's history."""

from __future__ import annotations

from typing import Any

from storage import erasures
from storage.transaction import Transaction
from tests.federation.server.served import (
    BACKFILL,
    BY_TIME,
    STATE,
    ServedCase,
)


class VisibilityTest(ServedCase):
    async def prepare(self, visibility: str, *, invite: bool = False) -> tuple[str, str, str]:
        """Messages before the other server's invitation, before its join, and after."""
        rule = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
        await self.begin(join=False, initial_state=[{**rule, "state_key": ""}], topic="Old")
        early = await self.alice.send(self.room_id, "early")
        if invite:
            await self.other.invited(self.room_id, self.alice.user_id)
        between = await self.alice.send(self.room_id, "between")
        self.joined = await self.other.membership(self.room_id)
        return early, between, await self.alice.send(self.room_id, "late")

    async def contents(self, *event_ids: str) -> list[Any]:
        """Contents by /event; the other ways must tell the same."""
        found: dict[str, Any] = {}
        last = event_ids[-1]
        status, answer = await self.other.get(
            BACKFILL, self.room_id, query={"v": last, "limit": 100}
        )
        self.assertEqual(status, 200)
        pdus = answer["pdus"]
        status, answer = await self.ask_missing([last], limit=100)
        self.assertEqual(status, 200)
        for pdu in [*pdus, *answer["events"]]:
            known = found.setdefault(self.id_of(pdu), pdu)
            self.assertEqual(pdu, known)
        for event_id in event_ids:
            self.assertEqual(await self.served(event_id), found[event_id])
        return [found[event_id]["content"].get("body") for event_id in event_ids]

    async def test_shared_and_world_readable(self) -> None:
        """Shows BF-3, HV-3."""
        for visibility in ("shared", "world_readable", "nonsense"):
            found = await self.prepare(visibility)
            self.assertEqual(await self.contents(*found), ["early", "between", "late"])

    async def test_joined(self) -> None:
        """Shows BF-3, HV-3."""
        found = await self.prepare("joined")
        self.assertEqual(await self.contents(*found), [None, None, "late"])

    async def test_invited(self) -> None:
        """Shows BF-3, HV-3."""
        found = await self.prepare("invited", invite=True)
        self.assertEqual(await self.contents(*found), [None, "between", "late"])
        found = await self.prepare("joined", invite=True)
        self.assertEqual(await self.contents(*found), [None, None, "late"])

    async def test_the_redacted_form_is_the_specified_one(self) -> None:
        """Shows BF-3."""
        early, _, _ = await self.prepare("joined")
        stored = await self.stored(early)
        self.assertEqual(await self.served(early), stored.redacted().pdu)

    async def test_joined_after_a_stay_and_before_the_next(self) -> None:
        """Shows BF-3, HV-1."""
        _, _, during = await self.prepare("joined")
        await self.other.membership(self.room_id, "leave")
        away = await self.alice.send(self.room_id, "away")
        await self.other.membership(self.room_id)
        back = await self.alice.send(self.room_id, "back")
        self.assertEqual(await self.contents(during, away, back), ["late", None, "back"])

    async def test_any_user_of_the_server_counts(self) -> None:
        """Shows BF-3."""
        _, _, during = await self.prepare("joined")
        for number in range(30):
            await self.other.membership(self.room_id, localpart=f"u{number}")
            await self.other.membership(self.room_id, "leave", localpart=f"u{number}")
        await self.other.membership(self.room_id, localpart="second")
        await self.other.membership(self.room_id, "leave")
        later = await self.alice.send(self.room_id, "later")
        self.assertEqual(await self.contents(during, later), ["late", "later"])

    async def test_the_visibility_at_the_event_counts(self) -> None:
        """Shows BF-3, HV-1, HV-4."""
        early, between, late = await self.prepare("joined")
        rule = "m.room.history_visibility"
        await self.other.membership(self.room_id, "leave")
        opened = await self.alice.set_state(
            self.room_id, rule, {"history_visibility": "shared", "body": "opened"}
        )
        free = await self.alice.send(self.room_id, "free")
        closed = await self.alice.set_state(
            self.room_id, rule, {"history_visibility": "joined", "body": "closed"}
        )
        hidden = await self.alice.send(self.room_id, "hidden")
        await self.other.membership(self.room_id)
        last = await self.alice.send(self.room_id, "last")
        self.assertEqual(
            await self.contents(early, between, late, opened, free, closed, hidden, last),
            [None, None, "late", "opened", "free", "closed", None, "last"],
        )

    async def test_state_before_the_join(self) -> None:
        """The state in which an event that may be seen was sent may be seen, and the current
        state. Shows BF-3."""
        early, _, late = await self.prepare("joined")
        topics = {}
        for event_id in (early, self.joined, late):
            status, answer = await self.other.get(STATE, self.room_id, query={"event_id": event_id})
            self.assertEqual(status, 200)
            topics[event_id] = [
                pdu["content"].get("topic")
                for pdu in answer["pdus"]
                if pdu["type"] == "m.room.topic"
            ]
        self.assertEqual(topics, {early: [None], self.joined: ["Old"], late: ["Old"]})
        old = (await self.current())["m.room.topic", ""]
        self.assertEqual((await self.served(old))["content"]["topic"], "Old")
        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "New"})
        self.assertNotIn("topic", (await self.served(old))["content"])

    async def test_by_time_nothing_is_found_that_may_not_be_seen(self) -> None:
        """Shows BF-3, BF-12."""
        _, between, _ = await self.prepare("joined")
        ts = (await self.stored(between)).origin_server_ts
        for direction in ("f", "b"):
            _, answer = await self.other.get(
                BY_TIME, self.room_id, query={"ts": ts, "dir": direction}
            )
            self.assertNotEqual(answer.get("event_id"), between)

    async def test_events_of_erased_users(self) -> None:
        """Shows HV-7."""
        await self.begin(join=False)
        await self.bob.join(self.room_id)
        event_id = await self.bob.send(self.room_id, "mine")
        await self.db.write(_erase, self.bob.user_id)
        await self.alice.send(self.room_id)
        await self.other.membership(self.room_id)
        self.assertEqual((await self.served(event_id))["content"], {})

    async def test_events_of_users_who_were_erased_later(self) -> None:
        """Shows HV-7."""
        await self.begin()
        await self.bob.join(self.room_id)
        event_id = await self.bob.send(self.room_id, "mine")
        await self.db.write(_erase, self.bob.user_id)
        self.assertEqual((await self.served(event_id))["content"]["body"], "mine")


def _erase(txn: Transaction, user_id: str) -> None:
    erasures.record(txn, user_id)
    txn.next_pos()
