"""Other servers ask for devices and keys, and two servers tell each other of them."""

from __future__ import annotations

from typing import Any

from storage import device_keys
from tests.federation.server.scene import Scene
from tests.support.federation import FederatedServer, eventually, make_federation
from tests.support.keys import ALGORITHM, CrossSigner, Device, claim, proof, query
from tests.support.room_case import log_in
from tests.support.server import User

QUERY = "/v1/user/keys/query"
CLAIM = "/v1/user/keys/claim"
DEVICES = "/v1/user/devices/{}"


class ServingTest(Scene):
    async def begin(self) -> None:
        await super().begin()
        self.device = Device(self.alice)
        await self.device.upload(
            device_keys=self.device.keys(), one_time_keys=self.device.one_time_keys("A", "B")
        )

    async def post(self, path: str, body: Any) -> Any:
        status, answer = await self.peer.post(self.hearth.name, path, body=body)
        self.assertEqual(status, 200, answer)
        return answer

    async def test_queries(self) -> None:
        """No other user's signatures and no user-signing keys. Shows E2E-4, E2E-6."""
        await self.begin()
        signer = CrossSigner(self.alice)
        await signer.upload()
        keys = signer.sign(self.device.keys(), signer.self_signing)
        device_id = self.alice.device_id
        signed = {self.alice.user_id: {device_id: keys}}
        await self.alice.ok("POST", "/keys/signatures/upload", signed)
        await self.alice.ok("PUT", f"/devices/{device_id}", {"display_name": "Phone"})
        answer = await self.post(QUERY, {"device_keys": {self.alice.user_id: []}})
        expected = {**keys, "unsigned": {"device_display_name": "Phone"}}
        self.assertEqual(answer["device_keys"], {self.alice.user_id: {device_id: expected}})
        self.assertEqual(set(answer), {"device_keys", "master_keys", "self_signing_keys"})
        master = answer["master_keys"][self.alice.user_id]["keys"]
        self.assertEqual(list(master.values()), [signer.public(signer.master)])
        answer = await self.post(QUERY, {"device_keys": {self.alice.user_id: ["OTHER"]}})
        self.assertEqual(answer["device_keys"], {self.alice.user_id: {}})

    async def test_claims(self) -> None:
        """Shows E2E-3."""
        await self.begin()
        body = {"one_time_keys": {self.alice.user_id: {self.alice.device_id: ALGORITHM}}}
        found = []
        for _ in range(3):
            answer = await self.post(CLAIM, body)
            devices = answer["one_time_keys"].get(self.alice.user_id, {})
            found.append(list(devices.get(self.alice.device_id, {})))
        self.assertEqual(found, [[f"{ALGORITHM}:A"], [f"{ALGORITHM}:B"], []])

    async def test_device_lists(self) -> None:
        """With the place in the stream of changes. Shows TXN-11."""
        await self.begin()
        other = await log_in(self.hearth, self.alice)
        await self.alice.ok("PUT", f"/devices/{self.alice.device_id}", {"display_name": "Phone"})
        status, answer = await self.peer.get(self.hearth.name, DEVICES, self.alice.user_id)
        self.assertEqual((status, answer["user_id"]), (200, self.alice.user_id))
        devices = {device["device_id"]: device for device in answer["devices"]}
        self.assertEqual(set(devices), {self.alice.device_id, other.device_id})
        shown = devices[self.alice.device_id]
        self.assertEqual(shown["keys"], self.device.keys())
        self.assertEqual(shown["device_display_name"], "Phone")
        self.assertNotIn("master_key", answer)
        signer = CrossSigner(self.alice)
        await signer.upload()
        await self.alice.ok("PUT", f"/devices/{self.alice.device_id}", {"display_name": "Old"})
        _, later = await self.peer.get(self.hearth.name, DEVICES, self.alice.user_id)
        self.assertGreater(later["stream_id"], answer["stream_id"])
        self.assertEqual(later["master_key"], signer.key("master"))
        self.assertEqual(later["self_signing_key"], signer.key("self_signing"))

    async def test_refusals(self) -> None:
        await self.begin()
        nobody = f"@nobody:{self.hearth.name}"
        self.assertEqual((await self.peer.get(self.hearth.name, DEVICES, nobody))[0], 404)
        status, _ = await self.peer.get(self.hearth.name, DEVICES, self.mallory)
        self.assertEqual(status, 403)
        bodies: list[Any] = [
            {"device_keys": {self.mallory: []}, "one_time_keys": {self.mallory: {}}},
            {"device_keys": {"alice": []}, "one_time_keys": {"alice": {}}},
            {"device_keys": {self.alice.user_id: {}}, "one_time_keys": {self.alice.user_id: []}},
            {},
        ]
        for path in (QUERY, CLAIM):
            for body in bodies:
                status, _ = await self.peer.post(self.hearth.name, path, body=body)
                self.assertEqual(status, 400)

    async def test_what_is_told_of_changes(self) -> None:
        """Devices with keys, without, and those that are gone. Shows TXN-11."""
        await self.begin()
        other = await log_in(self.hearth, self.alice)
        devices = [
            (self.alice.user_id, device_id)
            for device_id in (self.alice.device_id, other.device_id, "GONE")
        ]
        found = await self.hearth.homeserver.db.read(device_keys.for_update, devices)
        self.assertEqual(found[devices[0]]["keys"], self.device.keys())
        self.assertNotIn("keys", found[devices[1]])
        self.assertNotIn("deleted", found[devices[1]])
        self.assertIs(found[devices[2]]["deleted"], True)


class EnteringTest(Scene):
    async def told(self, user: User) -> list[str]:
        """The devices of a user that the peer was told of."""
        return [
            edu["content"]["device_id"]
            for edu in self.peer.edus
            if edu["edu_type"] == "m.device_list_update"
            and edu["content"]["user_id"] == user.user_id
        ]

    async def test_who_enters_a_room_is_told_to_its_servers(self) -> None:
        """Once, not for each room more; also in a room of the other server. Shows E2E-9."""
        await self.begin()
        carol = await self.hearth.register("carol")
        for user in (self.alice, carol):
            await Device(user).upload()
        room_id = await self.room()
        await self.peer.join(self.hearth.name, room_id)
        since = [(await user.sync())["next_batch"] for user in (self.alice, carol)]
        await carol.join(room_id)
        await eventually(lambda: self.told(carol))
        self.assertEqual(await self.told(carol), [carol.device_id])
        changed = (await carol.sync(since[1]))["device_lists"]["changed"]
        self.assertEqual(changed, sorted([self.mallory, self.alice.user_id, carol.user_id]))
        changed = (await self.alice.sync(since[0]))["device_lists"]["changed"]
        self.assertEqual(changed, [carol.user_id])
        dave = await self.hearth.register("dave")
        await Device(dave).upload()
        room = self.peer.create_room()
        via = {"query": {"server_name": self.peer.name, "via": self.peer.name}}
        for user in (carol, dave):
            await user.ok("POST", f"/join/{room.room_id}", {}, **via)
        await eventually(lambda: self.told(dave))
        self.assertEqual(await self.told(carol), [carol.device_id])


class TwoServersTest(Scene):
    timeout = 120

    async def begin(self) -> None:
        one, two = self.federation = await make_federation(self)
        self.servers: list[FederatedServer] = [one, two]
        self.alice = await one.register("alice")
        self.bob = await two.register("bob")
        self.devices = [Device(self.alice), Device(self.bob)]
        for device in self.devices:
            await device.upload(
                device_keys=device.keys(), one_time_keys=device.one_time_keys("A", "B")
            )

    async def share(self) -> str:
        room_id = await self.alice.create_room(preset="public_chat")
        via = {"query": {"via": self.servers[0].name, "server_name": self.servers[0].name}}
        await self.bob.ok("POST", f"/join/{room_id}", {}, **via)
        return room_id

    async def changed(self, viewer: User, since: str, user: User) -> bool:
        lists = (await viewer.sync(since)).get("device_lists", {})
        return user.user_id in lists.get("changed", [])

    async def shown(self, viewer: User, user: User) -> dict[str, Any]:
        answer = await query(viewer, user)
        self.assertEqual(answer["failures"], {})
        found: dict[str, Any] = answer["device_keys"][user.user_id]
        return found

    async def test_keys_across_servers(self) -> None:
        """Shows E2E-3, E2E-4, E2E-5, E2E-9."""
        await self.begin()
        start = (await self.alice.sync())["next_batch"]
        await self.share()
        await eventually(lambda: self.changed(self.alice, start, self.bob))
        found = await self.shown(self.alice, self.bob)
        self.assertEqual(found[self.bob.device_id]["keys"], self.devices[1].keys()["keys"])
        names = [name for _ in range(3) for name in await claim(self.alice, self.bob)]
        self.assertEqual(names, [f"{ALGORITHM}:A", f"{ALGORITHM}:B"])

    async def test_changes_across_servers(self) -> None:
        """Login with keys, new name, cross-signing, logout; each tells the other server's user.

        Shows TXN-11, TXN-14, E2E-9, E2E-15.
        """
        await self.begin()
        await self.share()
        await self.shown(self.bob, self.alice)
        token = (await self.bob.sync())["next_batch"]
        phone = await log_in(self.servers[0], self.alice)
        await Device(phone).upload()

        async def devices_are(*wanted: str) -> bool:
            return set(await self.shown(self.bob, self.alice)) == set(wanted)

        await eventually(lambda: devices_are(self.alice.device_id, phone.device_id))
        await eventually(lambda: self.changed(self.bob, token, self.alice))
        await phone.ok("PUT", f"/devices/{phone.device_id}", {"display_name": "Phone"})

        async def name_is(name: str) -> bool:
            shown = (await self.shown(self.bob, self.alice))[phone.device_id]
            return bool(shown["unsigned"].get("device_display_name") == name)

        await eventually(lambda: name_is("Phone"))
        signer = CrossSigner(self.alice)
        await signer.upload()

        async def master_is(wanted: CrossSigner) -> bool:
            answer = await query(self.bob, self.alice)
            master = answer["master_keys"].get(self.alice.user_id, {}).get("keys", {})
            return wanted.public(wanted.master) in master.values()

        await eventually(lambda: master_is(signer))
        token = (await self.bob.sync())["next_batch"]
        await phone.ok("POST", "/logout", {})
        await eventually(lambda: devices_are(self.alice.device_id))
        await eventually(lambda: self.changed(self.bob, token, self.alice))
        other = CrossSigner(self.alice)
        path = "/keys/device_signing/upload"
        _, answer = await self.alice.call("POST", path, other.body())
        auth = proof(self.alice, answer["session"])
        await self.alice.ok("POST", path, {**other.body(), "auth": auth})
        await eventually(lambda: master_is(other))

    async def test_an_outage(self) -> None:
        """Changes while the other server is down are told when it is back. Shows TXN-11, TXN-13."""
        await self.begin()
        await self.share()
        await self.shown(self.bob, self.alice)
        token = (await self.bob.sync())["next_batch"]
        await self.servers[1].stop()
        logins = [await log_in(self.servers[0], self.alice) for _ in range(25)]
        for login in logins:
            await Device(login).upload()
        await self.servers[1].start()
        ids = {self.alice.device_id, *(login.device_id for login in logins)}

        async def all_are_known() -> bool:
            return set(await self.shown(self.bob, self.alice)) == ids

        # Whatever it sends lets the other server try again.
        await self.bob.ok("POST", "/keys/query", {"device_keys": {self.alice.user_id: []}})
        room_id = (await self.bob.ok("GET", "/joined_rooms"))["joined_rooms"][0]
        await self.bob.send(room_id)
        await eventually(all_are_known)
        await eventually(lambda: self.changed(self.bob, token, self.alice))

    async def test_signatures_on_remote_keys(self) -> None:
        """Shows E2E-6, E2E-8."""
        await self.begin()
        mine, theirs = CrossSigner(self.alice), CrossSigner(self.bob)
        await mine.upload()
        await theirs.upload()
        master = mine.sign(theirs.key("master"), mine.user_signing)
        signed = {self.bob.user_id: {theirs.public(theirs.master): master}}
        answer = await self.alice.ok("POST", "/keys/signatures/upload", signed)
        self.assertEqual(answer["failures"], {})
        shown = (await query(self.alice, self.bob))["master_keys"][self.bob.user_id]
        self.assertEqual(shown["signatures"], master["signatures"])
        shown = (await query(self.bob, self.bob))["master_keys"][self.bob.user_id]
        self.assertNotIn("signatures", shown)
