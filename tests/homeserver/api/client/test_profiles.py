"""Profiles."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from twisted.trial.unittest import TestCase

from tests.support.users import User, UserServer, make_user_server

V3 = "/_matrix/client/v3"


class ProfilesTest(TestCase):
    server: UserServer
    alice: User

    async def prepare(self) -> None:
        self.server = await make_user_server(self)
        self.alice = await self.server.add_user()

    def path(self, field: str | None = None, user_id: str = "@alice:hearth.test") -> str:
        path = f"{V3}/profile/{quote(user_id, safe='')}"
        return path if field is None else f"{path}/{quote(field, safe='')}"

    async def put(self, field: str, value: Any) -> tuple[int, Any]:
        return await self.alice.client.put(self.path(field), {field: value})

    async def profile(self) -> Any:
        status, answer = await self.server.client.get(self.path())
        self.assertEqual(status, 200)
        return answer

    async def test_set_get_delete(self) -> None:
        """Shows MISC-5."""
        await self.prepare()
        self.assertEqual(await self.profile(), {})
        values: dict[str, Any] = {
            "displayname": "Alice 🐇",
            "avatar_url": "mxc://hearth.test/abc",
            "m.tz": "Europe/London",
            "org.example.any": {"deep": [1, 2.5, None, True, {"ünï": "\u0007"}]},
            "org.example.null": None,
            "org.example.large": 10**40,
            "plain": 7,
        }
        for field, value in values.items():
            self.assertEqual(await self.put(field, value), (200, {}))
            status, answer = await self.server.client.get(self.path(field))
            self.assertEqual((status, answer), (200, {field: value}))
        self.assertEqual(await self.profile(), values)
        for field in values:
            for _ in range(2):
                answer = await self.alice.client.delete(self.path(field))
                self.assertEqual(answer, (200, {}))
            status, answer = await self.server.client.get(self.path(field))
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))
        self.assertEqual(await self.profile(), {})

    async def test_empty_name_and_avatar_remove_them(self) -> None:
        await self.prepare()
        for field, value in (("displayname", "Alice"), ("avatar_url", "mxc://hearth.test/abc")):
            await self.put(field, value)
            self.assertEqual((await self.put(field, ""))[0], 200)
        self.assertEqual(await self.profile(), {})

    async def test_unstable_path(self) -> None:
        await self.prepare()
        path = f"/_matrix/client/unstable/uk.tcpip.msc4133/profile/{self.alice.user_id}/m.tz"
        self.assertEqual((await self.alice.client.put(path, {"m.tz": "UTC"})).status, 200)
        self.assertEqual((await self.server.client.get(path)).body, {"m.tz": "UTC"})
        self.assertEqual((await self.alice.client.delete(path)).status, 200)

    async def test_limits(self) -> None:
        """Shows MISC-5."""
        await self.prepare()
        self.assertEqual((await self.put("a" * 255, 1))[0], 200)
        for field, errcode in (
            ("a" * 256, "M_KEY_TOO_LARGE"),
            ("é" * 128, "M_KEY_TOO_LARGE"),
            ("é", "M_INVALID_PARAM"),
            ("Org.example", "M_INVALID_PARAM"),
            ("1st", "M_INVALID_PARAM"),
            ("a b", "M_INVALID_PARAM"),
        ):
            status, answer = await self.put(field, 1)
            self.assertEqual((status, answer["errcode"]), (400, errcode), field)
            status, answer = await self.alice.client.delete(self.path(field))
            self.assertEqual((status, answer["errcode"]), (400, errcode), field)

    async def test_whole_size(self) -> None:
        """Shows MISC-5."""
        await self.prepare()
        frame = len(json.dumps({"a": "", "b": ""}, separators=(",", ":")))
        room = 65_536 - frame
        self.assertEqual((await self.put("a", "x" * 30_000))[0], 200)
        status, answer = await self.put("b", "x" * (room - 30_000))
        self.assertEqual((status, answer["errcode"]), (400, "M_PROFILE_TOO_LARGE"))
        self.assertEqual((await self.put("b", "x" * (room - 30_001)))[0], 200)
        status, answer = await self.put("displayname", "Alice")
        self.assertEqual((status, answer["errcode"]), (400, "M_PROFILE_TOO_LARGE"))
        self.assertEqual((await self.put("a", "y" * 10))[0], 200)
        self.assertEqual((await self.put("displayname", "Alice"))[0], 200)

    async def test_wrong_values(self) -> None:
        await self.prepare()
        for field, value, errcode in (
            ("displayname", 1, "M_BAD_JSON"),
            ("displayname", None, "M_BAD_JSON"),
            ("displayname", {"a": 1}, "M_BAD_JSON"),
            ("displayname", "x" * 257, "M_INVALID_PARAM"),
            ("avatar_url", [], "M_BAD_JSON"),
            ("avatar_url", "x" * 1001, "M_INVALID_PARAM"),
            ("m.tz", 1, "M_BAD_JSON"),
        ):
            status, answer = await self.put(field, value)
            self.assertEqual((status, answer["errcode"]), (400, errcode), (field, value))
        path = self.path("displayname")
        for body, errcode in (
            ({}, "M_MISSING_PARAM"),
            ({"avatar_url": "x"}, "M_MISSING_PARAM"),
            ([], "M_BAD_JSON"),
        ):
            status, answer = await self.alice.client.put(path, body)
            self.assertEqual((status, answer["errcode"]), (400, errcode), body)
        for raw in (b"", b"{", b'{"displayname": "\xff"}', b'{"displayname": "\\ud800"}'):
            status, answer = await self.alice.client.put(path, body=raw)
            self.assertEqual((status, answer["errcode"]), (400, "M_NOT_JSON"), raw)
        self.assertEqual(await self.profile(), {})

    async def test_others_profiles(self) -> None:
        """Shows MISC-5."""
        await self.prepare()
        bob = await self.server.add_user("bob", "builder")
        for user_id in ("@alice:hearth.test", "@nobody:hearth.test", "@alice:elsewhere.test"):
            path = self.path("displayname", user_id)
            for answer in (
                await bob.client.put(path, {"displayname": "Eve"}),
                await bob.client.delete(path),
            ):
                self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        for user_id in ("@nobody:hearth.test", "@alice:elsewhere.test"):
            for field in (None, "displayname"):
                status, answer = await bob.client.get(self.path(field, user_id))
                self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))
        for user_id in ("alice", "@alice", "!alice:hearth.test"):
            status, answer = await bob.client.get(self.path(None, user_id))
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_administrators_may(self) -> None:
        await self.prepare()
        root = await self.server.add_user("root", "toor")
        await self.server.accounts.set_admin(root.user_id, True)
        body = {"displayname": "Alice"}
        self.assertEqual((await root.client.put(self.path("displayname"), body)).status, 200)
        for user_id, expected in (("@nobody:hearth.test", 404), ("@a:elsewhere.test", 403)):
            path = self.path("displayname", user_id)
            self.assertEqual((await root.client.put(path, body)).status, expected)

    async def test_changes_are_told(self) -> None:
        await self.prepare()
        told: list[tuple[str, str]] = []

        async def hook(user_id: str, field: str) -> None:
            told.append((user_id, field))

        self.server.hooks.profile_changed.append(hook)
        await self.put("displayname", "Alice")
        await self.put("displayname", "Alice")
        await self.put("m.tz", "UTC")
        await self.alice.client.delete(self.path("displayname"))
        await self.alice.client.delete(self.path("displayname"))
        fields = ["displayname", "m.tz", "displayname"]
        self.assertEqual(told, [(self.alice.user_id, field) for field in fields])

    async def test_suspended(self) -> None:
        """Shows ACC-8."""
        await self.prepare()
        await self.server.accounts.set_suspended(self.alice.user_id, True)
        for answer in (
            await self.put("displayname", "Alice"),
            await self.alice.client.delete(self.path("displayname")),
        ):
            self.assertEqual((answer[0], answer[1]["errcode"]), (403, "M_USER_SUSPENDED"))
        self.assertEqual((await self.alice.whoami()).status, 200)
