"""Account data over the API."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.support.room_case import log_in
from tests.support.server import make_server

BAD_BODIES = (b"", b"{", b"[]", b'"text"', b"1", b"null", b"\xff\xfe", b'{"a": "\\ud800"}')


def data_of(answer: Any) -> dict[str, Any]:
    """Global account data in a sync answer, by type."""
    return {e["type"]: e["content"] for e in answer.get("account_data", {}).get("events", [])}


def room_data_of(answer: Any, room_id: str) -> dict[str, Any]:
    """Account data of a room in a sync answer, by type."""
    section = answer.get("rooms", {}).get("join", {}).get(room_id, {})
    return {e["type"]: e["content"] for e in section.get("account_data", {}).get("events", [])}


class AccountDataTest(TestCase):
    async def test_settings_of_a_device_go_with_it(self) -> None:
        """Those for notifications, which are named after the device; others stay."""
        server = await make_server(self, presence={"enabled": False})
        alice = await server.register("alice")
        other = await log_in(server, alice)
        prefix = (
            f"/user/{alice.user_id}/account_data/org.matrix.msc3890.local_notification_settings"
        )
        for device_id in (alice.device_id, other.device_id):
            await alice.ok("PUT", f"{prefix}.{device_id}", {"is_silenced": True})
        await other.ok("POST", "/logout", {})
        self.assertEqual((await alice.call("GET", f"{prefix}.{other.device_id}")).status, 404)
        mine = await alice.ok("GET", f"{prefix}.{alice.device_id}")
        self.assertEqual(mine, {"is_silenced": True})

    async def test_what_is_set_is_read(self) -> None:
        """Shows MISC-6."""
        alice = await (await make_server(self)).register()
        path = f"/user/{alice.user_id}/account_data/org.example.settings"
        self.assertEqual(await alice.ok("PUT", path, {"order": 0.5, "big": 2**60}), {})
        self.assertEqual(await alice.ok("GET", path), {"order": 0.5, "big": 2**60})
        await alice.ok("PUT", path, {"nul": "\0", "": ["ä", None]})
        self.assertEqual(await alice.ok("GET", path), {"nul": "\0", "": ["ä", None]})

    async def test_data_of_a_room_is_apart(self) -> None:
        """Shows MISC-6."""
        alice = await (await make_server(self)).register()
        room_id, other = await alice.create_room(), await alice.create_room()
        path = f"/user/{alice.user_id}/rooms/{room_id}/account_data/org.example.x"
        await alice.ok("PUT", path, {"here": True})
        self.assertEqual(await alice.ok("GET", path), {"here": True})
        for elsewhere in (
            f"/user/{alice.user_id}/account_data/org.example.x",
            f"/user/{alice.user_id}/rooms/{other}/account_data/org.example.x",
        ):
            status, body = await alice.call("GET", elsewhere)
            self.assertEqual((status, body["errcode"]), (404, "M_NOT_FOUND"))

    async def test_data_of_a_room_that_is_not_known(self) -> None:
        alice = await (await make_server(self)).register()
        path = f"/user/{alice.user_id}/rooms/!elsewhere:example.org/account_data/org.example.x"
        await alice.ok("PUT", path, {"later": 1})
        self.assertEqual(await alice.ok("GET", path), {"later": 1})
        self.assertEqual((await alice.sync()).get("rooms"), None)

    async def test_it_is_private(self) -> None:
        """Shows MISC-6."""
        server = await make_server(self)
        alice, bob = await server.register(), await server.register()
        for path in (
            f"/user/{alice.user_id}/account_data/org.example.x",
            f"/user/{alice.user_id}/rooms/!r:hearth.test/account_data/org.example.x",
            f"/user/{alice.user_id}/rooms/!r:hearth.test/tags/u.work",
        ):
            status, body = await bob.call("PUT", path, {})
            self.assertEqual((status, body["errcode"]), (403, "M_FORBIDDEN"), path)
        for path in (
            f"/user/{alice.user_id}/account_data/org.example.x",
            f"/user/{alice.user_id}/account_data/m.push_rules",
            f"/user/{alice.user_id}/rooms/!r:hearth.test/account_data/org.example.x",
            f"/user/{alice.user_id}/rooms/!r:hearth.test/tags",
        ):
            status, body = await bob.call("GET", path)
            self.assertEqual((status, body["errcode"]), (403, "M_FORBIDDEN"), path)

    async def test_only_objects(self) -> None:
        """Shows MISC-6."""
        alice = await (await make_server(self)).register()
        for path in (
            f"/user/{alice.user_id}/account_data/org.example.x",
            f"/user/{alice.user_id}/rooms/!r:hearth.test/account_data/org.example.x",
        ):
            for bad in BAD_BODIES:
                status, body = await alice.call("PUT", path, body=bad)
                self.assertEqual(status, 400, bad)
                self.assertIn(body["errcode"], ("M_BAD_JSON", "M_NOT_JSON"), bad)
            self.assertEqual((await alice.call("GET", path)).status, 404)

    async def test_what_the_server_manages_is_read_only(self) -> None:
        """Shows RCP-6."""
        alice = await (await make_server(self)).register()
        room_id = await alice.create_room()
        for data_type in ("m.fully_read", "m.push_rules"):
            for path in (
                f"/user/{alice.user_id}/account_data/{data_type}",
                f"/user/{alice.user_id}/rooms/{room_id}/account_data/{data_type}",
            ):
                status, body = await alice.call("PUT", path, {"event_id": "$x"})
                self.assertEqual((status, body["errcode"]), (405, "M_BAD_JSON"), path)
        rules = await alice.ok("GET", f"/user/{alice.user_id}/account_data/m.push_rules")
        self.assertEqual(rules, await alice.ok("GET", "/pushrules/"))

    async def test_sizes_are_bounded(self) -> None:
        alice = await (await make_server(self)).register()
        root = f"/user/{alice.user_id}/account_data"
        await alice.ok("PUT", f"{root}/big", {"x": "a" * 500_000})
        status, body = await alice.call("PUT", f"{root}/big", {"x": "a" * 600_000})
        self.assertEqual((status, body["errcode"]), (413, "M_TOO_LARGE"))
        await alice.ok("PUT", f"{root}/{'t' * 255}", {})
        status, body = await alice.call("PUT", f"{root}/{'t' * 256}", {})
        self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"))
        status, body = await alice.call("PUT", f"{root}/a%00b", {})
        self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_a_malformed_room_id(self) -> None:
        alice = await (await make_server(self)).register()
        path = f"/user/{alice.user_id}/rooms/nonsense/account_data/org.example.x"
        for method, content in (("GET", None), ("PUT", {})):
            status, body = await alice.call(method, path, content)
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_sync_has_all_at_first_and_then_what_changed(self) -> None:
        """Shows SYN-20."""
        alice = await (await make_server(self)).register()
        room_id = await alice.create_room()
        root = f"/user/{alice.user_id}"
        await alice.ok("PUT", f"{root}/account_data/org.example.a", {"n": 1})
        await alice.ok("PUT", f"{root}/account_data/org.example.b", {"n": 2})
        await alice.ok("PUT", f"{root}/rooms/{room_id}/account_data/org.example.a", {"n": 3})
        first = await alice.sync()
        data = data_of(first)
        self.assertEqual(data["org.example.a"], {"n": 1})
        self.assertEqual(data["org.example.b"], {"n": 2})
        self.assertEqual(data["m.push_rules"], await alice.ok("GET", "/pushrules/"))
        self.assertEqual(room_data_of(first, room_id), {"org.example.a": {"n": 3}})
        await alice.ok("PUT", f"{root}/account_data/org.example.b", {"n": 4})
        second = await alice.sync(first["next_batch"])
        self.assertEqual(data_of(second), {"org.example.b": {"n": 4}})
        self.assertEqual(room_data_of(second, room_id), {})
        await alice.ok("PUT", f"{root}/rooms/{room_id}/account_data/org.example.a", {"n": 5})
        third = await alice.sync(second["next_batch"])
        self.assertEqual(data_of(third), {})
        self.assertEqual(room_data_of(third, room_id), {"org.example.a": {"n": 5}})
        self.assertEqual(data_of(await alice.sync(third["next_batch"])), {})

    async def test_others_do_not_see_it_in_sync(self) -> None:
        """Shows MISC-6."""
        server = await make_server(self)
        alice, bob = await server.register(), await server.register()
        room_id = await alice.create_room(preset="public_chat")
        await bob.join(room_id)
        root = f"/user/{alice.user_id}"
        await alice.ok("PUT", f"{root}/account_data/org.example.a", {"n": 1})
        await alice.ok("PUT", f"{root}/rooms/{room_id}/account_data/org.example.a", {"n": 3})
        answer = await bob.sync()
        self.assertNotIn("org.example.a", data_of(answer))
        self.assertEqual(room_data_of(answer, room_id), {})
