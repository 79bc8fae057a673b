"""Cross-signing: publishing keys, signing, and who sees which signature."""

from __future__ import annotations

from typing import Any

from nacl.signing import SigningKey
from twisted.trial.unittest import TestCase

from tests.support.keys import CrossSigner, Device, proof, query
from tests.support.room_case import log_in
from tests.support.server import User, make_server

UPLOAD = "/keys/device_signing/upload"
SIGN = "/keys/signatures/upload"


class CrossSigningTestCase(TestCase):
    timeout = 60

    async def prepare(self) -> None:
        self.server = await make_server(self, presence={"enabled": False})
        self.alice = await self.server.register("alice")
        self.bob = await self.server.register("bob")
        self.device = Device(self.alice)
        self.signer = CrossSigner(self.alice)

    async def refused(self, errcode: str, body: Any, status: int = 400) -> None:
        answer = await self.alice.call("POST", UPLOAD, body)
        self.assertEqual((answer.status, answer.body.get("errcode")), (status, errcode))

    async def public_keys(self, viewer: User) -> dict[str, str]:
        """The public keys of Alice that somebody sees, by usage."""
        answer = await query(viewer, self.alice)
        return {
            usage: key
            for usage in ("master", "self_signing", "user_signing")
            for key in answer[f"{usage}_keys"].get(self.alice.user_id, {}).get("keys", {}).values()
        }


class UploadTest(CrossSigningTestCase):
    async def test_first_and_again(self) -> None:
        """Both are free; others do not see the user-signing key. Shows E2E-7, E2E-5."""
        await self.prepare()
        room_id = await self.bob.create_room(preset="public_chat")
        await self.alice.join(room_id)
        token = (await self.bob.sync())["next_batch"]
        body = self.signer.body()
        await self.alice.ok("POST", UPLOAD, body)
        sync = await self.bob.sync(token)
        self.assertEqual(sync["device_lists"]["changed"], [self.alice.user_id])
        await self.alice.ok("POST", UPLOAD, body)
        self.assertNotIn("device_lists", await self.bob.sync(sync["next_batch"]))
        keys = {
            "master": self.signer.public(self.signer.master),
            "self_signing": self.signer.public(self.signer.self_signing),
            "user_signing": self.signer.public(self.signer.user_signing),
        }
        self.assertEqual(await self.public_keys(self.alice), keys)
        del keys["user_signing"]
        self.assertEqual(await self.public_keys(self.bob), keys)

    async def test_replacing_must_be_confirmed(self) -> None:
        """Shows E2E-7."""
        await self.prepare()
        await self.signer.upload()
        other = CrossSigner(self.alice)
        status, answer = await self.alice.call("POST", UPLOAD, other.body())
        self.assertEqual(status, 401)
        self.assertIn({"stages": ["m.login.password"]}, answer["flows"])
        old = await self.public_keys(self.bob)
        self.assertEqual(old["master"], self.signer.public(self.signer.master))
        auth = proof(self.alice, answer["session"])
        await self.alice.ok("POST", UPLOAD, {**other.body(), "auth": auth})
        new = await self.public_keys(self.bob)
        self.assertEqual(new["master"], other.public(other.master))

    async def test_a_new_key_beside_the_old_ones(self) -> None:
        """A self-signing key alone, signed by the master key that is there. Shows E2E-7."""
        await self.prepare()
        await self.signer.upload()
        self.signer.self_signing = SigningKey.generate()
        body = self.signer.body(["self_signing"])
        status, answer = await self.alice.call("POST", UPLOAD, body)
        self.assertEqual(status, 401)
        auth = proof(self.alice, answer["session"])
        await self.alice.ok("POST", UPLOAD, {**body, "auth": auth})
        keys = await self.public_keys(self.bob)
        self.assertEqual(keys["self_signing"], self.signer.public(self.signer.self_signing))

    async def test_a_new_master_alone(self) -> None:
        """What the former master key vouched for goes with it."""
        await self.prepare()
        await self.signer.upload()
        other = CrossSigner(self.alice)
        body = other.body(["master"])
        _, answer = await self.alice.call("POST", UPLOAD, body)
        auth = proof(self.alice, answer["session"])
        await self.alice.ok("POST", UPLOAD, {**body, "auth": auth})
        self.assertEqual(await self.public_keys(self.alice), {"master": other.public(other.master)})

    async def test_invalid_signatures(self) -> None:
        """Shows E2E-7."""
        await self.prepare()
        forger = CrossSigner(self.alice)
        forger.master = SigningKey.generate()
        for usage in ("self_signing", "user_signing"):
            body = self.signer.body()
            body[f"{usage}_key"] = forger.key(usage)
            await self.refused("M_INVALID_SIGNATURE", body)
            body[f"{usage}_key"].pop("signatures")
            await self.refused("M_INVALID_SIGNATURE", body)
        await self.refused("M_MISSING_PARAM", self.signer.body(["self_signing"]))
        await self.refused("M_MISSING_PARAM", {})
        self.assertEqual(await self.public_keys(self.alice), {})

    async def test_malformed(self) -> None:
        await self.prepare()
        master = self.signer.key("master")
        other = self.signer.public(self.signer.self_signing)
        changes: list[dict[str, Any]] = [
            {"user_id": self.bob.user_id},
            {"usage": ["self_signing"]},
            {"usage": "master"},
            {"keys": {}},
            {"keys": {**master["keys"], f"ed25519:{other}": other}},
            {"keys": {"ed25519:x": other}},
            {"keys": {"ed25519:short": "short"}},
            {"keys": 1},
            {"signatures": 1},
            {"more": 0.5},
        ]
        for change in changes:
            await self.refused("M_BAD_JSON", {"master_key": {**master, **change}})
        await self.refused("M_BAD_JSON", {"master_key": []})

    async def test_names_of_devices(self) -> None:
        """A key is not called like a device, nor a device like a key. Shows E2E-7."""
        await self.prepare()
        public = self.signer.public(self.signer.master)
        device = await log_in(self.server, self.alice, public)
        await self.refused("M_FORBIDDEN", self.signer.body(), 403)
        await device.ok("POST", "/logout", {})
        await self.signer.upload()
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.alice.user_id},
            "password": "wonderland",
            "device_id": public,
        }
        status, answer = await self.server.client.post("/_matrix/client/v3/login", body)
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))


class SignaturesTest(CrossSigningTestCase):
    async def prepare(self) -> None:
        await super().prepare()
        await self.device.upload()
        await self.signer.upload()

    async def sign(self, user: User, signed: Any) -> Any:
        return (await user.ok("POST", SIGN, signed))["failures"]

    async def test_own_device(self) -> None:
        """Signed by the self-signing key, for all to see. Shows E2E-8, E2E-6."""
        await self.prepare()
        room_id = await self.bob.create_room(preset="public_chat")
        await self.alice.join(room_id)
        token = (await self.bob.sync())["next_batch"]
        keys = self.signer.sign(self.device.keys(), self.signer.self_signing)
        device_id = self.alice.device_id
        failures = await self.sign(self.alice, {self.alice.user_id: {device_id: keys}})
        self.assertEqual(failures, {})
        sync = await self.bob.sync(token)
        self.assertEqual(sync["device_lists"]["changed"], [self.alice.user_id])
        answer = await query(self.bob, self.alice)
        shown = answer["device_keys"][self.alice.user_id][device_id]
        self.assertEqual(shown["signatures"], keys["signatures"])
        # Uploading the keys anew keeps it.
        await self.device.upload()
        answer = await query(self.bob, self.alice)
        shown = answer["device_keys"][self.alice.user_id][device_id]
        self.assertEqual(shown["signatures"], keys["signatures"])

    async def test_own_master_key(self) -> None:
        """Signed by a device, for all to see. Shows E2E-8, E2E-6."""
        await self.prepare()
        master = self.device.sign(self.signer.key("master"))
        name = self.signer.public(self.signer.master)
        self.assertEqual(await self.sign(self.alice, {self.alice.user_id: {name: master}}), {})
        for viewer in (self.alice, self.bob):
            answer = await query(viewer, self.alice)
            shown = answer["master_keys"][self.alice.user_id]
            self.assertEqual(shown["signatures"], master["signatures"])

    async def test_another_users_master_key(self) -> None:
        """Only who signed sees it, and is told. Shows E2E-6, E2E-8."""
        await self.prepare()
        other = CrossSigner(self.bob)
        await other.upload()
        carol = await self.server.register("carol")
        room_id = await self.bob.create_room(preset="public_chat")
        await self.alice.join(room_id)
        await carol.join(room_id)
        tokens = [(await user.sync())["next_batch"] for user in (self.alice, carol, self.bob)]
        master = self.signer.sign(other.key("master"), self.signer.user_signing)
        name = other.public(other.master)
        self.assertEqual(await self.sign(self.alice, {self.bob.user_id: {name: master}}), {})
        shown = (await query(self.alice, self.bob))["master_keys"][self.bob.user_id]
        self.assertEqual(shown["signatures"], master["signatures"])
        for viewer in (self.bob, carol):
            shown = (await query(viewer, self.bob))["master_keys"][self.bob.user_id]
            self.assertNotIn("signatures", shown)
        sync = await self.alice.sync(tokens[0])
        self.assertEqual(sync["device_lists"]["changed"], [self.bob.user_id])
        self.assertNotIn("device_lists", await carol.sync(tokens[1]))
        self.assertNotIn("device_lists", await self.bob.sync(tokens[2]))

    async def test_failures(self) -> None:
        """Each key for itself. Shows E2E-8."""
        await self.prepare()
        other = CrossSigner(self.bob)
        await other.upload()
        forger = CrossSigner(self.alice)
        device_id, name = self.alice.device_id, other.public(other.master)
        good = self.signer.sign(self.device.keys(), self.signer.self_signing)
        forged = forger.sign(other.key("master"), forger.user_signing)
        wrong_usage = self.signer.sign(other.key("master"), self.signer.self_signing)
        changed = {**self.device.keys(), "algorithms": []}
        self.signer.sign(changed, self.signer.self_signing)
        unsigned = {name: value for name, value in good.items() if name != "signatures"}
        cases = [
            (self.bob.user_id, name, forged, "M_INVALID_SIGNATURE"),
            (self.bob.user_id, name, wrong_usage, "M_INVALID_SIGNATURE"),
            (self.bob.user_id, name, {}, "M_INVALID_PARAM"),
            (self.bob.user_id, "OTHER", forged, "M_NOT_FOUND"),
            ("@nobody:hearth.test", name, forged, "M_NOT_FOUND"),
            (self.alice.user_id, "OTHER", good, "M_NOT_FOUND"),
            (self.alice.user_id, device_id, changed, "M_INVALID_PARAM"),
            (self.alice.user_id, device_id, unsigned, "M_INVALID_SIGNATURE"),
            (self.alice.user_id, device_id, [], "M_BAD_JSON"),
            (self.alice.user_id, device_id, {"signatures": []}, "M_INVALID_PARAM"),
            (self.alice.user_id, device_id, {**good, "signatures": []}, "M_INVALID_SIGNATURE"),
        ]
        for user_id, key_name, signed, errcode in cases:
            failures = await self.sign(self.alice, {user_id: {key_name: signed}})
            self.assertEqual(failures[user_id][key_name]["errcode"], errcode, (key_name, signed))
        both = {self.alice.user_id: {device_id: good}, self.bob.user_id: {name: forged}}
        failures = await self.sign(self.alice, both)
        self.assertEqual(list(failures), [self.bob.user_id])
        answer = await query(self.bob, self.alice)
        shown = answer["device_keys"][self.alice.user_id][device_id]
        self.assertEqual(shown["signatures"], good["signatures"])
        bad: list[dict[str, Any]] = [{"alice": {}}, {self.alice.user_id: []}]
        for body in bad:
            status, _ = await self.alice.call("POST", SIGN, body)
            self.assertEqual(status, 400)

    async def test_signatures_go_with_the_keys(self) -> None:
        """A new self-signing key has signed nothing yet."""
        await self.prepare()
        keys = self.signer.sign(self.device.keys(), self.signer.self_signing)
        device_id = self.alice.device_id
        await self.sign(self.alice, {self.alice.user_id: {device_id: keys}})
        self.signer.self_signing = SigningKey.generate()
        body = self.signer.body(["self_signing"])
        _, answer = await self.alice.call("POST", UPLOAD, body)
        auth = proof(self.alice, answer["session"])
        await self.alice.ok("POST", UPLOAD, {**body, "auth": auth})
        answer = await query(self.bob, self.alice)
        shown = answer["device_keys"][self.alice.user_id][device_id]
        self.assertEqual(shown["signatures"], self.device.keys()["signatures"])
