"""Messages between devices, and lists of devices, between Hearth and Synapse."""

from __future__ import annotations

import secrets
from typing import Any

from homeserver.core.signing import generate_signing_key, sign_json
from tests.interop.account import Account
from tests.interop.case import InteropCase, both_ways
from tests.support.network import eventually


async def upload_keys(account: Account, one_time: int = 0) -> dict[str, Any]:
    """Publish keys of the account's device; the device keys."""
    key = generate_signing_key(account.device_id, secrets.token_bytes(32))
    keys: dict[str, Any] = {
        "user_id": account.user_id,
        "device_id": account.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{account.device_id}": key.public_base64},
    }
    sign_json(keys, account.user_id, key)
    claimable = {}
    for number in range(one_time):
        one = {"key": secrets.token_urlsafe(32)}
        claimable[f"signed_curve25519:AAAA{number}"] = sign_json(one, account.user_id, key)
    await account.ok("POST", "/keys/upload", {"device_keys": keys, "one_time_keys": claimable})
    return keys


@both_ways(globals())
class Devices(InteropCase):
    async def test_to_device(self) -> None:
        for number, (sender, reader) in enumerate(((self.alice, self.bob), (self.bob, self.alice))):
            content = {"number": number}
            await sender.ok(
                "PUT",
                f"/sendToDevice/org.example.note/{secrets.token_hex(4)}",
                {"messages": {reader.user_id: {reader.device_id: content}}},
            )
            await reader.synced(
                lambda answer, who=sender, content=content: (
                    {
                        "type": "org.example.note",
                        "sender": who.user_id,
                        "content": content,
                    }
                    in answer.get("to_device", {}).get("events", [])
                ),
                f"message on {reader.server.kind}",
            )

    async def test_keys_of_devices(self) -> None:
        keys = await upload_keys(self.alice, one_time=2)
        room_id = await self.shared_room()
        await self._finds(self.alice.device_id, keys)
        wanted = {self.alice.user_id: {self.alice.device_id: "signed_curve25519"}}
        claimed = await self.bob.ok("POST", "/keys/claim", {"one_time_keys": wanted})
        mine = claimed["one_time_keys"][self.alice.user_id][self.alice.device_id]
        self.assertEqual(len(mine), 1)
        self.assertTrue(room_id)

    async def test_changes_of_devices(self) -> None:
        first = await upload_keys(self.alice)
        await self.shared_room()
        await self._finds(self.alice.device_id, first)
        await self.bob.sync()
        again = await self.alice.ok(
            "POST",
            "/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": self.alice.user_id},
                "password": "wonderland",
            },
        )
        second = Account(self.home, again)
        keys = await upload_keys(second)
        await self.bob.synced(
            lambda answer: self.alice.user_id in answer.get("device_lists", {}).get("changed", []),
            f"change of devices on {self.away.kind}",
        )
        await self._finds(second.device_id, keys)

    async def _finds(self, device_id: str, keys: dict[str, Any]) -> None:
        """Wait until bob, who asks for alice's devices, gets this one."""

        async def found() -> bool:
            answer = await self.bob.ok(
                "POST", "/keys/query", {"device_keys": {self.alice.user_id: []}}
            )
            device = answer["device_keys"].get(self.alice.user_id, {}).get(device_id, {})
            return bool(device.get("keys") == keys["keys"])

        await eventually(found, f"keys of {device_id} on {self.away.kind}")
