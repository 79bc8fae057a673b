"""Keys of this server's users as others get them (client-server API, "Key and signature
security"): which signatures somebody sees depends on who looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from homeserver.core.types import JsonObject
from storage import cross_signing, device_keys
from storage.transaction import Transaction


@dataclass(slots=True)
class FoundKeys:
    """Answers to a query: device keys by user and device, cross-signing keys by user."""

    device_keys: dict[str, dict[str, JsonObject]] = field(default_factory=dict)
    master_keys: dict[str, JsonObject] = field(default_factory=dict)
    self_signing_keys: dict[str, JsonObject] = field(default_factory=dict)
    user_signing_keys: dict[str, JsonObject] = field(default_factory=dict)
    failures: dict[str, JsonObject] = field(default_factory=dict)

    def update(self, other: FoundKeys) -> None:
        """Add what another query found, of other users."""
        self.device_keys |= other.device_keys
        self.master_keys |= other.master_keys
        self.self_signing_keys |= other.self_signing_keys
        self.user_signing_keys |= other.user_signing_keys
        self.failures |= other.failures


def local_keys(
    txn: Transaction, wanted: Mapping[str, Sequence[str]], viewer: str | None
) -> FoundKeys:
    """Keys of local users, with the signatures that the viewer may see (None: any server).

    `wanted`: user IDs to device IDs; none of them means all devices.
    """
    found = FoundKeys()
    named = None
    if all(wanted.values()):
        named = {device_id for device_ids in wanted.values() for device_id in device_ids}
    signatures = device_keys.signatures_on(txn, wanted.keys(), viewer)
    found.device_keys = {user_id: {} for user_id in wanted}
    for row in device_keys.with_keys(txn, wanted.keys(), named):
        device_ids = wanted[row.user_id]
        if row.keys is None or (device_ids and row.device_id not in device_ids):
            continue
        keys = orjson.loads(row.keys)
        device_keys.with_signatures(keys, signatures.get((row.user_id, row.device_id), ()))
        keys["unsigned"] = {}
        if row.display_name is not None:
            keys["unsigned"]["device_display_name"] = row.display_name
        found.device_keys[row.user_id][row.device_id] = keys
    kinds = {
        cross_signing.MASTER: found.master_keys,
        cross_signing.SELF_SIGNING: found.self_signing_keys,
        cross_signing.USER_SIGNING: found.user_signing_keys,
    }
    for user_id, by_usage in cross_signing.of_users(txn, wanted.keys()).items():
        for usage, key in by_usage.items():
            if usage == cross_signing.USER_SIGNING and user_id != viewer:
                continue
            kinds[usage][user_id] = device_keys.with_signatures(
                orjson.loads(key.keys), signatures.get((user_id, key.public_key), ())
            )
    return found


def add_own_signatures(txn: Transaction, viewer: str, master_keys: dict[str, JsonObject]) -> None:
    """Add the viewer's signatures to master keys of remote users; changes these."""
    if not master_keys:
        return
    signatures = device_keys.signatures_on(txn, master_keys.keys(), viewer)
    for user_id, key in master_keys.items():
        for public_key in key["keys"].values():
            device_keys.with_signatures(key, signatures.get((user_id, public_key), ()))
