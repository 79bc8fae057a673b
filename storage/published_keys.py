"""All that a user's published keys are answered from, in one statement: tables `device_keys`,
`cross_signing_keys`, `key_signatures`, read together. Their modules write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.device_keys import Signature
from storage.point_query import point_query
from storage.transaction import Row


@dataclass(slots=True)
class PublishedKeys:
    """Keys of users, as JSON texts without the signatures that were made later.

    `devices`: (user ID, device ID, keys, display name). `cross_signing`: (user ID, usage, public
    key, keys). `signatures`: by user and name of the key.
    """

    devices: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    cross_signing: list[tuple[str, str, str, str]] = field(default_factory=list)
    signatures: dict[tuple[str, str], list[Signature]] = field(default_factory=dict)


MOST_ROWS = 100
"""More are for a thread to read, and to make answers of."""


def _found(rows: list[Row]) -> PublishedKeys:
    found = PublishedKeys()
    for kind, user_id, name, text, other, signing_key in rows:
        if kind == 0:
            found.devices.append((user_id, name, text, other))
        elif kind == 1:
            found.cross_signing.append((user_id, other, name, text))
        else:
            signature = Signature(user_id, name, other, signing_key, text)
            found.signatures.setdefault((user_id, name), []).append(signature)
    return found


def _statement(devices: str) -> str:
    return (
        "SELECT 0, k.user_id, k.device_id, k.keys, d.display_name, NULL FROM device_keys k"
        " JOIN devices d ON d.user_id = k.user_id AND d.device_id = k.device_id"
        f" WHERE k.user_id = ANY(?){devices}"
        " UNION ALL SELECT 1, k.user_id, k.public_key, k.keys, k.usage, NULL"
        " FROM cross_signing_keys k WHERE k.user_id = ANY(?)"
        " UNION ALL SELECT 2, k.user_id, k.key_name, k.signature, k.signer, k.signing_key"
        " FROM key_signatures k WHERE k.user_id = ANY(?)"
        " AND (k.signer = k.user_id OR k.signer = ?)"
    )


@point_query(_statement(""), _found, most=MOST_ROWS)
def of_users(user_ids: list[str], viewer: str) -> Sequence[Any]:
    """The keys of these users, with the signatures by themselves and by the viewer."""
    return (user_ids, user_ids, user_ids, viewer)


@point_query(_statement(" AND k.device_id = ANY(?)"), _found, most=MOST_ROWS)
def of_devices(user_ids: list[str], device_ids: list[str], viewer: str) -> Sequence[Any]:
    """As `of_users`, without the devices that have none of these IDs."""
    return (user_ids, device_ids, user_ids, user_ids, viewer)
