"""Messages that come one right after the other are taken as one after the other would be."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import patch

from homeserver.core.event import Event
from homeserver.rooms.receiving import Receiving
from storage.events import ACCEPTED
from storage.transaction import Transaction
from tests.homeserver.rooms.test_receiving import ReceivingCase
from tests.support.databases import on_each_database
from tests.support.events import BOB, CAROL, RoomBuilder

_STORED = (
    "SELECT * FROM events ORDER BY event_nid",
    "SELECT room_id, head_version, state_version, depth, extremities, state_root, last_pos,"
    " notify_total, highlight_total, remote_servers FROM rooms",
    "SELECT * FROM current_state ORDER BY 1, 2, 3",
    "SELECT room_nid, user_id, membership, event_id, pos FROM memberships ORDER BY 2",
    "SELECT * FROM event_gaps ORDER BY 1, 2, 3",
)


def history(drawn: random.Random, room: RoomBuilder) -> list[Event]:
    """Messages for the most part, with what ends and parts their runs."""
    events: list[Event] = []
    aside: RoomBuilder | None = None
    for number in range(40):
        sender = drawn.choice((BOB, BOB, CAROL, room.creator))
        match drawn.randrange(16):
            case 0:
                name = {"name": f"name {number}"}
                events.append(room.set_state("m.room.name", name, drawn.choice((sender, BOB))))
            case 1:
                events.append(room.event("m.room.message", sender, {"body": "state"}, ""))
            case 2 if events:
                events.append(room.redaction(sender, drawn.choice(events)))
            case 3:
                aside = room.fork()
            case 4 if aside is not None:
                events.append(aside.message(sender, f"aside {number}"))
            case 5:
                auth = [each.event_id for each in room.state.values()][: drawn.randint(1, 4)]
                events.append(room.message(sender, f"odd {number}", auth=auth, add=False))
            case 6:
                lost = room.message(sender, f"lost {number}", add=False)
                prev = [lost.event_id]
                events.append(room.message(sender, "after it", prev=prev, depth=50, add=False))
            case 7:
                levels: dict[str, Any] = dict(room.state["m.room.power_levels", ""].content)
                levels["events_default"] = drawn.choice((0, 0, 0, 1))
                events.append(room.event("m.room.power_levels", room.creator, levels, ""))
            case 8:
                events.append(room.message("@stranger:c.example", "let me in", add=False))
            case _:
                bodies = [f"message {number}.{part}" for part in range(drawn.randint(1, 6))]
                events += [room.message(sender, body) for body in bodies]
    return events


@on_each_database
class RunsTest(ReceivingCase):
    taken = 0

    async def outcome(self, version: str, seed: int, *, in_runs: bool) -> list[Any]:
        """What is judged and stored of a history, in batches."""
        self.db = await self.open()
        drawn = random.Random(seed)
        await self.enter(version)
        found: list[Any] = []
        go_on = Receiving._go_on

        def counted(receiving: Receiving, fresh: Any, place: int, *rest: Any) -> int:
            behind = go_on(receiving, fresh, place, *rest) if in_runs else place
            self.taken += behind - place
            return behind

        events = history(drawn, self.room)
        with patch.object(Receiving, "_go_on", counted):
            while events:
                size = drawn.randint(1, 40)
                batch = events[:size]
                del events[:size]
                if drawn.random() < 0.3:
                    drawn.shuffle(batch)
                judged = await self.receiver.add(self.room.room_id, batch)
                found.append([judged[event.event_id] for event in batch])
        found.append(self.resets)
        found += await self.db.read(self.stored)
        return found

    def stored(self, txn: Transaction) -> list[Any]:
        return [txn.all(sql) for sql in _STORED]

    async def test_the_same_comes_of_it(self) -> None:
        for version, seeds in (("11", range(6)), ("12", range(3)), ("1", range(3))):
            self.taken = 0
            for seed in seeds:
                expected = await self.outcome(version, seed, in_runs=False)
                found = await self.outcome(version, seed, in_runs=True)
                self.assertEqual(found, expected, (version, seed))
            self.assertGreater(self.taken, 10)

    async def test_nearly_all_of_a_transaction(self) -> None:
        await self.enter("11")
        said = [self.room.message((BOB, CAROL)[n % 2], str(n)) for n in range(50)]
        with patch.object(Receiving, "_one", autospec=True, side_effect=Receiving._one) as singly:
            self.assertEqual(await self.receive(*said), [ACCEPTED] * 50)
        self.assertEqual(singly.call_count, 2)
