"""Identity keys of this server's devices, and signatures on keys. Tables `device_keys`,
`key_signatures`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from storage.transaction import Transaction

JsonObject: TypeAlias = dict[str, Any]


class DeviceKeysRow(NamedTuple):
    """A device; `keys` is JSON, None while it has uploaded none."""

    user_id: str
    device_id: str
    keys: str | None
    display_name: str | None


class Signature(NamedTuple):
    """A signature of `signer` on a key of `user_id`: a device ID or a public master key."""

    user_id: str
    key_name: str
    signer: str
    signing_key: str
    signature: str


def get(txn: Transaction, user_id: str, device_id: str) -> str | None:
    """The keys of a device, JSON."""
    found: str | None = txn.value(
        "SELECT keys FROM device_keys WHERE user_id = ? AND device_id = ?", (user_id, device_id)
    )
    return found


def put(txn: Transaction, user_id: str, device_id: str, keys: str) -> None:
    """Set the keys of a device."""
    txn.execute(
        "INSERT INTO device_keys (user_id, device_id, keys) VALUES (?, ?, ?)"
        " ON CONFLICT (user_id, device_id) DO UPDATE SET keys = excluded.keys",
        (user_id, device_id, keys),
    )


def delete(txn: Transaction, user_id: str, device_id: str) -> None:
    """Delete the keys of a device, signatures on them, and signatures made with them."""
    txn.execute("DELETE FROM device_keys WHERE user_id = ? AND device_id = ?", (user_id, device_id))
    delete_signatures_on(txn, user_id, device_id)
    delete_signatures_by(txn, user_id, f"ed25519:{device_id}")


def with_keys(
    txn: Transaction, user_ids: Collection[str], device_ids: Collection[str] | None = None
) -> list[DeviceKeysRow]:
    """Devices of these users that have keys; only those with one of these IDs if given."""
    if not user_ids:
        return []
    where, args = txn.any_of("k.user_id", user_ids)
    if device_ids is not None:
        named, more = txn.any_of("k.device_id", device_ids)
        where, args = f"{where} AND {named}", [*args, *more]
    rows = txn.all(
        "SELECT k.user_id, k.device_id, k.keys, d.display_name FROM device_keys k"
        " JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id"
        f" WHERE {where} ORDER BY k.user_id, k.device_id",
        args,
    )
    return [DeviceKeysRow(*row) for row in rows]


def all_devices(txn: Transaction, user_id: str) -> list[DeviceKeysRow]:
    """All devices of a user, in the order of their IDs."""
    rows = txn.all(
        "SELECT d.user_id, d.device_id, k.keys, d.display_name FROM devices d"
        " LEFT JOIN device_keys k ON k.user_id = d.user_id AND k.device_id = d.device_id"
        " WHERE d.user_id = ? ORDER BY d.device_id",
        (user_id,),
    )
    return [DeviceKeysRow(*row) for row in rows]


def add_signatures(txn: Transaction, signatures: Iterable[Signature]) -> int:
    """Add signatures; how many are new or not as they were."""
    changed = 0
    for signature in signatures:
        changed += txn.execute(
            "INSERT INTO key_signatures (user_id, key_name, signer, signing_key, signature)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (user_id, key_name, signer, signing_key)"
            " DO UPDATE SET signature = excluded.signature"
            " WHERE key_signatures.signature <> excluded.signature",
            signature,
        )
    return changed


def signatures_on(
    txn: Transaction, user_ids: Collection[str], viewer: str | None
) -> dict[tuple[str, str], list[Signature]]:
    """Signatures on these users' keys by themselves and by the viewer, by user and key name."""
    found: dict[tuple[str, str], list[Signature]] = {}
    if not user_ids:
        return found
    where, args = txn.any_of("user_id", user_ids)
    for row in txn.all(
        "SELECT user_id, key_name, signer, signing_key, signature FROM key_signatures"
        f" WHERE {where} AND (signer = user_id OR signer = ?)",
        [*args, viewer or ""],
    ):
        found.setdefault((row[0], row[1]), []).append(Signature(*row))
    return found


def delete_signatures_on(txn: Transaction, user_id: str, key_name: str) -> None:
    """Delete all signatures on a key."""
    txn.execute(
        "DELETE FROM key_signatures WHERE user_id = ? AND key_name = ?", (user_id, key_name)
    )


def delete_signatures_by(txn: Transaction, signer: str, signing_key: str) -> None:
    """Delete all signatures made with a key (with its algorithm)."""
    txn.execute(
        "DELETE FROM key_signatures WHERE signer = ? AND signing_key = ?", (signer, signing_key)
    )


def with_signatures(keys: JsonObject, signatures: Iterable[Signature]) -> JsonObject:
    """Add signatures to a key object; changes and returns it."""
    for each in signatures:
        by_signer = keys.setdefault("signatures", {}).setdefault(each.signer, {})
        by_signer[each.signing_key] = each.signature
    return keys


def for_update(
    txn: Transaction, devices: Collection[tuple[str, str]]
) -> dict[tuple[str, str], JsonObject]:
    """What `m.device_list_update` says of each (user, device), besides the stream (server-server
    API, "Device Management").

    `user_id` and `device_id`; `deleted` if the device is gone, else `keys` (with the signatures
    that all may see) and `device_display_name` as far as there are any.
    """
    found: dict[tuple[str, str], JsonObject] = {
        (user_id, device_id): {"user_id": user_id, "device_id": device_id, "deleted": True}
        for user_id, device_id in devices
    }
    if not found:
        return found
    users = {user_id for user_id, _ in devices}
    where, args = txn.any_of("d.user_id", users)
    named, more = txn.any_of("d.device_id", {device_id for _, device_id in devices})
    signatures = signatures_on(txn, users, None)
    for user_id, device_id, keys, name in txn.all(
        "SELECT d.user_id, d.device_id, k.keys, d.display_name FROM devices d"
        " LEFT JOIN device_keys k ON k.user_id = d.user_id AND k.device_id = d.device_id"
        f" WHERE {where} AND {named}",
        [*args, *more],
    ):
        update = found.get((user_id, device_id))
        if update is None:
            continue
        del update["deleted"]
        update |= described(DeviceKeysRow(user_id, device_id, keys, name), signatures)
    return found


def described(
    row: DeviceKeysRow, signatures: Mapping[tuple[str, str], list[Signature]]
) -> JsonObject:
    """`keys` and `device_display_name` of a device, as other servers get them."""
    found: JsonObject = {}
    if row.display_name is not None:
        found["device_display_name"] = row.display_name
    if row.keys is not None:
        found["keys"] = with_signatures(
            json.loads(row.keys), signatures.get((row.user_id, row.device_id), ())
        )
    return found
