"""The number of devices of a user, and devices that nobody uses."""

from __future__ import annotations

from typing import Any

from homeserver.users.device_pruning import DevicePruning
from homeserver.users.sessions import Sessions
from storage.devices import DeviceRow
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.keys import Device, Named, query
from tests.support.room_case import log_in
from tests.support.server import make_server

DRY = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


@on_each_database
class DevicesTest(DatabaseTestCase):
    timeout = 120

    async def start(self, **sessions: Any) -> None:
        self.server = await make_server(
            self,
            database_url=self.database_url(),
            presence={"enabled": False},
            sessions=sessions,
        )
        self.alice = await self.server.register("alice")

    async def test_limit(self) -> None:
        """One device too many is refused with the reason; a known one logs in again."""
        await self.start(devices_per_user=3)
        second = await log_in(self.server, self.alice)
        await log_in(self.server, self.alice)
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.alice.user_id},
            "password": "wonderland",
        }
        status, answer = await self.server.client.post("/_matrix/client/v3/login", body)
        self.assertEqual((status, answer["errcode"]), (403, "M_USER_LIMIT_EXCEEDED"))
        self.assertIn("at most 3 devices", answer["error"])
        self.assertIn("info_uri", answer)
        self.assertEqual(len((await self.alice.ok("GET", "/devices"))["devices"]), 3)
        await log_in(self.server, self.alice, second.device_id)
        await second.call("POST", "/logout", {})
        again = await log_in(self.server, self.alice, second.device_id)
        await again.ok("POST", "/logout", {})
        await log_in(self.server, self.alice)

    async def test_very_many(self) -> None:
        """50,000 devices, made before there was a limit: all calls still answer."""
        await self.start()
        alice = self.alice
        db = self.server.homeserver.db

        def fill(txn: Any) -> None:
            rows = (
                DeviceRow(alice.user_id, f"D{n}", None, 1, None, None, None) for n in range(50_000)
            )
            txn.many(
                "INSERT INTO devices (user_id, device_id, display_name, created_ts, last_seen_ts,"
                " last_seen_ip, last_seen_user_agent) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

        await db.write(fill)
        bob = await self.server.register("bob")
        messages = {"messages": {alice.user_id: {"*": {"x": 1}}}}
        await bob.ok("PUT", "/sendToDevice/m.test/1", messages)
        events = (await alice.sync())["to_device"]["events"]
        self.assertEqual([event["content"] for event in events], [{"x": 1}])
        self.assertEqual(len((await alice.ok("GET", "/devices"))["devices"]), 50_001)
        self.assertEqual((await query(bob, alice))["device_keys"], {alice.user_id: {}})
        with self.assertRaises(AssertionError):
            await log_in(self.server, alice)

    async def test_unused(self) -> None:
        """Devices that were not used for long are logged out; dehydrated ones stay."""
        await self.start(unused_devices_after="30d")
        old = await log_in(self.server, self.alice)
        dry = Device(Named(self.alice.user_id, "DRY"))
        data = {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "a", "nonce": "n"}
        body = {"device_id": "DRY", "device_data": data, "device_keys": dry.keys()}
        await self.alice.ok("PUT", DRY, body)
        db = self.server.homeserver.db
        await db.write(
            lambda txn: txn.execute(
                "UPDATE devices SET last_seen_ts = 1000, created_ts = 1000 WHERE device_id <> ?",
                (self.alice.device_id,),
            )
        )
        services = self.server.homeserver.services
        self.assertEqual(await services[DevicePruning].run(), 1)
        self.assertEqual((await old.call("GET", "/account/whoami")).status, 401)
        await self.alice.ok("GET", "/account/whoami")
        await self.alice.ok("GET", DRY)
        self.assertEqual(await services[DevicePruning].run(), 0)
        never = DevicePruning(db, self.server.homeserver.reactor, services[Sessions], None)
        self.assertEqual(await never.run(), 0)
