"""Deleting rooms: everybody leaves, and no row is left."""

from __future__ import annotations

from typing import Any

from storage import room_removal, rooms
from storage.database import Database
from storage.transaction import Transaction
from tests.support.admin import make_admin
from tests.support.room_case import RoomTestCase, q

V1, V2 = "/_synapse/admin/v1", "/_synapse/admin/v2"
_INTERNAL = ("message_words_", "sqlite_")


def tables(txn: Transaction) -> list[tuple[str, list[str]]]:
    """All tables with their columns."""
    if txn.dialect.name == "postgres":
        rows = txn.all(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
        )
        found: dict[str, list[str]] = {}
        for table, column in rows:
            found.setdefault(table, []).append(column)
        return list(found.items())
    names = [row[0] for row in txn.all("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        (name, [row[1] for row in txn.all(f"PRAGMA table_info({name})")])
        for name in names
        if not name.startswith(_INTERNAL)
    ]


async def traces(db: Database, room_id: str, room_nid: int) -> dict[str, int]:
    """How many rows of each table speak of a room, by its ID or its number."""

    def read(txn: Transaction) -> dict[str, int]:
        found = {}
        for table, columns in tables(txn):
            count = 0
            for raw in txn.all(f"SELECT * FROM {table}"):
                row = dict(zip(columns, raw, strict=True))
                texts = [value for value in row.values() if isinstance(value, str)]
                is_here = row.get("room_nid") == room_nid
                count += is_here or any(room_id in text for text in texts)
            if count:
                found[table] = count
        return found

    return await db.read(read)


class DeletionCase(RoomTestCase):
    async def start(self, **room: Any) -> str:
        await super().start(**room)
        await make_admin(self.alice)
        self.db = self.server.homeserver.db
        return self.room_id

    async def delete(self, room_id: str = "", **body: Any) -> Any:
        path = f"{V1}/rooms/{q(room_id or self.room_id)}"
        return await self.alice.ok("DELETE", path, body)

    async def nid(self) -> int:
        found = await self.db.read(rooms.nid, self.room_id)
        assert found is not None
        return found

    async def fill(self) -> None:
        """Have something of the room in as many tables as there are."""
        room, alice, bob = self.room_id, self.alice, self.bob
        await bob.join(room)
        first = await alice.send(room, "hello world")
        await bob.send(
            room,
            {
                "msgtype": "m.text",
                "body": "x",
                "m.relates_to": {"rel_type": "m.thread", "event_id": first},
            },
        )
        await bob.send(
            room,
            {"msgtype": "m.text", "body": "alice!", "m.mentions": {"user_ids": [alice.user_id]}},
        )
        gone = await bob.send(room, "to be redacted")
        await bob.ok("PUT", f"/rooms/{q(room)}/redact/{q(gone)}/t", {})
        await alice.ok("POST", f"/rooms/{q(room)}/receipt/m.read/{q(first)}", {})
        await alice.ok("PUT", f"/directory/room/{q('#alias:hearth.test')}", {"room_id": room})
        await alice.ok("PUT", f"/directory/list/room/{q(room)}", {"visibility": "public"})
        await alice.ok("PUT", f"/user/{q(alice.user_id)}/rooms/{q(room)}/tags/u.x", {"order": 0.5})
        await bob.ok("POST", f"/rooms/{q(room)}/report/{q(first)}", {"reason": "bad"})
        thread = f"/_matrix/client/unstable/io.element.msc4306/rooms/{q(room)}/thread/{q(first)}"
        await alice.ok("PUT", f"{thread}/subscription", {})


class TestDeletion(DeletionCase):
    async def test_nothing_is_left(self) -> None:
        """Shows XC-4."""
        await self.start()
        await self.fill()
        nid = await self.nid()
        since = (await self.bob.sync())["next_batch"]
        answer = await self.delete()
        self.assertEqual(
            answer,
            {
                "kicked_users": [self.alice.user_id, self.bob.user_id],
                "failed_to_kick_users": [],
                "local_aliases": [],
                "new_room_id": None,
            },
        )
        left = await traces(self.db, self.room_id, nid)
        left.pop("invalidations", None)
        self.assertEqual(set(left), {"room_tasks", "gone_rooms"})
        synced = await self.bob.sync(since)
        section = synced["rooms"]["leave"][self.room_id]
        self.assertEqual(section["timeline"]["events"][0]["content"], {"membership": "leave"})
        again = await self.bob.sync(synced["next_batch"])
        self.assertNotIn("leave", again.get("rooms", {}))
        self.assertEqual((await self.bob.sync()).get("rooms", {}), {})
        self.assert_error(
            await self.bob.call("POST", f"/join/{q(self.room_id)}", {}), 404, "M_NOT_FOUND"
        )

    async def test_all_tables_with_rooms_are_known(self) -> None:
        await self.start()
        known = {table.name for table in room_removal.BY_NUMBER} | {
            "events",
            "message_words",
            "rooms",
        }
        ids = {table.name for table in room_removal.BY_ID} | set(room_removal.KEPT) | {"rooms"}
        for table, columns in await self.db.read(tables):
            if "room_nid" in columns:
                self.assertIn(table, known)
            if "room_id" in columns:
                self.assertIn(table, ids)
            if "event_nid" in columns:
                self.assertIn(table, {*known, *room_removal.BY_EVENT})
