"""Keys of this server's users as others get them (client-server API, "Key and signature
security"): which signatures somebody sees depends on who looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import orjson

from homeserver.core.types import JsonObject
from storage import cross_signing, device_keys, published_keys
from storage.database import Database
from storage.device_keys import Signature
from storage.published_keys import PublishedKeys
from storage.transaction import Transaction

KeyObject: TypeAlias = Any
"""A key object: parsed if it is of another server, else `msgspec.Raw` as far as it can be
answered as it is stored."""

FEW_USERS = 10
"""As many are asked for without a thread."""
_NO_UNSIGNED = ',"unsigned":{}}'


@dataclass(slots=True)
class FoundKeys:
    """Answers to a query: device keys by user and device, cross-signing keys by user."""

    device_keys: dict[str, dict[str, KeyObject]] = field(default_factory=dict)
    master_keys: dict[str, KeyObject] = field(default_factory=dict)
    self_signing_keys: dict[str, KeyObject] = field(default_factory=dict)
    user_signing_keys: dict[str, KeyObject] = field(default_factory=dict)
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
    users, devices = list(wanted), _named(wanted)
    if devices is None:
        return _shown(published_keys.of_users(txn, users, viewer or ""), wanted, viewer)
    return _shown(published_keys.of_devices(txn, users, devices, viewer or ""), wanted, viewer)


async def query_local_keys(
    db: Database, wanted: Mapping[str, Sequence[str]], viewer: str | None
) -> FoundKeys:
    """`local_keys`, without a thread if they are few."""
    if len(wanted) > FEW_USERS:
        return await db.read(local_keys, wanted, viewer)
    users, devices = list(wanted), _named(wanted)
    if devices is None:
        published = await db.query(published_keys.of_users, users, viewer or "")
    else:
        published = await db.query(published_keys.of_devices, users, devices, viewer or "")
    return _shown(published, wanted, viewer)


def _named(wanted: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The devices of which the keys are wanted; None: all."""
    if not all(wanted.values()):
        return None
    return sorted({device_id for device_ids in wanted.values() for device_id in device_ids})


def _shown(
    published: PublishedKeys, wanted: Mapping[str, Sequence[str]], viewer: str | None
) -> FoundKeys:
    found = FoundKeys()
    signatures = published.signatures
    found.device_keys = {user_id: {} for user_id in wanted}
    for user_id, device_id, text, name in published.devices:
        device_ids = wanted[user_id]
        if not device_ids or device_id in device_ids:
            found.device_keys[user_id][device_id] = _device(
                text, signatures.get((user_id, device_id), ()), name
            )
    kinds = {
        cross_signing.MASTER: found.master_keys,
        cross_signing.SELF_SIGNING: found.self_signing_keys,
        cross_signing.USER_SIGNING: found.user_signing_keys,
    }
    for user_id, usage, public_key, text in published.cross_signing:
        if usage != cross_signing.USER_SIGNING or user_id == viewer:
            kinds[usage][user_id] = _signed(text, signatures.get((user_id, public_key), ()))
    return found


def _device(text: str, signatures: Sequence[Signature], name: str | None) -> KeyObject:
    if signatures:
        keys = device_keys.with_signatures(orjson.loads(text), signatures)
        keys["unsigned"] = {} if name is None else {"device_display_name": name}
        return keys
    # Stored is the object as the device signed it: never empty, and without `unsigned`.
    if name is None:
        return msgspec.Raw(text[:-1] + _NO_UNSIGNED)
    quoted = orjson.dumps(name).decode()
    return msgspec.Raw(f'{text[:-1]},"unsigned":{{"device_display_name":{quoted}}}}}')


def _signed(text: str, signatures: Sequence[Signature]) -> KeyObject:
    if not signatures:
        return msgspec.Raw(text)
    return device_keys.with_signatures(orjson.loads(text), signatures)


def add_own_signatures(txn: Transaction, viewer: str, master_keys: dict[str, JsonObject]) -> None:
    """Add the viewer's signatures to master keys of remote users; changes these."""
    if not master_keys:
        return
    signatures = device_keys.signatures_on(txn, master_keys.keys(), viewer)
    for user_id, key in master_keys.items():
        for public_key in key["keys"].values():
            device_keys.with_signatures(key, signatures.get((user_id, public_key), ()))
