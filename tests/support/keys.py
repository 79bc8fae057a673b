"""Devices and users with keys of their own, which sign as real clients do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from homeserver.core import canonical
from homeserver.core.signing import encode_base64
from tests.support.server import User

ALGORITHM = "signed_curve25519"
PASSWORD = "wonderland"


def signature(obj: dict[str, Any], key: SigningKey) -> str:
    """The signature of a JSON object."""
    signed = {name: obj[name] for name in obj if name not in ("signatures", "unsigned")}
    return encode_base64(key.sign(canonical.encode(signed)).signature)


class Named(NamedTuple):
    """A user's device on a server that is none of ours."""

    user_id: str
    device_id: str


class Device:
    """The keys of a device of a user."""

    def __init__(self, user: User | Named) -> None:
        self.user = user
        self.key = SigningKey.generate()
        self.curve25519 = encode_base64(bytes(PrivateKey.generate().public_key))
        self._count = 0

    @property
    def key_id(self) -> str:
        return f"ed25519:{self.user.device_id}"

    def sign(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Add the device's signature to an object."""
        by_user = obj.setdefault("signatures", {}).setdefault(self.user.user_id, {})
        by_user[self.key_id] = signature(obj, self.key)
        return obj

    def keys(self) -> dict[str, Any]:
        """The identity keys, signed."""
        device_id = self.user.device_id
        return self.sign(
            {
                "user_id": self.user.user_id,
                "device_id": device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {
                    f"curve25519:{device_id}": self.curve25519,
                    self.key_id: encode_base64(bytes(self.key.verify_key)),
                },
            }
        )

    def one_time_key(self, fallback: bool = False) -> dict[str, Any]:
        """A new signed key."""
        key: dict[str, Any] = {"key": encode_base64(bytes(PrivateKey.generate().public_key))}
        if fallback:
            key["fallback"] = True
        return self.sign(key)

    def one_time_keys(self, *names: str) -> dict[str, Any]:
        """New signed keys with these IDs."""
        return {f"{ALGORITHM}:{name}": self.one_time_key() for name in names}

    async def upload(self, **body: Any) -> dict[str, int]:
        """Upload the identity keys, or what is given; the counts."""
        assert isinstance(self.user, User)
        answer = await self.user.ok("POST", "/keys/upload", body or {"device_keys": self.keys()})
        counts: dict[str, int] = answer["one_time_key_counts"]
        return counts


class CrossSigner:
    """The cross-signing keys of a user."""

    def __init__(self, user: User | Named) -> None:
        self.user = user
        self.master, self.self_signing, self.user_signing = (
            SigningKey.generate() for _ in range(3)
        )

    @staticmethod
    def public(key: SigningKey) -> str:
        return encode_base64(bytes(key.verify_key))

    def sign(self, obj: dict[str, Any], key: SigningKey) -> dict[str, Any]:
        """Add a signature by one of the keys."""
        by_user = obj.setdefault("signatures", {}).setdefault(self.user.user_id, {})
        by_user[f"ed25519:{self.public(key)}"] = signature(obj, key)
        return obj

    def key(self, usage: str) -> dict[str, Any]:
        """The object of a key; signed by the master key if it is another."""
        key: SigningKey = getattr(self, usage)
        obj = {
            "user_id": self.user.user_id,
            "usage": [usage],
            "keys": {f"ed25519:{self.public(key)}": self.public(key)},
        }
        return obj if usage == "master" else self.sign(obj, self.master)

    def body(
        self, usages: Sequence[str] = ("master", "self_signing", "user_signing")
    ) -> dict[str, Any]:
        """The body of an upload."""
        return {f"{usage}_key": self.key(usage) for usage in usages}

    async def upload(self) -> None:
        """Upload all keys, the first ones of the user."""
        assert isinstance(self.user, User)
        await self.user.ok("POST", "/keys/device_signing/upload", self.body())


def proof(user: User, session: str) -> dict[str, Any]:
    """An `auth` with the password."""
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": PASSWORD,
        "session": session,
    }


async def query(viewer: User, *users: User | str, **body: Any) -> Any:
    """The keys of users as another one sees them."""
    wanted: dict[str, list[str]] = {
        user if isinstance(user, str) else user.user_id: [] for user in users
    }
    return await viewer.ok("POST", "/keys/query", {"device_keys": wanted, **body})


async def claim(claimer: User, *users: User, algorithm: str = ALGORITHM) -> dict[str, Any]:
    """Claim a key of the device of each user: the keys by name."""
    wanted: dict[str, dict[str, str]] = {}
    for user in users:
        wanted.setdefault(user.user_id, {})[user.device_id] = algorithm
    answer = await claimer.ok("POST", "/keys/claim", {"one_time_keys": wanted})
    return {
        name: key
        for devices in answer["one_time_keys"].values()
        for keys in devices.values()
        for name, key in keys.items()
    }
