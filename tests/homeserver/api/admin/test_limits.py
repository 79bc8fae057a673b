"""Limits that administrators set for single users."""

from __future__ import annotations

from typing import Any

from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.room_case import TEXT, q

SLOW = {
    "enabled": True,
    "message": {"per_second": 0, "burst": 2},
    "write": {"per_second": 0, "burst": 50},
    "create_room": {"per_second": 0, "burst": 1},
}


class LimitTest(AdminTestCase):
    async def send(self, number: int) -> list[int]:
        """The statuses of so many messages of Bob's."""
        found = []
        for _ in range(number):
            path = f"rooms/{q(self.room_id)}/send/m.room.message/t{next(self.bob._txns)}"
            found.append((await self.bob.call("PUT", f"/{path}", TEXT)).status)
        return found

    async def override(self, body: Any) -> None:
        answer = await self.alice.ok("POST", self.path, body)
        self.assertEqual(answer, {"messages_per_second": 0, "burst_count": 0, **body})
        self.assertEqual(await self.alice.ok("GET", self.path), answer)

    async def test_limits_are_applied(self) -> None:
        """Shows XC-4."""
        await self.prepare(rate_limits=SLOW)
        self.path = f"{V1}/users/{q(self.bob.user_id)}/override_ratelimit"
        self.room_id = await self.bob.create_room()
        self.assertEqual(await self.alice.ok("GET", self.path), {})
        self.assertEqual(await self.send(3), [200, 200, 429])
        await self.override({})
        self.assertEqual(await self.send(5), [200] * 5)
        await self.bob.create_room()
        # What is set slower than the usual holds for messages alone.
        await self.override({"messages_per_second": 1, "burst_count": 1})
        self.assertIn(429, await self.send(3))
        await self.bob.ok("GET", "/joined_rooms")
        self.assertEqual((await self.bob.call("POST", "/createRoom", {})).status, 429)
        self.assertEqual(await self.alice.ok("DELETE", self.path), {})
        self.assertEqual(await self.alice.ok("GET", self.path), {})
        self.assertEqual((await self.send(2))[-1], 429)

    async def test_bad_limits(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V1}/users/{q(self.bob.user_id)}/override_ratelimit"
        for name in ("messages_per_second", "burst_count"):
            told = await self.refused("M_INVALID_PARAM", "POST", path, {name: -1})
            self.assertIn(name, told)
            await self.refused("M_INVALID_PARAM", "POST", path, {name: 10**12})
            told = await self.refused("M_BAD_JSON", "POST", path, {name: "x"})
            self.assertIn(name, told)
        for method in ("GET", "POST", "DELETE"):
            there = f"{V1}/users/@nobody:hearth.test/override_ratelimit"
            await self.unknown(method, there, {} if method == "POST" else None)
            there = f"{V1}/users/@x:elsewhere/override_ratelimit"
            body: Any = {} if method == "POST" else None
            await self.refused("M_INVALID_PARAM", method, there, body)
