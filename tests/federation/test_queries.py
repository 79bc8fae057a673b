"""Two servers ask each other about users, aliases and rooms."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.ids import RoomID
from tests.support.client import Answer
from tests.support.federation import make_federation
from tests.support.room_case import q
from tests.support.server import User

V1 = "/_matrix/client/v1"


class TwoServersCase(TestCase):
    async def begin(self, **settings: Any) -> None:
        self.federation = await make_federation(self, **settings)
        self.here, self.there = self.federation
        self.alice = await self.here.register("alice")
        self.bob = await self.there.register("bob")

    def assert_error(self, answer: Answer, status: int, errcode: str) -> None:
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode), answer)


class QueriesTest(TwoServersCase):
    async def test_profiles(self) -> None:
        """Shows MISC-5."""
        await self.begin()
        path = f"/profile/{q(self.bob.user_id)}"
        await self.bob.ok("PUT", f"{path}/displayname", {"displayname": "Bob"})
        self.assertEqual(await self.alice.ok("GET", path), {"displayname": "Bob"})
        found = await self.alice.ok("GET", f"{path}/displayname")
        self.assertEqual(found, {"displayname": "Bob"})
        unset = await self.alice.call("GET", f"{path}/avatar_url")
        self.assert_error(unset, 404, "M_NOT_FOUND")
        nobody = f"/profile/{q('@nobody:' + self.there.name)}"
        self.assert_error(await self.alice.call("GET", nobody), 404, "M_NOT_FOUND")
        # The answer is remembered: it can be given while the other server is away.
        self.federation.cut(self.here, self.there)
        self.assertEqual(await self.alice.ok("GET", path), {"displayname": "Bob"})
        carol = f"/profile/{q('@carol:' + self.there.name)}"
        self.assert_error(await self.alice.call("GET", carol), 502, "M_UNKNOWN")

    async def test_aliases(self) -> None:
        """Shows ROOM-17."""
        await self.begin()
        room_id = await self.bob.create_room(room_alias_name="den", preset="public_chat")
        alias = f"#den:{self.there.name}"
        found = await self.alice.ok("GET", f"/directory/room/{q(alias)}")
        self.assertEqual(found, {"room_id": room_id, "servers": [self.there.name]})
        unknown = q(f"#nothing:{self.there.name}")
        answer = await self.alice.call("GET", f"/directory/room/{unknown}")
        self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_public_rooms(self) -> None:
        """Shows ROOM-16."""
        await self.begin(federation={"public_rooms": True})
        for name in ("One", "Two", "Three"):
            await self.bob.create_room(name=name, visibility="public", preset="public_chat")
        query = {"server": self.there.name}
        listed = await self.alice.ok("GET", "/publicRooms", query={**query, "limit": 2})
        self.assertEqual(listed["total_room_count_estimate"], 3)
        rest = await self.alice.ok(
            "GET", "/publicRooms", query={**query, "limit": 2, "since": listed["next_batch"]}
        )
        names = [room["name"] for room in listed["chunk"] + rest["chunk"]]
        self.assertEqual(sorted(names), ["One", "Three", "Two"])
        body = {"filter": {"generic_search_term": "tWo"}}
        found = await self.alice.ok("POST", "/publicRooms", body, query=query)
        self.assertEqual([room["name"] for room in found["chunk"]], ["Two"])
        own = await self.alice.ok("GET", "/publicRooms")
        self.assertEqual(own["chunk"], [])

    async def test_public_rooms_that_are_not_shown(self) -> None:
        """Shows ROOM-16."""
        await self.begin()
        answer = await self.alice.call("GET", "/publicRooms", query={"server": self.there.name})
        self.assert_error(answer, 502, "M_UNKNOWN")

    async def test_summaries(self) -> None:
        await self.begin()
        room_id = await self.bob.create_room(name="Den", preset="public_chat", topic="Talk")
        path, query = f"{V1}/room_summary/{q(room_id)}", {"via": self.there.name}
        found = await self.alice.ok("GET", path, query=query)
        self.assertEqual((found["name"], found["topic"]), ("Den", "Talk"))
        self.assertEqual((found["membership"], found["room_version"]), ("leave", "12"))
        self.assertEqual(found["num_joined_members"], 1)
        # Nobody is asked for those who are not logged in.
        answer = await self.here.client.get(path, query=query)
        self.assert_error(answer, 404, "M_NOT_FOUND")
        secret = await self.bob.create_room(name="Secret", preset="private_chat")
        answer = await self.alice.call("GET", f"{V1}/room_summary/{q(secret)}", query=query)
        self.assert_error(answer, 404, "M_NOT_FOUND")


class SpacesTest(TwoServersCase):
    async def child(self, user: User, space: str, room_id: str, via: str, **content: Any) -> None:
        """Put a room into a space."""
        await user.set_state(space, "m.space.child", {"via": [via], **content}, room_id)

    async def space(self, user: User, name: str, **body: Any) -> str:
        content = {"type": "m.space"}
        body = {"preset": "public_chat", **body}
        return await user.create_room(name=name, creation_content=content, **body)

    async def names(self, user: User, space: str, **query: Any) -> list[str]:
        answer = await user.ok("GET", f"{V1}/rooms/{q(space)}/hierarchy", query=query)
        return [room["name"] for room in answer["rooms"]]

    async def prepare(self) -> None:
        """A space here with a room here, and a space there with rooms there."""
        await self.begin()
        here, there = self.here.name, self.there.name
        self.root = await self.space(self.alice, "Root")
        inner = await self.space(self.bob, "Inner")
        room = await self.alice.create_room(name="Room", preset="public_chat")
        open_room = await self.bob.create_room(name="Open", preset="public_chat")
        secret = await self.bob.create_room(name="Secret", preset="private_chat")
        await self.child(self.alice, self.root, inner, there, order="a")
        await self.child(self.alice, self.root, room, here, order="b", suggested=True)
        await self.child(self.bob, inner, open_room, there)
        await self.child(self.bob, inner, secret, there)
        await self.child(self.bob, inner, self.root, here)
        self.inner, self.secret = inner, secret

    async def test_rooms_of_other_servers(self) -> None:
        """Shows MISC-1, MISC-2."""
        await self.prepare()
        self.assertEqual(await self.names(self.alice, self.root), ["Root", "Inner", "Open", "Room"])
        self.assertEqual(await self.names(self.alice, self.root, max_depth=0), ["Root"])
        self.assertEqual(
            await self.names(self.alice, self.root, max_depth=1), ["Root", "Inner", "Room"]
        )
        self.assertEqual(
            await self.names(self.alice, self.root, suggested_only="true"), ["Root", "Room"]
        )

    async def test_children(self) -> None:
        """Shows MISC-1."""
        await self.prepare()
        path = f"{V1}/rooms/{q(self.root)}/hierarchy"
        rooms = (await self.alice.ok("GET", path))["rooms"]
        inner = next(room for room in rooms if room["room_id"] == self.inner)
        self.assertEqual(len(inner["children_state"]), 3)
        self.assertEqual(
            set(inner["children_state"][0]),
            {"type", "state_key", "content", "sender", "origin_server_ts"},
        )
        self.assertEqual(inner["room_type"], "m.space")

    async def test_pages(self) -> None:
        """Shows MISC-1."""
        await self.prepare()
        path = f"{V1}/rooms/{q(self.root)}/hierarchy"
        found, query = [], {"limit": 1, "max_depth": 3}
        for _ in range(10):
            page = await self.alice.ok("GET", path, query=query)
            found += [room["name"] for room in page["rooms"]]
            if "next_batch" not in page:
                break
            query["from"] = page["next_batch"]
        self.assertEqual(found, ["Root", "Inner", "Open", "Room"])
        for changed in ({"max_depth": 2}, {"suggested_only": "true"}, {"from": "nonsense"}):
            answer = await self.alice.call("GET", path, query={**query, **changed})
            self.assert_error(answer, 400, "M_INVALID_PARAM")
        for bad in ({"limit": 0}, {"max_depth": -1}):
            answer = await self.alice.call("GET", path, query=bad)
            self.assert_error(answer, 400, "M_INVALID_PARAM")

    async def test_other_servers_away(self) -> None:
        """Their rooms are left out. Shows MISC-1."""
        await self.prepare()
        self.federation.cut(self.here, self.there)
        self.assertEqual(await self.names(self.alice, self.root), ["Root", "Room"])

    async def test_rooms_that_are_not_open(self) -> None:
        """Shows MISC-2."""
        await self.prepare()
        carol = await self.here.register("carol")
        hidden = await self.alice.create_room(name="Hidden", preset="private_chat")
        club = await self.alice.create_room(
            name="Club",
            preset="private_chat",
            initial_state=[
                {
                    "type": "m.room.join_rules",
                    "state_key": "",
                    "content": {
                        "join_rule": "restricted",
                        "allow": [{"type": "m.room_membership", "room_id": self.root}],
                    },
                }
            ],
        )
        for room_id in (hidden, club):
            await self.child(self.alice, self.root, room_id, self.here.name, order="z")
        all_others = ["Root", "Inner", "Open", "Room"]
        self.assertEqual(await self.names(carol, self.root), all_others)
        await carol.join(self.root)
        self.assertEqual(await self.names(carol, self.root), [*all_others, "Club"])
        self.assertEqual(await self.names(self.alice, self.root), [*all_others, "Hidden", "Club"])
        answer = await carol.call("GET", f"{V1}/rooms/{q(hidden)}/hierarchy")
        self.assert_error(answer, 403, "M_FORBIDDEN")
        # Nor are the rooms of this server open to the other.
        told = await self.bob.call("GET", f"{V1}/rooms/{q(hidden)}/hierarchy")
        self.assert_error(told, 403, "M_FORBIDDEN")

    async def test_order(self) -> None:
        """Shows MISC-1."""
        await self.begin()
        root = await self.space(self.alice, "Root")
        rooms = {
            name: await self.alice.create_room(name=name, preset="public_chat")
            for name in ("late", "early", "first", "second", "gone", "bad")
        }
        via = self.here.name
        await self.child(self.alice, root, rooms["early"], via)
        await self.child(self.alice, root, rooms["bad"], via, order="\u00e9")
        await self.child(self.alice, root, rooms["late"], via, order="x" * 51)
        await self.child(self.alice, root, rooms["second"], via, order="b")
        await self.child(self.alice, root, rooms["first"], via, order="a")
        await self.alice.set_state(root, "m.space.child", {}, rooms["gone"])
        found = await self.names(self.alice, root)
        self.assertEqual(found, ["Root", "first", "second", "early", "bad", "late"])

    async def test_unknown_rooms(self) -> None:
        await self.begin()
        nowhere = RoomID("!nowhere:" + self.here.name)
        answer = await self.alice.call("GET", f"{V1}/rooms/{q(nowhere)}/hierarchy")
        self.assert_error(answer, 403, "M_FORBIDDEN")
