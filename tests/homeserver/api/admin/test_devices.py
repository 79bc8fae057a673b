"""Users' devices, for administrators."""

from __future__ import annotations

from tests.homeserver.api.admin.case import V2, AdminTestCase
from tests.support.room_case import log_in, q


class DevicesTest(AdminTestCase):
    async def test_devices(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        user = f"{V2}/users/{q(self.bob.user_id)}"
        path = f"{user}/devices"
        other = await log_in(self.server, self.bob, "OTHER")
        third = await log_in(self.server, self.bob, "THIRD")
        answer = await self.alice.ok("GET", path)
        self.assertEqual(answer["total"], 3)
        self.assertEqual(
            {each["device_id"] for each in answer["devices"]},
            {self.bob.device_id, "OTHER", "THIRD"},
        )
        new = {"device_id": "NEW"}
        for _ in range(2):
            self.assertEqual(await self.alice.call("POST", path, new), (201, {}))
        shown = await self.alice.ok("GET", f"{path}/NEW")
        self.assertEqual(
            (shown["user_id"], shown["display_name"], shown["last_seen_ts"], shown["dehydrated"]),
            (self.bob.user_id, None, None, False),
        )
        await self.alice.ok("PUT", f"{path}/NEW", {"display_name": "My phone"})
        self.assertEqual((await self.alice.ok("GET", f"{path}/NEW"))["display_name"], "My phone")
        self.assertEqual(await self.alice.ok("DELETE", f"{path}/OTHER"), {})
        self.assertEqual(await self.alice.ok("DELETE", f"{path}/OTHER"), {})
        self.assert_error(await other.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        await third.ok("GET", "/account/whoami")
        body = {"devices": ["THIRD", "NEW", "NOPE"]}
        self.assertEqual(await self.alice.ok("POST", f"{user}/delete_devices", body), {})
        self.assert_error(await third.call("GET", "/account/whoami"), 401, "M_UNKNOWN_TOKEN")
        self.assertEqual((await self.alice.ok("GET", path))["total"], 1)

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        path = f"{V2}/users/{q(self.bob.user_id)}/devices"
        await self.unknown("GET", f"{path}/NOPE")
        await self.unknown("PUT", f"{path}/NOPE", {"display_name": "x"})
        await self.unknown("PUT", f"{path}/NOPE", {})
        await self.refused("M_MISSING_PARAM", "POST", path, {})
        await self.refused("M_INVALID_PARAM", "POST", path, {"device_id": ""})
        await self.refused("M_INVALID_PARAM", "POST", path, {"device_id": "x" * 300})
        await self.refused("M_BAD_JSON", "PUT", f"{path}/{self.bob.device_id}", {"display_name": 1})
        delete = path.replace("/devices", "/delete_devices")
        await self.refused("M_BAD_JSON", "POST", delete, {"devices": [1]})
        for user_id, errcode, status in (
            ("@nobody:hearth.test", "M_NOT_FOUND", 404),
            ("@x:elsewhere", "M_INVALID_PARAM", 400),
        ):
            there = f"{V2}/users/{user_id}"
            for method, rest, body in (
                ("GET", "devices", None),
                ("POST", "devices", {"device_id": "A"}),
                ("GET", "devices/A", None),
                ("PUT", "devices/A", {"display_name": "x"}),
                ("DELETE", "devices/A", None),
                ("POST", "delete_devices", {"devices": ["A"]}),
            ):
                await self.refused(errcode, method, f"{there}/{rest}", body, status)
