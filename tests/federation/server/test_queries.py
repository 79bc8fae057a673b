"""What other servers ask for by name, and rooms that they may know of."""

from __future__ import annotations

from typing import Any

from tests.support.asking import AskingServer
from tests.support.client import Answer
from tests.support.room_case import RoomTestCase
from tests.support.server import make_server

DIRECTORY, PROFILE, HIERARCHY = "/query/directory", "/query/profile", "/hierarchy/{}"
ROOMS = "/publicRooms"


class QueryCase(RoomTestCase):
    async def begin(self, **settings: Any) -> None:
        self.server = await make_server(self, **settings)
        self.alice = await self.server.register("alice")
        self.other = await AskingServer.start(self.server)

    async def ask(self, path: str, *parts: str, **query: Any) -> Answer:
        return await self.other.get(path, *parts, query=query)

    async def ok(self, path: str, *parts: str, **query: Any) -> Any:
        status, answer = await self.ask(path, *parts, **query)
        self.assertEqual(status, 200, answer)
        return answer


class NamesTest(QueryCase):
    async def test_aliases(self) -> None:
        """Shows ROOM-17."""
        await self.begin()
        room_id = await self.alice.create_room(room_alias_name="den", preset="public_chat")
        found = await self.ok(DIRECTORY, room_alias="#den:hearth.test")
        self.assertEqual(found, {"room_id": room_id, "servers": ["hearth.test"]})
        await self.other.membership(room_id)
        found = await self.ok(DIRECTORY, room_alias="#den:hearth.test")
        self.assertEqual(found["servers"], ["hearth.test", self.other.name])

    async def test_unknown_aliases(self) -> None:
        """Nobody is asked for those of other servers."""
        await self.begin()
        for alias in ("#nothing:hearth.test", "#den:elsewhere.test"):
            self.assert_error(await self.ask(DIRECTORY, room_alias=alias), 404, "M_NOT_FOUND")
        self.assert_error(await self.ask(DIRECTORY), 400, "M_MISSING_PARAM")
        for bad in ("den", "#den", "#" + "x" * 300 + ":hearth.test", "#\0:hearth.test"):
            self.assert_error(await self.ask(DIRECTORY, room_alias=bad), 400, "M_INVALID_PARAM")

    async def test_profiles(self) -> None:
        """Shows MISC-5."""
        await self.begin()
        user_id = self.alice.user_id
        path = f"/profile/{user_id}"
        await self.alice.ok("PUT", f"{path}/displayname", {"displayname": "Alice"})
        await self.alice.ok("PUT", f"{path}/m.tz", {"m.tz": "Europe/Berlin"})
        everything = {"displayname": "Alice", "m.tz": "Europe/Berlin"}
        self.assertEqual(await self.ok(PROFILE, user_id=user_id), everything)
        one = await self.ok(PROFILE, user_id=user_id, field="displayname")
        self.assertEqual(one, {"displayname": "Alice"})
        answer = await self.ask(PROFILE, user_id=user_id, field="avatar_url")
        self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_unknown_profiles(self) -> None:
        """Nobody is asked for those of other servers."""
        await self.begin()
        for user_id in ("@nobody:hearth.test", "@bob:elsewhere.test"):
            self.assert_error(await self.ask(PROFILE, user_id=user_id), 404, "M_NOT_FOUND")
        self.assert_error(await self.ask(PROFILE), 400, "M_MISSING_PARAM")
        for bad in ("alice", "@alice:hearth.test:http", "@alice:hearth.test:" + "9" * 9):
            self.assert_error(await self.ask(PROFILE, user_id=bad), 400, "M_INVALID_PARAM")

    async def test_other_queries(self) -> None:
        await self.begin()
        self.assert_error(await self.ask("/query/{}", "weather"), 404, "M_UNRECOGNIZED")


class PublicRoomsTest(QueryCase):
    async def test_not_shown_unless_configured(self) -> None:
        """Shows ROOM-16."""
        await self.begin()
        await self.alice.create_room(visibility="public")
        self.assert_error(await self.ask(ROOMS), 403, "M_FORBIDDEN")
        self.assert_error(await self.other.post(ROOMS, json={}), 403, "M_FORBIDDEN")

    async def test_pages_and_filters(self) -> None:
        """Shows ROOM-16."""
        await self.begin(federation={"public_rooms": True})
        for name in ("One", "Two", "Three"):
            await self.alice.create_room(name=name, visibility="public", preset="public_chat")
        await self.alice.create_room(name="Secret", preset="private_chat")
        everything = await self.ok(ROOMS)
        self.assertEqual(len(everything["chunk"]), 3)
        self.assertEqual(
            set(everything["chunk"][0]),
            {
                "room_id",
                "name",
                "num_joined_members",
                "world_readable",
                "guest_can_join",
                "join_rule",
            },
        )
        self.assertEqual(len((await self.ok(ROOMS, limit=0))["chunk"]), 3)
        first = await self.ok(ROOMS, limit=2)
        second = await self.ok(ROOMS, limit=2, since=first["next_batch"])
        self.assertEqual(first["chunk"] + second["chunk"], everything["chunk"])
        self.assertNotIn("next_batch", second)
        body: dict[str, Any] = {"filter": {"generic_search_term": "thr"}, "limit": 10}
        status, found = await self.other.post(ROOMS, json=body)
        self.assertEqual((status, [room["name"] for room in found["chunk"]]), (200, ["Three"]))
        body = {"filter": {"room_types": ["m.space"]}}
        self.assertEqual((await self.other.post(ROOMS, json=body)).body["chunk"], [])

    async def test_hostile_parameters(self) -> None:
        await self.begin(federation={"public_rooms": True})
        for query in (
            {"limit": -1},
            {"limit": "x"},
            {"since": "nonsense"},
            {"include_all_networks": "true", "third_party_instance_id": "x|y"},
        ):
            self.assert_error(await self.ask(ROOMS, **query), 400, "M_INVALID_PARAM")
        bodies: list[Any] = [
            {"limit": -1},
            {"limit": "1"},
            {"filter": []},
            {"filter": {"room_types": [1]}},
            {"since": 5},
        ]
        for body in bodies:
            self.assertEqual((await self.other.post(ROOMS, json=body)).status, 400, body)


class HierarchyTest(QueryCase):
    async def prepare(self) -> None:
        await self.begin()
        alice, via = self.alice, {"via": ["hearth.test"]}
        self.space = await alice.create_room(
            name="Space", preset="public_chat", creation_content={"type": "m.space"}
        )
        self.open = await alice.create_room(name="Open", preset="public_chat")
        self.secret = await alice.create_room(name="Secret", preset="private_chat")
        for room_id in (self.open, self.secret, "!elsewhere:elsewhere.test"):
            await alice.set_state(self.space, "m.space.child", via, room_id)

    async def told(self, room_id: str, **query: Any) -> Any:
        return await self.ok(HIERARCHY, room_id, **query)

    async def test_what_is_told(self) -> None:
        """Shows MISC-2."""
        await self.prepare()
        answer = await self.told(self.space)
        self.assertEqual(
            (answer["room"]["name"], answer["room"]["room_type"]), ("Space", "m.space")
        )
        self.assertEqual(len(answer["room"]["children_state"]), 3)
        (child,) = answer["children"]
        self.assertEqual((child["room_id"], child["name"]), (self.open, "Open"))
        self.assertNotIn("children_state", child)
        self.assertEqual(answer["inaccessible_children"], [self.secret])

    async def test_suggested_rooms(self) -> None:
        """Shows MISC-1."""
        await self.prepare()
        content = {"via": ["hearth.test"], "suggested": True}
        await self.alice.set_state(self.space, "m.space.child", content, self.open)
        answer = await self.told(self.space, suggested_only="true")
        self.assertEqual([child["room_id"] for child in answer["children"]], [self.open])
        self.assertEqual(answer["inaccessible_children"], [])
        self.assertEqual(len(answer["room"]["children_state"]), 1)

    async def test_rooms_that_are_not_open(self) -> None:
        """Shows MISC-2."""
        await self.prepare()
        for room_id in (self.secret, "!unknown:hearth.test"):
            self.assert_error(await self.ask(HIERARCHY, room_id), 404, "M_NOT_FOUND")
        self.assert_error(await self.ask(HIERARCHY, "nonsense"), 400, "M_INVALID_PARAM")
        await self.other.invited(self.secret, self.alice.user_id)
        self.assertEqual((await self.told(self.secret))["room"]["name"], "Secret")

    async def test_restricted_rooms(self) -> None:
        """Shows MISC-2."""
        await self.prepare()
        rules = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": self.space}],
        }
        await self.alice.set_state(self.secret, "m.room.join_rules", rules)
        self.assert_error(await self.ask(HIERARCHY, self.secret), 404, "M_NOT_FOUND")
        await self.other.membership(self.space)
        answer = await self.told(self.secret)
        self.assertEqual(answer["room"]["allowed_room_ids"], [self.space])

    async def test_rooms_that_exclude_the_server(self) -> None:
        """Shows MISC-2."""
        await self.prepare()
        acl = {"allow": ["*"], "deny": [self.other.name]}
        await self.alice.set_state(self.open, "m.room.server_acl", acl)
        answer = await self.told(self.space)
        self.assertEqual(answer["children"], [])
        self.assertEqual(set(answer["inaccessible_children"]), {self.open, self.secret})

    async def test_other_rooms_have_no_children(self) -> None:
        """Shows MISC-1."""
        await self.prepare()
        content = {"via": ["hearth.test"]}
        await self.alice.set_state(self.open, "m.space.child", content, self.space)
        self.assertEqual((await self.told(self.open))["room"]["children_state"], [])
