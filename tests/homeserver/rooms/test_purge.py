"""Purging histories: what goes, what stays, and that the rest works."""

from __future__ import annotations

from typing import Any

from homeserver.core import state_tree
from homeserver.rooms import purge as purge_module
from homeserver.rooms.purge import HistoryPurge, Point
from homeserver.rooms.room_tasks import RoomTasks
from storage import rooms, state_nodes
from storage.database import Database
from storage.transaction import Transaction
from tests.support.admin import make_admin
from tests.support.room_case import RoomTestCase, q

ADMIN = "/_synapse/admin/v1"


async def reachable_nodes(db: Database, room_id: str) -> tuple[set[bytes], set[bytes]]:
    """The hashes of the nodes that a room's states have, and of those that are stored."""

    def read(txn: Transaction) -> tuple[set[bytes], set[bytes]]:
        nid = rooms.nid(txn, room_id)
        assert nid is not None
        live = level = state_nodes.roots(txn, nid)
        while level:
            level = state_tree.below(level, lambda names: state_nodes.load(txn, nid, names)) - live
            live = live | level
        rows = txn.all("SELECT hash FROM state_nodes WHERE room_nid = ?", (nid,))
        return live - {state_tree.EMPTY}, {bytes(row[0]) for row in rows}

    return await db.read(read)


class PurgeCase(RoomTestCase):
    async def start(self, **room: Any) -> str:
        await super().start(**room)
        self.db = self.server.homeserver.db
        await make_admin(self.alice)
        return self.room_id

    async def purge(self, point: str = "", **body: Any) -> str:
        """Purge the room; how it ended."""
        path = f"{ADMIN}/purge_history/{q(self.room_id)}" + (f"/{q(point)}" if point else "")
        answer = await self.alice.ok("POST", path, body)
        await self.server.homeserver.services[RoomTasks].over(answer["purge_id"])
        status = await self.alice.ok("GET", f"{ADMIN}/purge_history_status/{answer['purge_id']}")
        return str(status["status"])

    async def count(self, sql: str, *args: Any) -> int:
        found: int = await self.db.read(lambda txn: txn.value(sql, args))
        return found


class TestPurge(PurgeCase):
    async def test_messages_before_an_event_go(self) -> None:
        """Shows XC-4."""
        await self.start()
        await self.bob.join(self.room_id)
        sent = [await self.alice.send(self.room_id, f"number {n}") for n in range(10)]
        self.assertEqual(await self.purge(sent[5], delete_local_events=True), "complete")
        left = [
            e["event_id"] for e in await self.messages(self.bob) if e["type"] == "m.room.message"
        ]
        self.assertEqual(left, sent[:4:-1])
        for event_id in sent[:5]:
            answer = await self.bob.call("GET", f"/rooms/{q(self.room_id)}/event/{q(event_id)}")
            self.assert_error(answer, 404, "M_NOT_FOUND")
        self.assertEqual(
            await self.count("SELECT COUNT(*) FROM events WHERE type = 'm.room.message'"), 5
        )
        live, stored = await reachable_nodes(self.db, self.room_id)
        self.assertEqual(live, stored)
        await self.bob.send(self.room_id, "and on")
