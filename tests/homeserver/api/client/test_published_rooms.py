"""The published room directory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.server import TestServer, User, make_server


class DirectoryCase(TestCase):
    server: TestServer
    alice: User
    bob: User

    async def set_up(self, **settings: Any) -> None:
        self.server = await make_server(self, **settings)
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    async def publish(self, **body: Any) -> str:
        return await self.alice.create_room(visibility="public", **body)

    async def search(self, **body: Any) -> Any:
        return await self.bob.ok("POST", "/publicRooms", body)

    async def names(self, **body: Any) -> list[str]:
        return [room["name"] for room in (await self.search(**body))["chunk"]]


class EntryTest(DirectoryCase):
    async def test_entries_say_what_the_room_is(self) -> None:
        """Shows ROOM-17."""
        await self.set_up()
        room_id = await self.publish(
            name="Tea",
            topic="Leaves",
            room_alias_name="tea",
            creation_content={"type": "m.space"},
            initial_state=[
                {"type": "m.room.avatar", "content": {"url": "mxc://hearth.test/a"}},
                {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
                {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}},
                {
                    "type": "m.room.history_visibility",
                    "content": {"history_visibility": "world_readable"},
                },
            ],
        )
        self.assertEqual(
            await self.bob.ok("GET", "/publicRooms"),
            {
                "chunk": [
                    {
                        "room_id": room_id,
                        "num_joined_members": 1,
                        "world_readable": True,
                        "guest_can_join": True,
                        "join_rule": "knock",
                        "name": "Tea",
                        "topic": "Leaves",
                        "canonical_alias": "#tea:hearth.test",
                        "avatar_url": "mxc://hearth.test/a",
                        "room_type": "m.space",
                    }
                ],
                "total_room_count_estimate": 1,
            },
        )

    async def test_what_is_not_set_is_left_out(self) -> None:
        """Shows ROOM-17."""
        await self.set_up()
        room_id = await self.publish(
            initial_state=[
                {"type": "m.room.name", "content": {"name": 1}},
                {"type": "m.room.topic", "content": {"m.topic": {"m.text": [{"body": 1}]}}},
                {"type": "m.room.avatar", "content": {"url": None}},
                {"type": "m.room.canonical_alias", "content": {"alias": "tea"}},
            ]
        )
        self.assertEqual(
            (await self.search())["chunk"],
            [
                {
                    "room_id": room_id,
                    "num_joined_members": 1,
                    "world_readable": False,
                    "guest_can_join": False,
                    "join_rule": "public",
                }
            ],
        )

    async def test_entries_follow_the_room(self) -> None:
        """Shows ROOM-17."""
        await self.set_up()
        room_id = await self.publish(name="Tea")
        (first,) = (await self.search())["chunk"]
        await self.bob.join(room_id)
        event_id = await self.alice.set_state(room_id, "m.room.name", {"name": "Coffee"})
        (second,) = (await self.search())["chunk"]
        self.assertEqual((first["name"], first["num_joined_members"]), ("Tea", 1))
        self.assertEqual((second["name"], second["num_joined_members"]), ("Coffee", 2))
        await self.alice.ok("PUT", f"/rooms/{room_id}/redact/{event_id}/r", {})
        self.assertNotIn("name", (await self.search())["chunk"][0])
        await self.alice.leave(room_id)
        await self.bob.leave(room_id)
        self.assertEqual((await self.search())["chunk"], [])


class FilterTest(DirectoryCase):
    async def test_search_terms(self) -> None:
        """Shows ROOM-16."""
        await self.set_up()
        await self.publish(name="Tea House", topic="Leaves")
        await self.publish(name="Coffee", topic="Beans, no TEA")
        await self.publish(name="Water", room_alias_name="teatime")
        await self.publish(name="Juice")
        for term, found in (
            ("tea", ["Tea House", "Coffee", "Water"]),
            ("HOUSE", ["Tea House"]),
            ("beans", ["Coffee"]),
            ("nothing", []),
            ("", ["Tea House", "Coffee", "Water", "Juice"]),
        ):
            names = await self.names(filter={"generic_search_term": term})
            self.assertEqual(names, found, term)

    async def test_room_types(self) -> None:
        """Shows ROOM-16."""
        await self.set_up()
        await self.publish(name="plain")
        await self.publish(name="space", creation_content={"type": "m.space"})
        await self.publish(name="odd", creation_content={"type": "org.example"})
        for types, found in (
            (None, ["plain", "space", "odd"]),
            ([None], ["plain"]),
            (["m.space"], ["space"]),
            (["m.space", None], ["plain", "space"]),
            ([], []),
        ):
            self.assertEqual(await self.names(filter={"room_types": types}), found)

    async def test_networks(self) -> None:
        """Shows ROOM-16."""
        await self.set_up()
        await self.publish(name="plain")
        self.assertEqual(await self.names(third_party_instance_id="irc|freenode"), [])
        self.assertEqual(await self.names(include_all_networks=True), ["plain"])
        answer = await self.bob.call(
            "POST", "/publicRooms", {"include_all_networks": True, "third_party_instance_id": "i"}
        )
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        # Only application services publish in networks.
        path = f"/directory/list/appservice/freenode/{await self.alice.create_room()}"
        answer = await self.alice.call("PUT", path, {"visibility": "public"})
        self.assertEqual(answer.status, 403)

    async def test_other_servers(self) -> None:
        """Shows ROOM-16: the `server` parameter, where no other server is there."""
        await self.set_up()
        await self.publish(name="plain")
        own = await self.bob.ok("GET", "/publicRooms", query={"server": "hearth.test"})
        self.assertEqual(len(own["chunk"]), 1)
        other = await self.bob.call("GET", "/publicRooms", query={"server": "elsewhere.test"})
        self.assertEqual((other.status, other.body["errcode"]), (502, "M_UNKNOWN"))
        bad = await self.bob.call("GET", "/publicRooms", query={"server": "no such/name"})
        self.assertEqual((bad.status, bad.body["errcode"]), (400, "M_INVALID_PARAM"))


class PagingTest(DirectoryCase):
    async def test_pages_go_both_ways_in_a_stable_order(self) -> None:
        """Shows ROOM-16."""
        await self.set_up()
        rooms = [await self.publish(name=f"r{number}") for number in range(5)]
        await self.bob.join(rooms[3])
        first = await self.search(limit=2)
        self.assertEqual([room["name"] for room in first["chunk"]], ["r3", "r0"])
        self.assertNotIn("prev_batch", first)
        self.assertEqual(first["total_room_count_estimate"], 5)
        second = await self.search(limit=2, since=first["next_batch"])
        self.assertEqual([room["name"] for room in second["chunk"]], ["r1", "r2"])
        third = await self.bob.ok(
            "GET", "/publicRooms", query={"limit": 2, "since": second["next_batch"]}
        )
        self.assertEqual([room["name"] for room in third["chunk"]], ["r4"])
        self.assertNotIn("next_batch", third)
        back = await self.search(limit=2, since=third["prev_batch"])
        self.assertEqual(back["chunk"], second["chunk"])
        start = await self.search(limit=2, since=back["prev_batch"])
        self.assertEqual(start["chunk"], first["chunk"])
        self.assertNotIn("prev_batch", start)

    async def test_rooms_that_come_and_go_shift_nothing(self) -> None:
        """Shows ROOM-16."""
        await self.set_up()
        rooms = [await self.publish(name=f"r{number}") for number in range(4)]
        first = await self.search(limit=2)
        await self.alice.ok("PUT", f"/directory/list/room/{rooms[1]}", {"visibility": "private"})
        second = await self.search(limit=2, since=first["next_batch"])
        self.assertEqual([room["name"] for room in second["chunk"]], ["r2", "r3"])

    async def test_limits(self) -> None:
        await self.set_up()
        await self.publish(name="a")
        self.assertEqual(await self.names(limit=0), ["a"])
        for query in ({"limit": -1}, {"limit": "x"}, {"since": "nonsense"}, {"since": "n1-"}):
            answer = await self.bob.call("GET", "/publicRooms", query=query)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        for body, errcode in (
            ({"limit": -1}, "M_INVALID_PARAM"),
            ({"limit": "1"}, "M_BAD_JSON"),
            ({"since": 1}, "M_BAD_JSON"),
            ({"filter": []}, "M_BAD_JSON"),
            ({"filter": {"generic_search_term": 1}}, "M_BAD_JSON"),
            ({"filter": {"room_types": "m.space"}}, "M_BAD_JSON"),
            ({"filter": {"room_types": [1]}}, "M_BAD_JSON"),
            ({"include_all_networks": "yes"}, "M_BAD_JSON"),
            ([], "M_BAD_JSON"),
        ):
            answer = await self.bob.call("POST", "/publicRooms", body)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, errcode), body)


class AccessTest(DirectoryCase):
    async def test_the_list_needs_a_login_unless_configured(self) -> None:
        await self.set_up()
        for method in ("GET", "POST"):
            answer = await self.server.client.request(
                method, "/_matrix/client/v3/publicRooms", {} if method == "POST" else None
            )
            self.assertEqual((answer.status, answer.body["errcode"]), (401, "M_MISSING_TOKEN"))
        open_server = await make_server(self, public_rooms={"without_auth": True})
        status, body = await open_server.client.get("/_matrix/client/v3/publicRooms")
        self.assertEqual((status, body), (200, {"chunk": [], "total_room_count_estimate": 0}))

    async def test_visibility(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat")
        path = f"/directory/list/room/{room_id}"
        self.assertEqual(await self.bob.ok("GET", path), {"visibility": "private"})
        await self.alice.ok("PUT", path, {"visibility": "public"})
        self.assertEqual(await self.bob.ok("GET", path), {"visibility": "public"})
        await self.alice.ok("PUT", path, {"visibility": "private"})
        self.assertEqual(await self.bob.ok("GET", path), {"visibility": "private"})
        await self.alice.ok("PUT", path, {})
        self.assertEqual(await self.bob.ok("GET", path), {"visibility": "public"})

    async def test_only_moderators_change_visibility(self) -> None:
        await self.set_up()
        room_id = await self.alice.create_room(preset="public_chat")
        path = f"/directory/list/room/{room_id}"
        for _ in range(2):
            answer = await self.bob.call("PUT", path, {"visibility": "public"})
            self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
            await self.bob.join(room_id)
        for body, errcode in (
            ({"visibility": "secret"}, "M_INVALID_PARAM"),
            ({"visibility": 1}, "M_BAD_JSON"),
            ([], "M_BAD_JSON"),
        ):
            answer = await self.alice.call("PUT", path, body)
            self.assertEqual((answer.status, answer.body["errcode"]), (400, errcode))
        nowhere = "/directory/list/room/!nowhere:hearth.test"
        for answer in (
            await self.alice.call("GET", nowhere),
            await self.alice.call("PUT", nowhere, {"visibility": "public"}),
        ):
            self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))

    async def test_publication_can_be_forbidden(self) -> None:
        await self.set_up(public_rooms={"publication": "admins"})
        room_id = await self.alice.create_room(preset="public_chat")
        path = f"/directory/list/room/{room_id}"
        answer = await self.alice.call("PUT", path, {"visibility": "public"})
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        await self.server.homeserver.db.write(
            lambda txn: txn.execute(
                "UPDATE users SET is_admin = ? WHERE user_id = ?", (True, self.bob.user_id)
            )
        )
        await self.bob.ok("PUT", path, {"visibility": "public"})
        # Taking a room off the list is no publication.
        await self.alice.ok("PUT", path, {"visibility": "private"})
