"""Many events of other servers at once: messages that are alike, members by the hundred."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from homeserver.core import auth_rules
from homeserver.core.errors import MatrixError
from storage import memberships, rooms
from storage.events import ACCEPTED, MISPLACED, SOFT_FAILED, TransactionKey
from storage.memberships import MembershipRow
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database
from tests.support.events import ALICE as REMOTE
from tests.support.events import BOB, CAROL
from tests.support.rooms import ALICE


@on_each_database
class AlikeTest(ReceivingCase):
    async def test_they_are_judged_once(self) -> None:
        """What the rules say of a sender's message holds for the next one in the same state."""
        await self.enter()
        said = [self.room.message((BOB, CAROL)[n % 2], f"message {n}") for n in range(20)]

        with patch.object(auth_rules, "check", wraps=auth_rules.check) as checked:
            self.assertEqual(await self.receive(*said), [ACCEPTED] * 20)
        # Each of the two, by the auth events and by the state.
        self.assertEqual(checked.call_count, 4)

    async def test_each_in_its_state(self) -> None:
        """The same sender with the same auth events: before and after the state forbids it."""
        for version in ("1", "11", "12"):
            self.db = await self.open()
            await self.enter(version)
            auth = self.room.message(BOB).auth_event_ids
            allowed = [self.room.message(BOB, str(n), auth=auth) for n in range(3)]
            aside = self.room.fork()
            kick = self.room.kick(self.room.creator, BOB)
            late = [self.room.message(BOB, f"late {n}", auth=auth, add=False) for n in range(2)]
            behind = [aside.message(BOB, f"behind {n}", auth=auth) for n in range(2)]
            first = [event for event in self.room.events.values() if event.prev_event_ids]
            said = next(event for event in first if event.auth_event_ids == auth)
            statuses = await self.receive(said, *allowed, kick, *late, *behind)
            expected = [ACCEPTED] * 5 + [MISPLACED] * 2 + [SOFT_FAILED] * 2
            self.assertEqual(statuses, expected)


@on_each_database
class ManyMembersTest(ReceivingCase):
    said = 0

    async def test_entering_a_large_room_again(self) -> None:
        """The projections of a room with hundreds of members, new ones, changed ones, gone ones."""
        await self.enter()
        names = [f"@user{n}:b.example" for n in range(700)]
        for part, leaving in ((names[:350], []), (names[200:], names[:40])):
            for name in part:
                self.room.join(name, {"displayname": f"{name} of {len(leaving)}"})
            for name in leaving:
                self.room.leave(name)
            before = list(self.room.state.values())
            self.join = self.room.join(ALICE, {"displayname": f"again {len(leaving)}"})
            judged = await self.receiver.adopt(
                self.join, self.room.version, before, self.chain(before)
            )
            self.assertEqual(judged.status, ACCEPTED)
            await self.assert_state()
        members = await self.db.read(self.members)
        self.assertEqual(members[names[0]].membership, "leave")
        self.assertEqual(members[names[100]].displayname, f"{names[100]} of 0")
        self.assertEqual(members[names[300]].displayname, f"{names[300]} of 40")
        self.assertEqual(members[names[699]].membership, "join")

    def chain(self, state: list[Any]) -> list[Any]:
        found: dict[str, Any] = {}
        waiting = list(state)
        while waiting:
            for name in waiting.pop().auth_event_ids:
                if name not in found:
                    found[name] = self.room.events[name]
                    waiting.append(found[name])
        given = {event.event_id for event in state}
        return [event for name, event in found.items() if name not in given]

    def members(self, txn: Transaction) -> dict[str, MembershipRow]:
        room_nid = rooms.nid(txn, self.room.room_id)
        assert room_nid is not None
        found = memberships.of_room(txn, room_nid, ["join", "leave"])
        return {member.user_id: member for member in found}

    async def say(self) -> str:
        """Send a message as a client does; its ID."""
        self.said += 1
        key = TransactionKey("DEVICE", "send/m.room.message", f"t{self.said}")
        content = {"msgtype": "m.text", "body": "hello"}
        return await self.services.send(self.room.room_id, ALICE, content, transaction=key)

    async def test_the_head_is_remembered(self) -> None:
        """What is said here after events of others is built on what they changed, without reading
        it, and is refused where they forbid it."""
        await self.enter(version="11")
        name = self.room.set_state("m.room.name", {"name": "Others'"}, REMOTE)
        await self.receive(name, self.room.message(REMOTE))
        await self.say()
        self.services.ways.clear()
        said = await self.say()
        told = self.room.message(REMOTE, prev=[said], depth=100)
        self.assertEqual(await self.receive(told), [ACCEPTED])
        answer = await self.say()
        self.assertEqual((await self.services.event(answer)).prev_event_ids, (told.event_id,))
        self.assertEqual(self.services.ways, {"plain": 2})
        content = {"users": {REMOTE: 100}, "events_default": 50}
        levels = self.room.event("m.room.power_levels", REMOTE, content, "", prev=[answer])
        self.assertEqual(await self.receive(levels), [ACCEPTED])
        with self.assertRaises(MatrixError) as refused:
            await self.say()
        self.assertEqual(refused.exception.status, 403)
