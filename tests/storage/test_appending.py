"""Messages that are written by one statement: what it finds out, and what it leaves alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import TestCase

from storage import clock, events, rooms
from storage.appending import Added, Append, Move, NotSimple
from storage.database import backend_for
from storage.errors import CommitUnknown, IntegrityViolation, InvalidText
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.single import in_thread
from storage.transaction import Transaction
from tests.support.databases import (
    DatabaseTestCase,
    administer,
    chosen_kinds,
    migrated_database,
    on_each_database,
)

ROOT = b"\x00'\\" * 10 + b"\xff\x1e"


def room(nid: int, version: int = 5) -> RoomRow:
    return RoomRow(nid, f"!{nid}:x", "12", version, version, ("$x",), ROOT, 1, 7, 2, 0, 0, 0)


def row(number: int, pos: int, place: RoomRow, **fields: Any) -> EventRow:
    """A message that a room's row counts already."""
    values: dict[str, Any] = dict.fromkeys(EventRow._fields)
    values |= {
        "event_nid": number,
        "event_id": f"${number}",
        "room_nid": place.room_nid,
        "pos": pos,
        "depth": place.depth,
        "type": "m.room.message",
        "sender": "@a:x",
        "origin_server_ts": 2**52,
        "json": '{"a":"\\\\u001e \'%s\\"{},"}',
        "status": 0,
        "state_before": ROOT,
        "state_after": ROOT,
        "contains_url": False,
        "notify": 1,
        "notify_total": place.notify_total,
        "highlight_total": place.highlight_total,
        "txn_device": "",
        "txn_scope": "send/m.room.message",
        "txn_id": f"t{number}",
        "outgoing": False,
    }
    return EventRow(**{**values, **fields})


def messages(
    first: int, places: dict[RoomRow, int], **fields: Any
) -> tuple[list[Move], list[EventRow]]:
    """So many messages for each of these rooms, numbered from `first`."""
    moves: list[Move] = []
    rows: list[EventRow] = []
    for before, count in places.items():
        after = before
        for _ in range(count):
            number = first + len(rows)
            after = after._replace(
                head_version=after.head_version + 1,
                depth=after.depth + 1,
                extremities=(f"${number}",),
                notify_total=after.notify_total + 1,
            )
            rows.append(row(number, len(rows) + 1, after, **fields))
        moves.append(Move(before, after, count))
    return moves, rows


def stored(txn: Transaction) -> tuple[list[EventRow], dict[int, RoomRow], int]:
    """All events in the order of positions, all rooms, and the clock."""
    found = txn.all(f"SELECT {events.COLUMNS} FROM events ORDER BY pos")
    heads = txn.all(f"SELECT {rooms.COLUMNS} FROM rooms")
    by_nid = {head.room_nid: head for head in map(rooms.from_row, heads)}
    return [EventRow(*raw) for raw in found], by_nid, clock.position(txn)


@on_each_database
class AppendingTest(DatabaseTestCase):
    async def prepare(self) -> None:
        self.db = await self.open(connections=10)
        await self.db.write(rooms.put, [room(1), room(2), room(3)])
        self.before = await self.db.read(stored)

    async def append(self, moves: list[Move], rows: list[EventRow]) -> Added:
        return await self.db.write_single(Append(moves, rows))

    async def assert_nothing_was_written(self) -> None:
        self.assertEqual(await self.db.read(stored), self.before)

    async def test_what_is_written(self) -> None:
        """Also many times, as statements are prepared."""
        places = [room(1), room(2), room(3)]
        expected: list[EventRow] = []
        base = self.before[2]
        for turn in range(30):
            number = 1 + 3 * turn
            # Two for one room, one for another, in changing order.
            chosen = {places[turn % 3]: 2, places[(turn + 1) % 3]: 1}
            fields = {
                "contains_url": turn % 2 == 0,
                "outgoing": turn % 3 == 0,
                "notify": turn % 3,
                "txn_device": ["", "D'\\", "ü"][turn % 3],
                "type": ["m.room.message", "{},\"'", "🐘"][turn % 3],
            }
            moves, rows = messages(number, chosen, **fields)
            added = await self.append(moves, rows)
            self.assertEqual(added, Added(base, ()))
            expected += [each._replace(pos=base + (each.pos or 0)) for each in rows]
            pos = base
            for move in moves:
                pos += move.added
                after = move.after._replace(last_pos=pos)
                places[places.index(move.before)] = after
            base += 3
        found, heads, position = await self.db.read(stored)
        self.assertEqual(position, base)
        self.assertEqual(self.db.positions.applied, base)
        self.assertEqual(
            [each._replace(contains_url=bool(each.contains_url)) for each in found], expected
        )
        self.assertEqual(heads, {head.room_nid: head for head in places})

    async def test_a_head_that_has_moved_on(self) -> None:
        moves, rows = messages(1, {room(1): 1, room(2, 4): 2, room(3): 1})
        self.assertEqual(await self.append(moves, rows), Added(None, (2,)))
        await self.assert_nothing_was_written()

    async def test_a_room_that_is_gone(self) -> None:
        moves, rows = messages(1, {room(1): 1, room(4): 1})
        self.assertEqual(await self.append(moves, rows), Added(None, (4,)))
        await self.assert_nothing_was_written()

    async def test_a_redaction_that_waits_for_a_message(self) -> None:
        await self.db.write(events.hold_redaction, "$2", "$r")
        moves, rows = messages(1, {room(1): 3})
        self.assertEqual(await self.append(moves, rows), Added(None, ()))
        await self.assert_nothing_was_written()

    async def test_a_repeated_transaction(self) -> None:
        moves, rows = messages(1, {room(1): 1})
        await self.append(moves, rows)
        self.before = await self.db.read(stored)
        moves, rows = messages(11, {self.before[1][1]: 2, room(2): 1}, txn_id="t1")
        with self.assertRaises(IntegrityViolation):
            await self.append(moves, rows)
        await self.assert_nothing_was_written()
        # In another room, scope or device it is another transaction.
        for number, fields in enumerate(({}, {"txn_scope": "s"}, {"txn_device": "d"}), 21):
            moves, rows = messages(number, {room(2, 5 + number - 21): 1}, txn_id="t1", **fields)
            moves = [
                Move(m.before, m.after._replace(head_version=6 + number - 21), 1) for m in moves
            ]
            self.assertIsNotNone((await self.append(moves, rows)).base)

    async def test_what_cannot_be_written_so(self) -> None:
        for fields in (
            {"state_key": ""},
            {"relates_to": "$x"},
            {"replaces_state": "$x"},
            {"redacted_by": "$x"},
            {"status": 1},
            {"txn_id": None},
        ):
            with self.assertRaises(NotSimple):
                await self.append(*messages(1, {room(1): 1}, **fields))
        for fields in ({"type": "\x00"}, {"type": "\ud800"}):
            with self.assertRaises(InvalidText):
                await self.append(*messages(1, {room(1): 1}, **fields))
        await self.assert_nothing_was_written()

    async def test_the_separator_in_a_text(self) -> None:
        """Such a message is written as it is, or not in this way."""
        moves, rows = messages(1, {room(1): 2}, type="a\x1eb")
        if self.kind == "postgres":
            with self.assertRaises(NotSimple):
                await self.append(moves, rows)
            await self.assert_nothing_was_written()
        else:
            await self.append(moves, rows)
            self.assertEqual((await self.db.read(stored))[0][0].type, "a\x1eb")


class WaitingTest(TestCase):
    """What the statement sees once it has waited for another transaction, on PostgreSQL."""

    if "postgres" not in chosen_kinds():
        skip = "PostgreSQL is not among HEARTH_TEST_DATABASES"

    def setUp(self) -> None:
        self.url = migrated_database(self, "postgres")
        self.other = self.session()
        self.in_transaction(lambda txn: rooms.put(txn, [room(1), room(2)]))

    def session(self) -> Any:
        session = backend_for(self.url).connect(writable=True)
        self.addCleanup(session.close)
        return session

    def in_transaction(self, work: Callable[[Transaction], Any]) -> Any:
        txn = self.other.begin()
        found = work(txn)
        self.other.commit()
        return found

    def while_locked(
        self, work: Callable[[Transaction], object], moves: list[Move], rows: list[EventRow]
    ) -> Any:
        """What the statement comes to if another transaction does this and ends while it waits."""
        mine = self.session()
        outcome: list[Any] = []

        def append() -> None:
            txn = mine.begin_single()
            try:
                outcome.append(in_thread(txn, Append(moves, rows)))
                mine.commit()
            except Exception as error:
                outcome.append(error)
                mine.rollback()

        blocking = self.other.begin()
        work(blocking)
        thread = threading.Thread(target=append)
        thread.start()
        self.wait_until_blocked()
        self.assertEqual(outcome, [])
        self.other.commit()
        thread.join(30)
        return outcome[0]

    def wait_until_blocked(self) -> int:
        """The process that waits for a lock."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = administer(
                "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()",
                self.url,
            )
            if found:
                return int(found[0][0])
            time.sleep(0.01)
        raise AssertionError("nothing waits")

    def test_it_is_planned_once(self) -> None:
        """Planning it takes longer than running it."""
        for turn in range(40):
            places = {room(1, 5 + turn): 1} if turn % 2 else {room(2, 5 + turn): 1}
            txn = self.other.begin_single()
            in_thread(txn, Append(*messages(1 + turn, places)))
            self.other.commit()
            txn = self.other.begin()
            rooms.put(txn, [room(1, 6 + turn), room(2, 6 + turn)])
            self.other.commit()
        plans = self.in_transaction(
            lambda txn: txn.all(
                "SELECT to_jsonb(p)->>'custom_plans' FROM pg_prepared_statements p"
                " WHERE statement LIKE '%string_to_array%' AND statement LIKE 'PREPARE%'"
            )
        )
        self.assertEqual(len(plans), 1)
        if plans[0][0] is not None:  # from PostgreSQL 14 on
            self.assertLessEqual(int(plans[0][0]), 5)

    def test_for_a_head_that_moves_on(self) -> None:
        def move(txn: Transaction) -> None:
            rooms.lock(txn, ["!1:x"])
            txn.next_pos()
            rooms.put(txn, [room(1, 6)])

        moves, rows = messages(1, {room(1): 2, room(2): 1})
        self.assertEqual(self.while_locked(move, moves, rows), Added(None, (1,)))
        found, heads, position = self.in_transaction(stored)
        self.assertEqual((found, position), ([], 1))
        self.assertEqual(heads, {1: room(1, 6), 2: room(2)})

    def test_for_a_room_that_changes_but_for_its_head(self) -> None:
        """Another version of the row, which the snapshot does not have, is updated."""

        def touch(txn: Transaction) -> None:
            txn.execute("UPDATE rooms SET created_ts = 77 WHERE room_nid = 1")

        moves, rows = messages(1, {room(1): 2, room(2): 1})
        self.assertEqual(self.while_locked(touch, moves, rows), Added(0, ()))
        found, heads, position = self.in_transaction(stored)
        self.assertEqual(([each.pos for each in found], position), ([1, 2, 3], 3))
        self.assertEqual(heads[1], moves[0].after._replace(last_pos=2, created_ts=77))
        self.assertEqual(heads[2], moves[1].after._replace(last_pos=3))

    def test_for_a_lock_that_changes_nothing(self) -> None:
        moves, rows = messages(1, {room(1): 2})
        added = self.while_locked(lambda txn: rooms.lock(txn, ["!1:x"]), moves, rows)
        self.assertEqual(added, Added(0, ()))
        self.assertEqual(len(self.in_transaction(stored)[0]), 2)

    def test_for_the_clock(self) -> None:
        """Positions follow those of the transaction that had it."""
        moves, rows = messages(1, {room(1): 2, room(2): 2})
        added = self.while_locked(lambda txn: txn.next_pos(100), moves, rows)
        self.assertEqual(added, Added(100, ()))
        found, heads, position = self.in_transaction(stored)
        self.assertEqual([each.pos for each in found], [101, 102, 103, 104])
        self.assertEqual(position, 104)
        self.assertEqual((heads[1].last_pos, heads[2].last_pos), (102, 104))

    def test_for_a_transaction_that_is_rolled_back(self) -> None:
        moves, rows = messages(1, {room(1): 1})
        mine = self.session()
        outcome: list[Added] = []

        def append() -> None:
            outcome.append(in_thread(mine.begin_single(), Append(moves, rows)))

        blocking = self.other.begin()
        rooms.lock(blocking, ["!1:x"])
        thread = threading.Thread(target=append)
        thread.start()
        self.wait_until_blocked()
        self.other.rollback()
        thread.join(30)
        self.assertEqual(outcome, [Added(0, ())])

    def test_a_connection_that_is_lost_meanwhile(self) -> None:
        """Whether anything was written is for the caller to find out."""
        mine = self.session()
        outcome: list[BaseException] = []

        def append() -> None:
            try:
                in_thread(mine.begin_single(), Append(*messages(1, {room(1): 1})))
            except Exception as error:
                outcome.append(error)

        blocking = self.other.begin()
        rooms.lock(blocking, ["!1:x"])
        thread = threading.Thread(target=append)
        thread.start()
        administer(f"SELECT pg_terminate_backend({self.wait_until_blocked()})", self.url)
        thread.join(30)
        self.other.rollback()
        self.assertIsInstance(outcome[0], CommitUnknown)
        self.assertTrue(mine.broken)
