"""Listing, naming and deleting devices."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.support.users import User, UserServer, make_user_server

V3 = "/_matrix/client/v3"


class DevicesTest(TestCase):
    server: UserServer
    alice: User

    async def prepare(self) -> None:
        self.server = await make_user_server(self)
        await self.server.add_user()
        self.alice = await self.server.log_in(
            "alice", "wonderland", device_id="PHONE", initial_device_display_name="Phone"
        )
        await self.alice.client.delete(f"{V3}/devices/x", {"auth": self.alice.proof()})

    async def test_list_and_get(self) -> None:
        await self.prepare()
        await self.server.log_in("alice", "wonderland", device_id="A/B ü")
        _, listed = await self.alice.client.get(f"{V3}/devices")
        ids = [each["device_id"] for each in listed["devices"]]
        self.assertEqual(len(ids), 3)
        self.assertTrue({"PHONE", "A/B ü"} < set(ids))
        _, device = await self.alice.client.get(f"{V3}/devices/PHONE")
        self.assertEqual(
            device,
            {
                "device_id": "PHONE",
                "display_name": "Phone",
                "last_seen_ip": "127.0.0.1",
                "last_seen_ts": 1_700_000_000_000,
            },
        )
        _, device = await self.alice.client.get(f"{V3}/devices/A%2FB%20%C3%BC")
        self.assertEqual(device["device_id"], "A/B ü")

    async def test_last_seen(self) -> None:
        await self.prepare()
        self.server.clock.advance(3600)
        path = f"{V3}/devices/PHONE"
        _, device = await self.alice.client.get(path, address="192.0.2.7")
        self.assertEqual(device["last_seen_ts"], 1_700_003_600_000)
        self.assertEqual(device["last_seen_ip"], "192.0.2.7")

    async def test_other_users_devices(self) -> None:
        await self.prepare()
        bob = await self.server.add_user("bob", "builder")
        for method, body in (("GET", None), ("PUT", {"display_name": "Mine"})):
            status, answer = await bob.client.request(method, f"{V3}/devices/PHONE", body)
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))
        await bob.confirmed("DELETE", f"{V3}/devices/PHONE", {})
        self.assertEqual((await self.alice.whoami()).status, 200)

    async def test_rename(self) -> None:
        await self.prepare()
        changed: list[str] = []
        self.server.hooks.device_changed.append(lambda txn, user, device: changed.append(device))
        path = f"{V3}/devices/PHONE"
        for body, expected in (
            ({"display_name": "Mobile"}, "Mobile"),
            ({}, "Mobile"),
            ({"display_name": "é" * 200}, "é" * 100),
            ({"display_name": ""}, ""),
        ):
            status, answer = await self.alice.client.put(path, body)
            self.assertEqual((status, answer), (200, {}))
            _, device = await self.alice.client.get(path)
            self.assertEqual(device.get("display_name"), expected)
        self.assertEqual(changed, ["PHONE"] * 3)

    async def test_unknown_device(self) -> None:
        await self.prepare()
        for method, body in (("GET", None), ("PUT", {}), ("PUT", {"display_name": "x"})):
            status, answer = await self.alice.client.request(method, f"{V3}/devices/NO", body)
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))
        self.assertEqual((await self.alice.confirmed("DELETE", f"{V3}/devices/NO", {})).status, 200)

    async def test_delete_ends_its_session(self) -> None:
        """Shows LOG-5."""
        await self.prepare()
        other = await self.server.log_in("alice", "wonderland")
        answer = await self.alice.confirmed("DELETE", f"{V3}/devices/{other.device_id}", {})
        self.assertEqual(answer, (200, {}))
        self.assertEqual((await other.whoami()).status, 401)
        self.assertEqual((await self.alice.whoami()).status, 200)

    async def test_delete_several(self) -> None:
        """Shows LOG-5."""
        await self.prepare()
        others = [await self.server.log_in("alice", "wonderland") for _ in range(3)]
        ids = [each.device_id for each in others]
        path = f"{V3}/delete_devices"
        status, _ = await self.alice.confirmed("POST", path, {"devices": [*ids[:2], "NO", ids[0]]})
        self.assertEqual(status, 200)
        self.assertEqual([(await each.whoami()).status for each in others], [401, 401, 200])
        self.assertEqual((await self.alice.confirmed("POST", path, {"devices": []})).status, 200)

    async def test_malformed(self) -> None:
        await self.prepare()
        for method, path, body, errcode in (
            ("PUT", "/devices/PHONE", {"display_name": 1}, "M_BAD_JSON"),
            ("PUT", "/devices/PHONE", [], "M_BAD_JSON"),
            ("PUT", "/devices/PHONE", {"display_name": "a\0b"}, "M_INVALID_PARAM"),
            ("PUT", "/devices/PHONE%00", {"display_name": "a"}, "M_INVALID_PARAM"),
            ("POST", "/delete_devices", {}, "M_MISSING_PARAM"),
            ("POST", "/delete_devices", {"devices": "PHONE"}, "M_BAD_JSON"),
            ("POST", "/delete_devices", {"devices": [1]}, "M_BAD_JSON"),
            ("POST", "/delete_devices", {"devices": ["a\0b"]}, "M_INVALID_PARAM"),
            ("DELETE", "/devices/PHONE", {"auth": 1}, "M_BAD_JSON"),
        ):
            status, answer = await self.alice.client.request(method, V3 + path, body)
            self.assertEqual((status, answer["errcode"]), (400, errcode), (path, body))
