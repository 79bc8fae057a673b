"""Dehydrated devices."""

from __future__ import annotations

from typing import Any

from homeserver.encryption.dehydrated_devices import MAX_DATA_BYTES
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.keys import ALGORITHM, CrossSigner, Device, Named, claim, query
from tests.support.room_case import log_in
from tests.support.server import User, make_server

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
DATA = {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "abc", "nonce": "n"}


@on_each_database
class DehydratedDeviceTest(DatabaseTestCase):
    """Shows XC-2."""

    timeout = 60

    async def prepare(self) -> None:
        self.server = await make_server(
            self, database_url=self.database_url(), presence={"enabled": False}
        )
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")

    def body(self, device_id: str = "DRY", **more: Any) -> dict[str, Any]:
        device = Device(Named(self.alice.user_id, device_id))
        return {
            "device_id": device_id,
            "initial_device_display_name": "Dehydrated",
            "device_data": DATA,
            "device_keys": device.keys(),
            "one_time_keys": device.one_time_keys("A"),
            "fallback_keys": {f"{ALGORITHM}:F": device.one_time_key(fallback=True)},
            **more,
        }

    async def tell(self, user: User, device_id: str, number: int) -> None:
        messages = {self.alice.user_id: {device_id: {"number": number}}}
        path = f"/sendToDevice/m.room.encrypted/t{number}"
        await user.ok("PUT", path, {"messages": messages})

    async def refused(self, errcode: str, status: int = 400, **change: Any) -> None:
        answer = await self.alice.call("PUT", PATH, self.body(**change))
        self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), answer.body)

    async def test_life(self) -> None:
        """Made, found with keys by others, read by a new device, deleted."""
        for method in ("GET", "DELETE"):
            answer = await self.alice.call(method, PATH)
            self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
        body = self.body()
        self.assertEqual(await self.alice.ok("PUT", PATH, body), {"device_id": "DRY"})
        found = await self.alice.ok("GET", PATH)
        self.assertEqual(found, {"device_id": "DRY", "device_data": DATA})
        self.assertEqual((await self.bob.call("GET", PATH)).status, 404)
        keys = (await query(self.bob, self.alice))["device_keys"][self.alice.user_id]
        self.assertEqual(keys["DRY"]["keys"], body["device_keys"]["keys"])
        dry = User(self.server, self.alice.user_id, "", "DRY")
        for expected in ("A", "F", "F"):
            self.assertEqual(list(await claim(self.bob, dry)), [f"{ALGORITHM}:{expected}"])
        self.assertEqual(await self.alice.ok("DELETE", PATH), {"device_id": "DRY"})
        self.assertEqual((await self.alice.call("GET", PATH)).status, 404)
        keys = (await query(self.bob, self.alice))["device_keys"][self.alice.user_id]
        self.assertEqual(keys, {})

    async def test_messages(self) -> None:
        """They are paged, stay until the device goes, and only its user reads them."""
        await self.alice.ok("PUT", PATH, self.body())
        for number in range(5):
            await self.tell(self.bob, "DRY", number)
        path = f"{PATH}/DRY/events"
        for _ in range(2):
            seen: list[int] = []
            sent: dict[str, str] = {}
            while True:
                answer = await self.alice.ok("POST", path, sent, query={"limit": 2})
                seen += [event["content"]["number"] for event in answer["events"]]
                sent = {"next_batch": answer["next_batch"]}
                if not answer["events"]:
                    break
            self.assertEqual(seen, [0, 1, 2, 3, 4])
        first = await self.alice.ok("GET", path, query={"limit": 3})
        rest = await self.alice.ok("GET", path, query={"next_batch": first["next_batch"]})
        self.assertEqual([event["content"]["number"] for event in rest["events"]], [3, 4])
        self.assertEqual(rest["events"][0]["sender"], self.bob.user_id)
        for user, place in (
            (self.bob, path),
            (self.alice, f"{PATH}/{self.alice.device_id}/events"),
        ):
            answer = await user.call("POST", place, {})
            self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        for token in ("x", "d", "d-1", "d1x", "d" + "9" * 30):
            answer = await self.alice.call("POST", path, {"next_batch": token})
            self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_replaced(self) -> None:
        """There is one of each user; a new one takes the place of the old, also by its own ID."""
        await self.alice.ok("PUT", PATH, self.body())
        await self.tell(self.bob, "DRY", 1)
        again = self.body(device_data={**DATA, "device_pickle": "second"})
        await self.alice.ok("PUT", PATH, again)
        answer = await self.alice.ok("POST", f"{PATH}/DRY/events", {})
        self.assertEqual(answer["events"], [])
        await self.alice.ok("PUT", PATH, self.body("OTHER"))
        devices = (await self.alice.ok("GET", "/devices"))["devices"]
        ids = {device["device_id"] for device in devices}
        self.assertEqual(ids, {"OTHER", self.alice.device_id})
        self.assertEqual((await self.alice.ok("GET", PATH))["device_id"], "OTHER")

    async def test_logged_out(self) -> None:
        """It goes when it is deleted as any device, or with all sessions."""
        await self.alice.ok("PUT", PATH, self.body())
        await self.alice.ok("POST", "/logout/all", {})
        again = await log_in(self.server, self.alice)
        self.assertEqual((await again.call("GET", PATH)).status, 404)

    async def test_refused(self) -> None:
        """IDs of other devices and keys, keys of others, what is too large."""
        await self.refused("M_INVALID_PARAM", device_id=self.alice.device_id)
        mine = self.body(self.alice.device_id)
        answer = await self.alice.call("PUT", PATH, mine)
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_INVALID_PARAM"))
        signer = CrossSigner(self.alice)
        await signer.upload()
        taken = signer.public(signer.master)
        answer = await self.alice.call("PUT", PATH, self.body(taken))
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        other = Device(Named(self.bob.user_id, "DRY"))
        await self.refused("M_INVALID_PARAM", device_keys=other.keys())
        forged = self.body()["device_keys"]
        forged["algorithms"] = []
        await self.refused("M_INVALID_SIGNATURE", device_keys=forged)
        await self.refused("M_INVALID_PARAM", device_data={})
        large = {**DATA, "device_pickle": "x" * MAX_DATA_BYTES}
        await self.refused("M_TOO_LARGE", 413, device_data=large)
        await self.refused("M_BAD_JSON", device_data={**DATA, "n": 1.5})
        self.assertEqual((await self.alice.call("GET", PATH)).status, 404)
        devices = (await self.alice.ok("GET", "/devices"))["devices"]
        self.assertEqual(len(devices), 1)
