"""Deleting rooms: everybody leaves, and no row is left."""

from __future__ import annotations

from typing import Any

from homeserver.core.errors import forbidden
from homeserver.rooms import deletion
from homeserver.rooms.deletion import Deletion, RoomDeletion
from homeserver.rooms.membership import Membership
from homeserver.rooms.room_tasks import RoomTasks
from homeserver.rooms.shutdown import NOTHING_DONE
from homeserver.web.request import Requester
from storage import room_removal, room_tasks, rooms
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

    async def slide(self, pos: str | None = None) -> Any:
        """Bob's next answer of sliding sync."""
        path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
        rooms = {"ranges": [[0, 9]], "timeline_limit": 5, "required_state": []}
        query = {"timeout": 0} if pos is None else {"timeout": 0, "pos": pos}
        return await self.bob.ok("POST", path, {"lists": {"all": rooms}}, query=query)


class TestDeletion(DeletionCase):
    async def test_nothing_is_left(self) -> None:
        """Shows XC-4."""
        await self.start()
        await self.fill()
        nid = await self.nid()
        since = (await self.bob.sync())["next_batch"]
        pos = (await self.slide())["pos"]
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
        slid = await self.slide(pos)
        self.assertEqual(slid["rooms"][self.room_id]["membership"], "leave")
        self.assertEqual(slid["rooms"][self.room_id]["timeline"][0]["type"], "m.room.member")
        self.assertEqual((await self.slide(slid["pos"]))["rooms"], {})
        again = await self.bob.sync(synced["next_batch"])
        self.assertNotIn("leave", again.get("rooms", {}))
        self.assertEqual((await self.bob.sync()).get("rooms", {}), {})
        self.assert_error(
            await self.bob.call("POST", f"/join/{q(self.room_id)}", {}), 404, "M_NOT_FOUND"
        )

    async def test_accounts_that_are_closed_are_told_nothing(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        await self.delete()
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.bob.user_id},
            "password": "wonderland",
        }
        await self.bob.ok("POST", "/account/deactivate", {"auth": auth})
        rows = await self.db.read(lambda txn: txn.all("SELECT user_id FROM gone_rooms"))
        self.assertEqual(rows, [(self.alice.user_id,)])

    async def test_all_tables_with_rooms_are_known(self) -> None:
        await self.start()
        known = {table.name for table in room_removal.BY_NUMBER} | {
            "events",
            "message_words",
            *room_removal.KEPT,
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


class TestShutdown(DeletionCase):
    """Shows XC-4."""

    async def test_users_and_aliases_move(self) -> None:
        await self.start()
        await self.bob.join(self.room_id)
        carol = await self.server.register("carol")
        await self.alice.invite(self.room_id, carol.user_id)
        alias = "#here:hearth.test"
        await self.alice.ok("PUT", f"/directory/room/{q(alias)}", {"room_id": self.room_id})
        body: dict[str, Any] = {
            "new_room_user_id": "@warden:hearth.test",
            "room_name": "Moved",
            "message": "It was bad.",
            "block": True,
        }
        answer = await self.delete(**body)
        new = answer["new_room_id"]
        self.assertEqual(
            sorted(answer["kicked_users"]),
            sorted([self.alice.user_id, self.bob.user_id, carol.user_id]),
        )
        self.assertEqual(answer["local_aliases"], [alias])
        found = await self.bob.ok("GET", f"/directory/room/{q(alias)}")
        self.assertEqual(found["room_id"], new)
        joined = (await self.bob.ok("GET", "/joined_rooms"))["joined_rooms"]
        self.assertEqual(joined, [new])
        self.assertEqual((await carol.ok("GET", "/joined_rooms"))["joined_rooms"], [])
        page = await self.bob.ok("GET", f"/rooms/{q(new)}/messages", query={"dir": "b"})
        said = [e["content"]["body"] for e in page["chunk"] if e["type"] == "m.room.message"]
        self.assertEqual(said, ["It was bad."])
        state = await self.bob.ok("GET", f"/rooms/{q(new)}/state/m.room.name/")
        self.assertEqual(state, {"name": "Moved"})
        answer = await self.bob.call("PUT", f"/rooms/{q(new)}/send/m.room.message/t", {"body": "x"})
        self.assert_error(answer, 403, "M_FORBIDDEN")
        block = await self.alice.ok("GET", f"{V1}/rooms/{q(self.room_id)}/block")
        self.assertEqual(block, {"block": True, "user_id": self.alice.user_id})

    async def test_without_purge(self) -> None:
        """The room stays; its users are out and have forgotten it."""
        await self.start()
        await self.bob.join(self.room_id)
        since = (await self.bob.sync())["next_batch"]
        answer = await self.delete(purge=False)
        self.assertEqual(sorted(answer["kicked_users"]), [self.alice.user_id, self.bob.user_id])
        details = await self.alice.ok("GET", f"{V1}/rooms/{q(self.room_id)}")
        self.assertEqual((details["joined_members"], details["forgotten"]), (0, True))
        self.assertIn(self.room_id, (await self.bob.sync(since))["rooms"]["leave"])
        await self.bob.join(self.room_id)

    async def test_in_the_background(self) -> None:
        """The second version tells how far it is."""
        await self.start()
        await self.bob.join(self.room_id)
        path = f"{V2}/rooms/{q(self.room_id)}"
        delete_id = (await self.alice.ok("DELETE", path, {}))["delete_id"]
        again = await self.alice.call("DELETE", path, {})
        self.assertEqual(again.status, 400)
        self.assert_error(
            await self.bob.call("POST", f"/join/{q(self.room_id)}", {}), 403, "M_FORBIDDEN"
        )
        await self.server.homeserver.services[RoomTasks].over(delete_id)
        status = await self.alice.ok("GET", f"{V2}/rooms/delete_status/{delete_id}")
        kicked = status["shutdown_room"]["kicked_users"]
        self.assertEqual(sorted(kicked), [self.alice.user_id, self.bob.user_id])
        expected = {
            "delete_id": delete_id,
            "room_id": self.room_id,
            "status": "complete",
            "shutdown_room": {
                "kicked_users": kicked,
                "failed_to_kick_users": [],
                "local_aliases": [],
                "new_room_id": None,
            },
        }
        self.assertEqual(status, expected)
        listed = await self.alice.ok("GET", f"{path}/delete_status")
        self.assertEqual(listed, {"results": [expected]})
        other = f"{V2}/rooms/{q('!other:hearth.test')}/delete_status"
        self.assert_error(await self.alice.call("GET", other), 404, "M_NOT_FOUND")
        path = f"{V2}/rooms/delete_status/nothing"
        self.assert_error(await self.alice.call("GET", path), 404, "M_NOT_FOUND")

    async def test_rooms_that_are_not_known(self) -> None:
        """They can be blocked, and nothing else; bad requests are told so."""
        await self.start()
        path = f"{V1}/rooms/{q('!unknown:hearth.test')}"
        self.assert_error(await self.alice.call("DELETE", path, {}), 404, "M_NOT_FOUND")
        answer = await self.alice.ok("DELETE", path, {"block": True})
        self.assertEqual(answer["kicked_users"], [])
        self.assertTrue((await self.alice.ok("GET", f"{path}/block"))["block"])
        path = f"{V1}/rooms/{q(self.room_id)}"
        for body in (
            {"new_room_user_id": "@x:elsewhere.test"},
            {"new_room_user_id": "nobody"},
            {"block": "yes"},
            {"purge": 1},
        ):
            self.assertEqual((await self.alice.call("DELETE", path, body)).status, 400)
        self.assert_error(await self.bob.call("DELETE", path, {}), 403, "M_FORBIDDEN")

    async def test_blocked_rooms(self) -> None:
        """Who is in stays in; nobody comes in."""
        await self.start()
        path = f"{V1}/rooms/{q(self.room_id)}/block"
        await self.alice.ok("PUT", path, {"block": True})
        join = await self.bob.call("POST", f"/join/{q(self.room_id)}", {})
        self.assert_error(join, 403, "M_FORBIDDEN")
        knock = await self.bob.call("POST", f"/knock/{q(self.room_id)}", {})
        self.assert_error(knock, 403, "M_FORBIDDEN")
        body = {"user_id": self.bob.user_id}
        invite = await self.alice.call("POST", f"/rooms/{q(self.room_id)}/invite", body)
        self.assert_error(invite, 403, "M_FORBIDDEN")
        alias = f"/directory/room/{q('#new:hearth.test')}"
        answer = await self.alice.call("PUT", alias, {"room_id": self.room_id})
        self.assert_error(answer, 403, "M_FORBIDDEN")
        await self.alice.send(self.room_id, "still here")
        await self.alice.ok("PUT", path, {"block": False})
        await self.bob.join(self.room_id)
        self.assertEqual(await self.alice.ok("GET", path), {"block": False})
        self.assert_error(await self.bob.call("GET", path), 403, "M_FORBIDDEN")
        self.assert_error(await self.alice.call("PUT", path, {}), 400, "M_MISSING_PARAM")


class TestInterruptedDeletion(DeletionCase):
    async def test_any_step_may_be_the_last_of_a_process(self) -> None:
        """Each step by another object; the room cannot be entered meanwhile."""
        await self.start()
        await self.fill()
        self.patch(deletion, "ROWS", 1)
        self.patch(deletion, "EVENTS", 3)
        homeserver = self.server.homeserver
        nid = await self.nid()
        tasks = RoomTasks(self.db, homeserver.feed, homeserver.reactor)
        shutdown = homeserver.services[RoomDeletion]._shutdown

        def fresh() -> RoomDeletion:
            return RoomDeletion(self.db, tasks, shutdown, homeserver.reactor, "hearth.test")

        wanted = Deletion(self.alice.user_id)._asdict()
        progress = {"phase": "shutdown", "shutdown": NOTHING_DONE}
        task_id = await self.db.write(
            lambda txn: room_tasks.add(
                txn, RoomDeletion.KIND, self.room_id, wanted, progress, 1, is_closing=True
            )
        )
        phases = []
        while (phase := await self.db.write(fresh()._step, task_id)) is not None:
            phases.append(phase)
            if phase == "shutdown":
                task = await fresh().get(task_id)
                assert task is not None
                await shutdown.run(task)
                await shutdown.run(task)
            if phase in ("shutdown", "sent"):
                following = "sent" if phase == "shutdown" else "close"
                await self.db.write(fresh()._pass, task_id, phase, following)
            if phases.count(phase) == 1:
                answer = await self.bob.call("POST", f"/join/{q(self.room_id)}", {})
                self.assert_error(answer, 403, "M_FORBIDDEN")
                await self.bob.sync()
                await self.alice.call("GET", f"/rooms/{q(self.room_id)}/messages?dir=b")
                await self.alice.ok("GET", f"{V1}/rooms")
        self.assertEqual(
            list(dict.fromkeys(phases)), ["shutdown", "sent", "rows", "events", "rest"]
        )
        self.assertGreater(phases.count("rows"), 40)
        task = await fresh().get(task_id)
        assert task is not None
        self.assertEqual(task.status, "complete")
        told = task.progress["shutdown"]
        self.assertEqual(sorted(told["kicked_users"]), [self.alice.user_id, self.bob.user_id])
        left = await traces(self.db, self.room_id, nid)
        left.pop("invalidations", None)
        self.assertEqual(set(left), {"room_tasks", "gone_rooms"})

    async def test_users_who_cannot_leave(self) -> None:
        """The deletion fails, unless it is forced; then their clients are told, too."""
        await self.start()
        await self.bob.join(self.room_id)
        since = (await self.bob.sync())["next_batch"]
        members = self.server.homeserver.services[Membership]
        leave = members.leave

        async def refuse(requester: Requester, *args: Any, **options: Any) -> str:
            if requester.user_id == self.bob.user_id:
                raise forbidden("No.")
            return await leave(requester, *args, **options)

        self.patch(members, "leave", refuse)
        path = f"{V1}/rooms/{q(self.room_id)}"
        answer = await self.alice.call("DELETE", path, {})
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_UNKNOWN"))
        await self.bob.send(self.room_id, "still here")
        answer = await self.delete(force_purge=True)
        self.assertEqual(answer["failed_to_kick_users"], [self.bob.user_id])
        synced = await self.bob.sync(since)
        self.assertIn(self.room_id, synced["rooms"]["leave"])
        self.assertEqual((await self.bob.ok("GET", "/joined_rooms"))["joined_rooms"], [])
