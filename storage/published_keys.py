"""All that a user's published keys are answered from, in one statement: tables `device_keys`,
`cross_signing_keys`, `key_signatures`, read together. Their modules write them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from storage.device_keys import Signature
from storage.dialect import array_text
from storage.transaction import Transaction


@dataclass(slots=True)
class PublishedKeys:
    """Keys of users, as JSON texts without the signatures that were made later.

    `devices`: (user ID, device ID, keys, display name). `cross_signing`: (user ID, usage, public
    key, keys). `signatures`: by user and name of the key.
    """

    devices: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    cross_signing: list[tuple[str, str, str, str]] = field(default_factory=list)
    signatures: dict[tuple[str, str], list[Signature]] = field(default_factory=dict)


def of_users(
    txn: Transaction,
    user_ids: Collection[str],
    device_ids: Collection[str] | None,
    viewer: str | None,
) -> PublishedKeys:
    """The keys of these users; only devices with one of `device_ids` if given.

    Signatures are those by the users themselves and by the viewer.
    """
    found = PublishedKeys()
    if not user_ids:
        return found
    where, users = txn.any_of("k.user_id", user_ids)
    if txn.dialect.name == "postgres":
        users = [array_text(each) for each in users]
    named, devices = where, list(users)
    if device_ids is not None:
        more, names = txn.any_of("k.device_id", device_ids)
        named, devices = f"{where} AND {more}", [*users, *names]
    rows = txn.all(
        "SELECT 0, k.user_id, k.device_id, k.keys, d.display_name, NULL FROM device_keys k"
        " JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id"
        f" WHERE {named}"
        " UNION ALL SELECT 1, k.user_id, k.public_key, k.keys, k.usage, NULL"
        f" FROM cross_signing_keys k WHERE {where}"
        " UNION ALL SELECT 2, k.user_id, k.key_name, k.signature, k.signer, k.signing_key"
        f" FROM key_signatures k WHERE {where} AND (k.signer = k.user_id OR k.signer = ?)",
        [*devices, *users, *users, viewer or ""],
    )
    for kind, user_id, name, text, other, signing_key in rows:
        if kind == 0:
            found.devices.append((user_id, name, text, other))
        elif kind == 1:
            found.cross_signing.append((user_id, other, name, text))
        else:
            signature = Signature(user_id, name, other, signing_key, text)
            found.signatures.setdefault((user_id, name), []).append(signature)
    return found
