"""Tags of rooms over the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from tests.homeserver.api.client.test_account_data import room_data_of
from tests.support.server import User, make_server


class TagsTest(TestCase):
    async def _tags(self, user: User, room_id: str) -> Any:
        return (await user.ok("GET", f"/user/{user.user_id}/rooms/{room_id}/tags"))["tags"]

    async def test_tags_come_and_go(self) -> None:
        """Shows MISC-7."""
        alice = await (await make_server(self)).register()
        room_id = await alice.create_room()
        root = f"/user/{alice.user_id}/rooms/{room_id}/tags"
        self.assertEqual(await self._tags(alice, room_id), {})
        await alice.ok("PUT", f"{root}/m.favourite", {"order": 0.25})
        await alice.ok("PUT", f"{root}/u.Work", {})
        await alice.ok("PUT", f"{root}/{quote('u.ünter/wegs', safe='')}", {"order": 1})
        self.assertEqual(
            await self._tags(alice, room_id),
            {"m.favourite": {"order": 0.25}, "u.Work": {}, "u.ünter/wegs": {"order": 1}},
        )
        await alice.ok("PUT", f"{root}/m.favourite", {"order": 0})
        await alice.ok("DELETE", f"{root}/u.Work")
        await alice.ok("DELETE", f"{root}/u.never")
        self.assertEqual(
            await self._tags(alice, room_id),
            {"m.favourite": {"order": 0}, "u.ünter/wegs": {"order": 1}},
        )

    async def test_tags_are_account_data_in_sync(self) -> None:
        """Shows MISC-7, SYN-20."""
        alice = await (await make_server(self)).register()
        room_id = await alice.create_room()
        since = (await alice.sync())["next_batch"]
        root = f"/user/{alice.user_id}/rooms/{room_id}"
        await alice.ok("PUT", f"{root}/tags/m.favourite", {"order": 0.5})
        answer = await alice.sync(since)
        expected = {"tags": {"m.favourite": {"order": 0.5}}}
        self.assertEqual(room_data_of(answer, room_id), {"m.tag": expected})
        self.assertEqual(await alice.ok("GET", f"{root}/account_data/m.tag"), expected)
        await alice.ok("DELETE", f"{root}/tags/m.favourite")
        answer = await alice.sync(answer["next_batch"])
        self.assertEqual(room_data_of(answer, room_id), {"m.tag": {"tags": {}}})

    async def test_names_have_255_bytes(self) -> None:
        """Shows MISC-7."""
        alice = await (await make_server(self)).register()
        root = f"/user/{alice.user_id}/rooms/!r:hearth.test/tags"
        await alice.ok("PUT", f"{root}/u.{'x' * 253}", {})
        for name in ("u." + "x" * 254, quote("u." + "ü" * 127)):
            status, body = await alice.call("PUT", f"{root}/{name}", {})
            self.assertEqual((status, body["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_order_is_a_number_between_0_and_1(self) -> None:
        """Shows MISC-7."""
        alice = await (await make_server(self)).register()
        path = f"/user/{alice.user_id}/rooms/!r:hearth.test/tags/u.x"
        for order, errcode in (
            ("0.5", "M_BAD_JSON"),
            (True, "M_BAD_JSON"),
            (None, "M_BAD_JSON"),
            ([0.5], "M_BAD_JSON"),
            (1.5, "M_INVALID_PARAM"),
            (-1, "M_INVALID_PARAM"),
        ):
            status, body = await alice.call("PUT", path, {"order": order})
            self.assertEqual((status, body["errcode"]), (400, errcode), order)
        for bad in (b"{", b"[]", b"7"):
            self.assertEqual((await alice.call("PUT", path, body=bad)).status, 400, bad)
        self.assertEqual(await self._tags(alice, "!r:hearth.test"), {})

    async def test_tags_set_as_account_data_in_any_shape(self) -> None:
        alice = await (await make_server(self)).register()
        room_id = "!r:hearth.test"
        root = f"/user/{alice.user_id}/rooms/{room_id}"
        for content in ({"tags": ["odd"]}, {}, {"tags": {"u.odd": 1, "u.good": {}}}):
            await alice.ok("PUT", f"{root}/account_data/m.tag", content)
            await alice.ok("PUT", f"{root}/tags/u.new", {})
            self.assertIn("u.new", await self._tags(alice, room_id))
