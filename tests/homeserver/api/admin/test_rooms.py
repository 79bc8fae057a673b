"""Rooms for administrators: lists, details, looking in, and what they can do there."""

from __future__ import annotations

from typing import Any

from tests.support.admin import make_admin
from tests.support.room_case import RoomTestCase, q
from tests.support.server import User

V1 = "/_synapse/admin/v1"


class AdminCase(RoomTestCase):
    """Bob administers the server, and is in no room."""

    async def start(self, **room: Any) -> str:
        await super().start(**room)
        await make_admin(self.bob)
        return self.room_id

    async def admin(self, path: str, **query: Any) -> Any:
        return await self.bob.ok("GET", V1 + path, query=query)


class TestList(AdminCase):
    """Shows XC-4."""

    async def names(self, **query: Any) -> list[str | None]:
        return [room["name"] for room in (await self.admin("/rooms", **query))["rooms"]]

    async def test_order_search_and_pages(self) -> None:
        await self.start(name="beta", topic="A topic", visibility="public")
        carol = await self.server.register("carol")
        await carol.join(self.room_id)
        alpha = await self.alice.create_room(
            name="Alpha", room_version="10", room_alias_name="first", preset="private_chat"
        )
        gamma = await carol.create_room(
            name="gamma", room_version="9", creation_content={"type": "m.space"}
        )
        await carol.leave(gamma)
        await self.alice.set_state(
            alpha, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}
        )
        found = await self.admin("/rooms")
        self.assertEqual((found["total_rooms"], found["offset"]), (3, 0))
        self.assertNotIn("next_batch", found)
        self.assertEqual(
            found["rooms"][0],
            {
                "room_id": alpha,
                "name": "Alpha",
                "canonical_alias": "#first:hearth.test",
                "joined_members": 1,
                "joined_local_members": 1,
                "version": "10",
                "creator": self.alice.user_id,
                "encryption": "m.megolm.v1.aes-sha2",
                "federatable": True,
                "public": False,
                "join_rules": "invite",
                "guest_access": "can_join",
                "history_visibility": "shared",
                "state_events": found["rooms"][0]["state_events"],
                "room_type": None,
            },
        )
        self.assertEqual(found["rooms"][2]["room_type"], "m.space")
        orders = {
            "name": ["Alpha", "beta", "gamma"],
            "alphabetical": ["Alpha", "beta", "gamma"],
            "joined_members": ["beta", "Alpha", "gamma"],
            "size": ["beta", "Alpha", "gamma"],
            "joined_local_members": ["beta", "Alpha", "gamma"],
        }
        for order, names in orders.items():
            self.assertEqual(await self.names(order_by=order), names, order)
            self.assertEqual(await self.names(order_by=order, dir="b"), names[::-1], order)
        self.assertEqual((await self.names(order_by="canonical_alias"))[0], "Alpha")
        self.assertEqual((await self.names(order_by="encryption"))[0], "Alpha")
        self.assertEqual((await self.names(order_by="public"))[-1], "beta")
        self.assertEqual((await self.names(order_by="version"))[0], "gamma")
        for order in ("creator", "federatable", "join_rules", "guest_access"):
            self.assertEqual(len(await self.names(order_by=order)), 3)
        numbers = [
            room["state_events"]
            for room in (await self.admin("/rooms", order_by="state_events"))["rooms"]
        ]
        self.assertEqual(numbers, sorted(numbers, reverse=True))
        self.assertEqual(len(await self.names(order_by="history_visibility")), 3)
        self.assertEqual(await self.names(search_term="ALP"), ["Alpha"])
        self.assertEqual(await self.names(search_term="irs"), ["Alpha"])
        self.assertEqual(await self.names(search_term="hearth.test"), [])
        self.assertEqual(await self.names(search_term=gamma), ["gamma"])
        self.assertEqual(await self.names(public_rooms="true"), ["beta"])
        self.assertEqual(await self.names(public_rooms="false"), ["Alpha", "gamma"])
        self.assertEqual(await self.names(empty_rooms="true"), ["gamma"])
        self.assertEqual(await self.names(empty_rooms="false"), ["Alpha", "beta"])
        page = await self.admin("/rooms", **{"from": 1, "limit": 1})
        self.assertEqual([room["name"] for room in page["rooms"]], ["beta"])
        self.assertEqual((page["next_batch"], page["prev_batch"], page["offset"]), (2, 0, 1))

    async def test_bad_queries(self) -> None:
        await self.start()
        for query in (
            {"order_by": "colour"},
            {"search_term": ""},
            {"from": -1},
            {"limit": "x"},
            {"dir": "up"},
        ):
            answer = await self.bob.call("GET", V1 + "/rooms", query=query)
            self.assertEqual(answer.status, 400, query)
        self.assert_error(await self.alice.call("GET", V1 + "/rooms"), 403, "M_FORBIDDEN")

    async def test_details_and_members(self) -> None:
        await self.start(name="Room", topic="Talk")
        await self.alice.set_state(self.room_id, "m.room.avatar", {"url": "mxc://x/y"})
        path = f"/rooms/{q(self.room_id)}"
        found = await self.admin(path)
        self.assertEqual(found["topic"], "Talk")
        self.assertEqual(found["avatar"], "mxc://x/y")
        self.assertEqual((found["joined_local_devices"], found["forgotten"]), (1, False))
        self.assertEqual((found["tombstoned"], found["replacement_room"]), (False, None))
        await self.alice.set_state(
            self.room_id, "m.room.tombstone", {"replacement_room": "!new:hearth.test"}
        )
        found = await self.admin(path)
        self.assertEqual(
            (found["tombstoned"], found["replacement_room"]), (True, "!new:hearth.test")
        )
        members = await self.admin(f"{path}/members")
        self.assertEqual(members, {"members": [self.alice.user_id], "total": 1})
        sizes = (await self.admin("/statistics/database/rooms"))["rooms"]
        self.assertEqual([room["room_id"] for room in sizes], [self.room_id])
        self.assertGreater(sizes[0]["estimated_size"], 1000)
        for path in ("/rooms/!no:hearth.test", "/rooms/!no:hearth.test/members"):
            answer = await self.bob.call("GET", V1 + path)
            self.assert_error(answer, 404, "M_NOT_FOUND")


class TestLookingIn(AdminCase):
    """What only members see, administrators see by their own endpoints. Shows XC-4."""

    async def test_everything_is_shown(self) -> None:
        hidden = {
            "type": "m.room.history_visibility",
            "state_key": "",
            "content": {"history_visibility": "joined"},
        }
        await self.start(preset="private_chat", initial_state=[hidden])
        sent = [await self.alice.send(self.room_id, f"number {n}") for n in range(5)]
        path = f"/rooms/{q(self.room_id)}"
        page = await self.admin(f"{path}/messages", dir="b", limit=3)
        self.assertEqual([e["event_id"] for e in page["chunk"]], sent[:1:-1])
        page = await self.admin(f"{path}/messages", dir="b", limit=3, **{"from": page["end"]})
        self.assertEqual([e["event_id"] for e in page["chunk"]][:2], sent[1::-1])
        self.assertEqual(
            (await self.admin(f"{path}/messages"))["chunk"][0]["type"], "m.room.create"
        )
        context = await self.admin(f"{path}/context/{q(sent[2])}", limit=2)
        self.assertEqual(context["event"]["event_id"], sent[2])
        self.assertEqual([e["event_id"] for e in context["events_after"]], sent[3:4])
        self.assertIn("m.room.create", [e["type"] for e in context["state"]])
        state = (await self.admin(f"{path}/state"))["state"]
        self.assertIn("m.room.member", [e["type"] for e in state])
        named = (await self.admin(f"{path}/state", type="m.room.create"))["state"]
        self.assertEqual([e["type"] for e in named], ["m.room.create"])
        ts = context["event"]["origin_server_ts"]
        nearest = await self.admin(f"{path}/timestamp_to_event", ts=ts, dir="b")
        self.assertIn(nearest["event_id"], sent)
        fetched = (await self.admin(f"/fetch_event/{q(sent[0])}"))["event"]
        self.assertEqual(fetched["content"]["body"], "number 0")
        self.assertLessEqual({"auth_events", "prev_events", "signatures"}, fetched.keys())
        for end in ("messages?dir=b", "state", "members", f"context/{q(sent[2])}"):
            self.assert_error(
                await self.bob.call("GET", f"/rooms/{q(self.room_id)}/{end}"),
                404 if end.startswith("context") else 403,
                "M_NOT_FOUND" if end.startswith("context") else "M_FORBIDDEN",
            )
            answer = await self.alice.call("GET", f"{V1}{path}/{end}")
            self.assert_error(answer, 403, "M_FORBIDDEN")
        answer = await self.bob.call("GET", f"{V1}/fetch_event/$nothing")
        self.assert_error(answer, 404, "M_NOT_FOUND")

    async def test_spaces(self) -> None:
        await self.start(preset="private_chat", creation_content={"type": "m.space"})
        child = await self.alice.create_room(preset="private_chat", name="Child")
        for room_id in (child, "!elsewhere:elsewhere.test"):
            await self.alice.set_state(
                self.room_id, "m.space.child", {"via": ["elsewhere.test"]}, room_id
            )
        path = f"/rooms/{q(self.room_id)}/hierarchy"
        found = await self.admin(path)
        self.assertEqual([room["room_id"] for room in found["rooms"]], [self.room_id, child])
        first = await self.admin(path, limit=1)
        rest = await self.admin(path, limit=1, **{"from": first["next_batch"]})
        self.assertEqual([room["room_id"] for room in rest["rooms"]], [child])
        answer = await self.bob.call("GET", f"/_matrix/client/v1{path}")
        self.assert_error(answer, 403, "M_FORBIDDEN")


class TestActing(AdminCase):
    """Shows XC-4."""

    async def levels(self, user: User) -> Any:
        return await user.ok("GET", f"/rooms/{q(self.room_id)}/state/m.room.power_levels/")

    async def test_make_room_admin(self) -> None:
        for version in ("10", "12"):
            self.room_id = ""
            if version == "10":
                await self.start(preset="private_chat", room_version=version)
            else:
                self.room_id = await self.alice.create_room(
                    preset="private_chat", room_version=version
                )
            path = f"{V1}/rooms/{q(self.room_id)}/make_room_admin"
            self.assertEqual(await self.bob.ok("POST", path), {})
            await self.bob.join(self.room_id)
            levels = await self.levels(self.bob)
            self.assertEqual(levels["users"][self.bob.user_id], 100)
            self.assert_error(await self.alice.call("POST", path, {}), 403, "M_FORBIDDEN")
            carol = await self.server.register()
            await self.bob.ok("POST", path, {"user_id": carol.user_id})
            levels = await self.levels(self.bob)
            self.assertEqual(levels["users"][carol.user_id], 100)

    async def test_no_local_admin(self) -> None:
        await self.start()
        await self.alice.leave(self.room_id)
        path = f"{V1}/rooms/{q(self.room_id)}/make_room_admin"
        self.assert_error(await self.bob.call("POST", path, {}), 400, "M_UNKNOWN")
        path = f"{V1}/rooms/{q('#no:hearth.test')}/make_room_admin"
        self.assert_error(await self.bob.call("POST", path, {}), 404, "M_NOT_FOUND")
        path = f"{V1}/rooms/nonsense/make_room_admin"
        self.assert_error(await self.bob.call("POST", path, {}), 400, "M_INVALID_PARAM")

    async def test_join(self) -> None:
        await self.start(room_alias_name="here")
        carol = await self.server.register()
        alias = q("#here:hearth.test")
        answer = await self.bob.ok("POST", f"{V1}/join/{alias}", {"user_id": carol.user_id})
        self.assertEqual(answer, {"room_id": self.room_id})
        joined = (await carol.ok("GET", "/joined_rooms"))["joined_rooms"]
        self.assertEqual(joined, [self.room_id])
        private = await self.alice.create_room(preset="private_chat")
        path, body = f"{V1}/join/{q(private)}", {"user_id": carol.user_id}
        self.assert_error(await self.bob.call("POST", path, body), 403, "M_FORBIDDEN")
        await self.alice.invite(private, self.bob.user_id)
        await self.bob.join(private)
        await self.bob.ok("POST", path, body)
        joined = (await carol.ok("GET", "/joined_rooms"))["joined_rooms"]
        self.assertEqual(sorted(joined), sorted([self.room_id, private]))
        for body, status, code in (
            ({"user_id": "@x:elsewhere.test"}, 400, "M_UNKNOWN"),
            ({"user_id": "@nobody:hearth.test"}, 404, "M_NOT_FOUND"),
            ({"user_id": "x"}, 400, "M_INVALID_PARAM"),
            ({}, 400, "M_MISSING_PARAM"),
        ):
            self.assert_error(await self.bob.call("POST", path, body), status, code)
        self.assert_error(await self.alice.call("POST", path, {}), 403, "M_FORBIDDEN")

    async def test_forward_extremities(self) -> None:
        await self.start()
        last = await self.alice.send(self.room_id)
        path = f"{V1}/rooms/{q(self.room_id)}/forward_extremities"
        found = await self.bob.ok("GET", path)
        self.assertEqual(found["count"], 1)
        self.assertEqual(found["results"][0]["event_id"], last)
        self.assertEqual(
            found["results"][0].keys(), {"event_id", "state_group", "depth", "received_ts"}
        )
        self.assertEqual(await self.bob.ok("DELETE", path), {"deleted": 0})
        self.assert_error(await self.alice.call("GET", path), 403, "M_FORBIDDEN")
