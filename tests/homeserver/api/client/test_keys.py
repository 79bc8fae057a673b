"""Keys of devices: publishing, asking for them, claiming them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from homeserver.encryption.uploads import MAX_ONE_TIME_KEYS
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.keys import ALGORITHM, Device, claim, query
from tests.support.room_case import log_in
from tests.support.server import make_server


class KeysTestCase(TestCase):
    timeout = 60

    async def prepare(self) -> None:
        self.server = await make_server(self, presence={"enabled": False})
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.device = Device(self.alice)

    async def refused(self, errcode: str, status: int = 400, **body: Any) -> None:
        """An upload of Alice's is refused."""
        answer = await self.alice.call("POST", "/keys/upload", body)
        self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode), answer.body)


class UploadTest(KeysTestCase):
    async def test_upload_and_query(self) -> None:
        """Shows E2E-1, E2E-4."""
        await self.prepare()
        keys = self.device.keys()
        names = ("AA", "AB")
        counts = await self.device.upload(
            device_keys=keys, one_time_keys=self.device.one_time_keys(*names)
        )
        self.assertEqual(counts, {ALGORITHM: 2})
        answer = await query(self.bob, self.alice, self.bob)
        expected = {**keys, "unsigned": {}}
        self.assertEqual(
            answer["device_keys"],
            {self.alice.user_id: {self.alice.device_id: expected}, self.bob.user_id: {}},
        )
        self.assertEqual(answer["failures"], {})
        path = f"/devices/{self.alice.device_id}"
        await self.alice.ok("PUT", path, {"display_name": "Phone"})
        answer = await query(self.bob, self.alice)
        shown = answer["device_keys"][self.alice.user_id][self.alice.device_id]
        self.assertEqual(shown["unsigned"], {"device_display_name": "Phone"})

    async def test_some_devices(self) -> None:
        """Devices that are named; a list of devices given as an object. Shows E2E-4."""
        await self.prepare()
        await self.device.upload()
        other = await log_in(self.server, self.alice)
        await Device(other).upload()
        for wanted, expected in (
            ([], {self.alice.device_id, other.device_id}),
            ([other.device_id], {other.device_id}),
            (["NOTHING"], set()),
        ):
            body: Any = {"device_keys": {self.alice.user_id: wanted}}
            answer = await self.bob.ok("POST", "/keys/query", body)
            self.assertEqual(set(answer["device_keys"][self.alice.user_id]), expected)
        body = {"device_keys": {self.alice.user_id: {"device_id": other.device_id}}}
        status, answer = await self.bob.call("POST", "/keys/query", body)
        self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"))

    async def test_whose_keys(self) -> None:
        """Keys must be of the user and the device that upload them. Shows E2E-1."""
        await self.prepare()
        keys = self.device.keys()
        for change in ({"user_id": self.bob.user_id}, {"device_id": "OTHER"}):
            await self.refused("M_INVALID_PARAM", device_keys={**keys, **change})
        status, answer = await self.alice.call("POST", "/keys/upload", {"device_keys": None})
        self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"))
        answer = await query(self.bob, self.alice)
        self.assertEqual(answer["device_keys"], {self.alice.user_id: {}})

    async def test_signatures_of_devices(self) -> None:
        """A signature must be right; keys without one can be uploaded."""
        await self.prepare()
        keys = self.device.keys()
        forged = Device(self.alice).keys()["signatures"]
        await self.refused("M_INVALID_SIGNATURE", device_keys={**keys, "signatures": forged})
        await self.refused("M_INVALID_SIGNATURE", device_keys={**keys, "algorithms": []})
        await self.refused("M_INVALID_SIGNATURE", device_keys={**keys, "keys": {}})
        garbled = {self.alice.user_id: {self.device.key_id: "!"}}
        await self.refused("M_INVALID_SIGNATURE", device_keys={**keys, "signatures": garbled})
        await self.device.upload(device_keys={**keys, "signatures": {}})

    async def test_malformed_keys(self) -> None:
        await self.prepare()
        keys = self.device.keys()
        changes: list[dict[str, Any]] = [
            {"algorithms": "all"},
            {"algorithms": [1]},
            {"keys": []},
            {"keys": {"ed25519:X": 1}},
            {"signatures": []},
            {"signatures": {"@a:b": "x"}},
            {"signatures": {"@a:b": {"x": 1}}},
            {"more": "x" * 70_000},
            {"more": 1.5},
        ]
        for change in changes:
            await self.refused("M_BAD_JSON", device_keys={**keys, **change})
        for name in ("algorithms", "keys", "signatures"):
            lacking = {other: value for other, value in keys.items() if other != name}
            await self.refused("M_BAD_JSON", device_keys=lacking)
        await self.refused("M_BAD_JSON", one_time_keys={f"{ALGORITHM}:A": 1})
        await self.refused("M_BAD_JSON", one_time_keys={f"{ALGORITHM}:A": {"no": "key"}})
        for name in ("", "AAA", ":A", f"{ALGORITHM}:", f"{ALGORITHM}:{'x' * 300}"):
            await self.refused("M_INVALID_PARAM", one_time_keys={name: "key"})
        large = {"key": "x" * 10_000}
        await self.refused("M_TOO_LARGE", 413, one_time_keys={f"{ALGORITHM}:A": large})
        names = [f"{ALGORITHM}:{n}" for n in range(MAX_ONE_TIME_KEYS + 1)]
        await self.refused("M_INVALID_PARAM", one_time_keys=dict.fromkeys(names, "key"))
        await self.refused("M_INVALID_PARAM", one_time_keys={f"{n}:A": "key" for n in range(30)})
        self.assertEqual(await self.device.upload(one_time_keys={}), {})

    async def test_new_identity(self) -> None:
        """Other keys of a device are told like a new device. Shows E2E-1, E2E-9."""
        await self.prepare()
        await self.device.upload(
            device_keys=self.device.keys(), one_time_keys=self.device.one_time_keys("A")
        )
        token = (await self.alice.sync())["next_batch"]
        await self.device.upload()
        self.assertNotIn("device_lists", await self.alice.sync(token))
        await Device(self.alice).upload()
        answer = await self.alice.sync(token)
        self.assertEqual(answer["device_lists"]["changed"], [self.alice.user_id])
        # What the former keys signed is of no use.
        self.assertEqual(await claim(self.bob, self.alice), {})

    async def test_other_users_signatures_are_not_kept(self) -> None:
        """Shows E2E-6."""
        await self.prepare()
        keys = self.device.keys()
        signed = {**keys["signatures"], self.bob.user_id: {"ed25519:X": "x"}}
        await self.device.upload(device_keys={**keys, "signatures": signed})
        answer = await query(self.bob, self.alice)
        shown = answer["device_keys"][self.alice.user_id][self.alice.device_id]
        self.assertEqual(shown["signatures"], keys["signatures"])


class OneTimeKeysTest(KeysTestCase):
    async def test_uploading_again(self) -> None:
        """Shows E2E-2."""
        await self.prepare()
        keys = self.device.one_time_keys("A", "B")
        for _ in range(2):
            self.assertEqual(await self.device.upload(one_time_keys=keys), {ALGORITHM: 2})
        overlapping = {**keys, **self.device.one_time_keys("C")}
        self.assertEqual(await self.device.upload(one_time_keys=overlapping), {ALGORITHM: 3})
        other = {**self.device.one_time_keys("D"), **self.device.one_time_keys("B")}
        await self.refused("M_INVALID_PARAM", one_time_keys=other)
        self.assertEqual(await self.device.upload(one_time_keys={}), {ALGORITHM: 3})

    async def test_a_claimed_key_does_not_come_back(self) -> None:
        """Uploading it again, as after a lost answer, changes nothing. Shows E2E-2, E2E-3."""
        await self.prepare()
        keys = self.device.one_time_keys("A", "B")
        await self.device.upload(one_time_keys=keys)
        claimed = await claim(self.bob, self.alice)
        self.assertEqual(claimed, {f"{ALGORITHM}:A": keys[f"{ALGORITHM}:A"]})
        self.assertEqual(await self.device.upload(one_time_keys=keys), {ALGORITHM: 1})
        self.assertEqual(set(await claim(self.bob, self.alice)), {f"{ALGORITHM}:B"})
        self.assertEqual(await claim(self.bob, self.alice), {})

    async def test_the_oldest_first(self) -> None:
        """Shows E2E-3."""
        await self.prepare()
        for name in ("Z", "M", "A", "Q"):
            await self.device.upload(one_time_keys=self.device.one_time_keys(name))
        found = [list(await claim(self.bob, self.alice)) for _ in range(4)]
        self.assertEqual(found, [[f"{ALGORITHM}:{name}"] for name in "ZMAQ"])

    async def test_fallback(self) -> None:
        """Given out when nothing else is left, and marked as used. Shows E2E-3, SYN-24."""
        await self.prepare()
        fallback = {f"{ALGORITHM}:F": self.device.one_time_key(fallback=True)}
        await self.device.upload(
            one_time_keys=self.device.one_time_keys("A"), fallback_keys=fallback
        )
        sync = await self.alice.sync()
        self.assertEqual(sync["device_one_time_keys_count"], {ALGORITHM: 1})
        self.assertEqual(sync["device_unused_fallback_key_types"], [ALGORITHM])
        found = [await claim(self.bob, self.alice) for _ in range(3)]
        self.assertEqual(list(found[0]), [f"{ALGORITHM}:A"])
        self.assertEqual(found[1:], [fallback, fallback])
        sync = await self.alice.sync()
        self.assertEqual(sync["device_one_time_keys_count"], {ALGORITHM: 0})
        self.assertEqual(sync["device_unused_fallback_key_types"], [])
        # The same key again is as used as before, a new one is not.
        await self.device.upload(fallback_keys=fallback)
        sync = await self.alice.sync()
        self.assertEqual(sync["device_unused_fallback_key_types"], [])
        new = {f"{ALGORITHM}:G": self.device.one_time_key(fallback=True)}
        await self.device.upload(fallback_keys=new)
        sync = await self.alice.sync()
        self.assertEqual(sync["device_unused_fallback_key_types"], [ALGORITHM])
        self.assertEqual(await claim(self.bob, self.alice), new)
        two = {f"{ALGORITHM}:{name}": self.device.one_time_key(True) for name in "XY"}
        await self.refused("M_INVALID_PARAM", fallback_keys=two)

    async def test_claims_of_what_there_is_not(self) -> None:
        await self.prepare()
        await self.device.upload(one_time_keys=self.device.one_time_keys("A"))
        self.assertEqual(await claim(self.bob, self.alice, algorithm="curve25519"), {})
        self.assertEqual(await claim(self.bob, self.bob), {})
        body: Any = {"one_time_keys": {self.alice.user_id: {"NOTHING": ALGORITHM}}}
        answer = await self.bob.ok("POST", "/keys/claim", body)
        self.assertEqual(answer, {"one_time_keys": {}, "failures": {}})
        for body, errcode in (
            ({"one_time_keys": {"alice": {}}}, "M_INVALID_PARAM"),
            ({"one_time_keys": {self.alice.user_id: []}}, "M_BAD_JSON"),
            ({"one_time_keys": {self.alice.user_id: {"A": ["x"]}}}, "M_BAD_JSON"),
            ({"one_time_keys": {self.alice.user_id: {"": "x"}}}, "M_INVALID_PARAM"),
            ({}, "M_MISSING_PARAM"),
        ):
            status, answer = await self.bob.call("POST", "/keys/claim", body)
            self.assertEqual((status, answer["errcode"]), (400, errcode))

    async def test_deleted_devices(self) -> None:
        """The keys go with the device, also from the counts. Shows E2E-15, E2E-9."""
        await self.prepare()
        room_id = await self.bob.create_room(preset="public_chat")
        await self.alice.join(room_id)
        fallback = {f"{ALGORITHM}:F": self.device.one_time_key(fallback=True)}
        await self.device.upload(
            device_keys=self.device.keys(),
            one_time_keys=self.device.one_time_keys("A"),
            fallback_keys=fallback,
        )
        token = (await self.bob.sync())["next_batch"]
        await self.alice.ok("POST", "/logout", {})
        answer = await self.bob.sync(token)
        self.assertEqual(answer["device_lists"]["changed"], [self.alice.user_id])
        self.assertEqual(await claim(self.bob, self.alice), {})
        answer = await query(self.bob, self.alice)
        self.assertEqual(answer["device_keys"], {self.alice.user_id: {}})
        again = await log_in(self.server, self.alice, self.alice.device_id)
        self.assertEqual((await again.sync())["device_one_time_keys_count"], {})

    async def test_changes(self) -> None:
        """`/keys/changes` tells what the sync has told. Shows E2E-10, E2E-9."""
        await self.prepare()
        room_id = await self.bob.create_room(preset="public_chat")
        token = (await self.bob.sync())["next_batch"]
        await self.alice.join(room_id)
        await self.device.upload()
        sync = await self.bob.sync(token)
        options = {"query": {"from": token, "to": sync["next_batch"]}}
        answer = await self.bob.ok("GET", "/keys/changes", **options)
        self.assertEqual(answer, {"changed": [self.alice.user_id], "left": []})
        self.assertEqual(answer["changed"], sync["device_lists"]["changed"])
        token = sync["next_batch"]
        await self.alice.leave(room_id)
        sync = await self.bob.sync(token)
        options = {"query": {"from": token, "to": sync["next_batch"]}}
        answer = await self.bob.ok("GET", "/keys/changes", **options)
        self.assertEqual(answer, {"changed": [], "left": [self.alice.user_id]})
        status, _ = await self.bob.call("GET", "/keys/changes", query={"from": "x"})
        self.assertEqual(status, 400)


@on_each_database
class ClaimRaceTest(DatabaseTestCase):
    timeout = 120

    async def test_each_key_once(self) -> None:
        """Claims of two processes at the same moment. Shows E2E-3."""
        url = self.database_url()
        first = await make_server(self, database_url=url, presence={"enabled": False})
        second = await make_server(self, database_url=url, presence={"enabled": False})
        alice, bob = await first.register("alice"), await first.register("bob")
        device, n = Device(alice), 24
        await device.upload(one_time_keys=device.one_time_keys(*(f"K{i:02}" for i in range(n))))
        there = [
            type(bob)(server, bob.user_id, bob.token, bob.device_id) for server in (first, second)
        ]
        claims = [Deferred.fromCoroutine(claim(there[i % 2], alice)) for i in range(n + 4)]
        found = [name for each in await gatherResults(claims) for name in each]
        self.assertEqual(sorted(found), [f"{ALGORITHM}:K{i:02}" for i in range(n)])
        counts = (await alice.sync())["device_one_time_keys_count"]
        self.assertEqual(counts, {ALGORITHM: 0})

    async def test_many_devices_at_once(self) -> None:
        """Claims of the same devices in other orders do not wait for each other for ever."""
        server = await make_server(
            self, database_url=self.database_url(), presence={"enabled": False}
        )
        users = [await server.register() for _ in range(6)]
        for user in users:
            device = Device(user)
            await device.upload(one_time_keys=device.one_time_keys(*"ABCDEFGH"))
        claims = [
            Deferred.fromCoroutine(claim(users[0], *(users if i % 2 else users[::-1])))
            for i in range(8)
        ]
        found = await gatherResults(claims)
        names = sorted(name for each in found for name in each)
        self.assertEqual(names, sorted(f"{ALGORITHM}:{name}" for name in "ABCDEFGH"))
