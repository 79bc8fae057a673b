"""Notices of the server, sent over the API."""

from __future__ import annotations

from typing import Any

from tests.homeserver.api.admin.case import V1, AdminTestCase
from tests.support.room_case import q

PATH = f"{V1}/send_server_notice"
CONTENT = {"msgtype": "m.text", "body": "Maintenance"}


class NoticesTest(AdminTestCase):
    async def test_notices(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        body: dict[str, Any] = {"user_id": self.bob.user_id, "content": CONTENT}
        first = await self.alice.ok("POST", PATH, body)
        [room_id] = (await self.bob.sync())["rooms"]["invite"]
        await self.bob.join(room_id)
        once = await self.alice.ok("PUT", f"{PATH}/t1", body)
        self.assertEqual(await self.alice.ok("PUT", f"{PATH}/t1", body), once)
        self.assertNotEqual(once, first)
        for event_id in (first["event_id"], once["event_id"]):
            event = await self.bob.ok("GET", f"/rooms/{q(room_id)}/event/{q(event_id)}")
            self.assertEqual(event["content"], CONTENT)
        state = {**body, "type": "a.b", "state_key": "k", "content": {"c": 1}}
        await self.alice.ok("POST", PATH, state)
        found = await self.bob.ok("GET", f"/rooms/{q(room_id)}/state/a.b/k")
        self.assertEqual(found, {"c": 1})
        self.assertEqual({line["subject"] for line in self.audit}, {self.bob.user_id})

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        for method, path in (("POST", PATH), ("PUT", f"{PATH}/t2")):
            bad = {"user_id": "@nobody:hearth.test", "content": {}}
            await self.unknown(method, path, bad)
            bad = {"user_id": "@x:elsewhere", "content": {}}
            await self.refused("M_INVALID_PARAM", method, path, bad)
            await self.refused("M_INVALID_PARAM", method, path, {"user_id": "x", "content": {}})
            await self.refused("M_MISSING_PARAM", method, path, {"user_id": self.bob.user_id})
            told = {"user_id": self.bob.user_id, "content": []}
            await self.refused("M_BAD_JSON", method, path, told)
