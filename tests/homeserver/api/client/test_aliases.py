"""Room aliases."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from tests.support.room_state import content_of
from tests.support.server import TestServer, User, make_server

TEA = "#tea:hearth.test"


class AliasCase(TestCase):
    server: TestServer
    alice: User
    bob: User
    room_id: str

    async def set_up(self, **settings: Any) -> None:
        self.server = await make_server(self, **settings)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.room_id = await self.alice.create_room(preset="public_chat", room_version="11")

    async def put(self, user: User, alias: str = TEA, room_id: str | None = None) -> Any:
        path = f"/directory/room/{quote(alias, safe='')}"
        return await user.call("PUT", path, {"room_id": room_id or self.room_id})

    async def delete(self, user: User, alias: str = TEA) -> Any:
        return await user.call("DELETE", f"/directory/room/{quote(alias, safe='')}")

    async def room_of(self, alias: str = TEA) -> str | None:
        path = f"/_matrix/client/v3/directory/room/{quote(alias, safe='')}"
        status, body = await self.server.client.get(path)
        self.assertIn(status, (200, 404))
        found: str | None = body.get("room_id")
        return found


class MakingTest(AliasCase):
    async def test_members_name_their_rooms(self) -> None:
        await self.set_up()
        self.assertEqual((await self.put(self.bob)).status, 403)
        self.assertIsNone(await self.room_of())
        self.assertEqual((await self.put(self.alice)).status, 200)
        self.assertEqual(await self.room_of(), self.room_id)
        again = await self.put(self.alice)
        self.assertEqual((again.status, again.body["errcode"]), (409, "M_UNKNOWN"))

    async def test_the_configuration_may_let_outsiders(self) -> None:
        await self.set_up(room_aliases={"require_membership": False})
        self.assertEqual((await self.put(self.bob)).status, 200)

    async def test_refusals(self) -> None:
        await self.set_up()
        other = await self.put(self.alice, "#tea:elsewhere.test")
        self.assertEqual((other.status, other.body["errcode"]), (400, "M_INVALID_PARAM"))
        unknown = await self.put(self.alice, room_id="!nowhere:hearth.test")
        self.assertEqual((unknown.status, unknown.body["errcode"]), (404, "M_NOT_FOUND"))
        for alias in ("tea", "#tea", "#:hearth.test:x", "#" + "a" * 300 + ":hearth.test"):
            self.assertEqual((await self.put(self.alice, alias)).status, 400, alias)
        path = f"/directory/room/{quote(TEA)}"
        for body, errcode in (
            ({}, "M_MISSING_PARAM"),
            ({"room_id": 1}, "M_BAD_JSON"),
            ({"room_id": "tea"}, "M_INVALID_PARAM"),
            ([], "M_BAD_JSON"),
        ):
            answer = await self.alice.call("PUT", path, body)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, errcode))
        missing = await self.bob.call("GET", path)
        self.assertEqual((missing.status, missing.body["errcode"]), (404, "M_NOT_FOUND"))


class DeletingTest(AliasCase):
    async def test_its_maker_a_moderator_or_an_administrator_may(self) -> None:
        """Shows ROOM-14."""
        await self.set_up()
        await self.bob.join(self.room_id)
        carol = await self.server.register("carol")
        await self.put(self.bob)
        refused = await self.delete(carol)
        self.assertEqual((refused.status, refused.body["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual((await self.delete(self.bob)).status, 200)
        self.assertIsNone(await self.room_of())
        await self.put(self.bob)
        self.assertEqual((await self.delete(self.alice)).status, 200)
        await self.put(self.alice)
        self.assertEqual((await self.delete(self.bob)).status, 403)
        admin = await self.server.register("admin")
        await self.server.homeserver.db.write(
            lambda txn: txn.execute(
                "UPDATE users SET is_admin = ? WHERE user_id = ?", (True, admin.user_id)
            )
        )
        self.assertEqual((await self.delete(admin)).status, 200)
        gone = await self.delete(self.alice)
        self.assertEqual((gone.status, gone.body["errcode"]), (404, "M_NOT_FOUND"))

    async def test_deleting_clears_the_canonical_alias(self) -> None:
        """Shows ROOM-14."""
        await self.set_up()
        other = "#other:hearth.test"
        await self.put(self.alice)
        await self.put(self.alice, other)
        await self.alice.set_state(
            self.room_id, "m.room.canonical_alias", {"alias": TEA, "alt_aliases": [TEA, other]}
        )
        await self.delete(self.alice)
        self.assertEqual(
            await content_of(self.server, self.room_id, "m.room.canonical_alias"),
            {"alt_aliases": [other]},
        )

    async def test_whoever_may_not_change_state_deletes_all_the_same(self) -> None:
        """Shows ROOM-14."""
        await self.set_up()
        await self.bob.join(self.room_id)
        await self.put(self.bob)
        await self.alice.set_state(self.room_id, "m.room.canonical_alias", {"alias": TEA})
        self.assertEqual((await self.delete(self.bob)).status, 200)
        self.assertEqual(
            await content_of(self.server, self.room_id, "m.room.canonical_alias"),
            {"alias": TEA},
        )

    async def test_a_canonical_alias_must_lead_to_the_room(self) -> None:
        await self.set_up()
        path = f"/rooms/{self.room_id}/state/m.room.canonical_alias"
        bad = await self.alice.call("PUT", path, {"alias": TEA})
        self.assertEqual((bad.status, bad.body["errcode"]), (400, "M_BAD_ALIAS"))


class ListingTest(AliasCase):
    async def test_members_see_the_aliases(self) -> None:
        """Shows ROOM-15."""
        await self.set_up()
        await self.put(self.alice)
        path = f"/rooms/{self.room_id}/aliases"
        self.assertEqual(await self.alice.ok("GET", path), {"aliases": [TEA]})
        outside = await self.bob.call("GET", path)
        self.assertEqual((outside.status, outside.body["errcode"]), (403, "M_FORBIDDEN"))
        await self.bob.join(self.room_id)
        self.assertEqual(await self.bob.ok("GET", path), {"aliases": [TEA]})
        await self.bob.leave(self.room_id)
        self.assertEqual((await self.bob.call("GET", path)).status, 403)

    async def test_everybody_sees_those_of_world_readable_rooms(self) -> None:
        """Shows ROOM-15."""
        await self.set_up()
        await self.put(self.alice)
        await self.alice.set_state(
            self.room_id, "m.room.history_visibility", {"history_visibility": "world_readable"}
        )
        path = f"/rooms/{self.room_id}/aliases"
        self.assertEqual(await self.bob.ok("GET", path), {"aliases": [TEA]})
        unknown = await self.bob.call("GET", "/rooms/!nowhere:hearth.test/aliases")
        self.assertEqual((unknown.status, unknown.body["errcode"]), (403, "M_FORBIDDEN"))
