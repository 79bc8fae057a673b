"""Users sign keys: their devices, their master key, the master keys of others.

Client-server API, `POST /keys/signatures/upload`. What was signed must be the key that is there;
each signature is checked, and those that are wrong are named in `failures`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homeserver.core import canonical, key_objects
from homeserver.core.errors import MatrixError, bad_json, invalid_param, not_found
from homeserver.core.key_objects import invalid_signature
from homeserver.core.types import JsonObject
from homeserver.encryption.device_lists import keys_changed_for
from homeserver.users.hooks import UserHooks
from storage import cross_signing, device_keys
from storage.cross_signing import MASTER, SELF_SIGNING, USER_SIGNING, CrossSigningRow
from storage.database import Database
from storage.device_keys import Signature
from storage.transaction import Transaction

MAX_KEYS = 1_000
"""Keys that are signed in one request."""

Failures = dict[str, dict[str, JsonObject]]
Signed = Mapping[str, Mapping[str, Any]]
"""User IDs to key names (device IDs, or public keys) to signed key objects."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs, and the keys that they can sign with: public keys by key ID."""

    user_id: str
    device_keys: Mapping[str, JsonObject]
    keys: Mapping[str, CrossSigningRow]

    def by(self, usage: str) -> dict[str, str]:
        """The key of a usage."""
        row = self.keys.get(usage)
        return {} if row is None else {f"ed25519:{row.public_key}": row.public_key}

    def by_devices(self) -> dict[str, str]:
        """The Ed25519 keys of the devices."""
        return {
            f"ed25519:{device_id}": keys["keys"][f"ed25519:{device_id}"]
            for device_id, keys in self.device_keys.items()
            if f"ed25519:{device_id}" in keys["keys"]
        }


class KeySignatures:
    """Takes signatures of this server's users."""

    def __init__(self, db: Database, hooks: UserHooks) -> None:
        self._db = db
        self._hooks = hooks

    async def upload(
        self, user_id: str, signed: Signed, masters_of: Mapping[str, JsonObject]
    ) -> Failures:
        """Store signatures; those that are not, with their errors.

        Parameters: `masters_of`, the master keys of the users of other servers among them, by
        user ID.
        """
        return await self._db.write(self._upload, user_id, signed, masters_of)

    def _upload(
        self,
        txn: Transaction,
        user_id: str,
        signed: Signed,
        masters_of: Mapping[str, JsonObject],
    ) -> Failures:
        signer = _signer(txn, user_id)
        masters = dict(masters_of)
        for other, by_usage in cross_signing.of_users(txn, signed.keys()).items():
            if MASTER in by_usage:
                masters[other] = json.loads(by_usage[MASTER].keys)
        failures: Failures = {}
        changes: list[tuple[str, str]] = []
        for other, keys in signed.items():
            for name, key in keys.items():
                try:
                    signatures = _check(signer, other, name, key, masters.get(other))
                except MatrixError as error:
                    failures.setdefault(other, {})[name] = error.body()
                    continue
                if device_keys.add_signatures(txn, signatures):
                    changes.append((other, name))
        self._announce(txn, signer, changes)
        return failures

    def _announce(self, txn: Transaction, signer: Signer, changes: list[tuple[str, str]]) -> None:
        """Tell of changed keys, last in the transaction."""
        user_id = signer.user_id
        own = [name for other, name in changes if other == user_id]
        for name in own:
            if name in signer.device_keys:
                for hook in self._hooks.device_changed:
                    hook(txn, user_id, name)
        if any(name not in signer.device_keys for name in own):
            for announce in self._hooks.signing_keys_changed:
                announce(txn, user_id)
        for other in {other for other, _ in changes if other != user_id}:
            keys_changed_for(txn, other, user_id)


def check_number(signed: Signed) -> None:
    """Raises MatrixError 400 M_INVALID_PARAM for too many keys or users."""
    if len(signed) > MAX_KEYS or sum(len(keys) for keys in signed.values()) > MAX_KEYS:
        raise invalid_param(f"At most {MAX_KEYS} keys are signed at once.")


def _signer(txn: Transaction, user_id: str) -> Signer:
    rows = device_keys.with_keys(txn, [user_id])
    return Signer(
        user_id,
        {row.device_id: json.loads(row.keys) for row in rows if row.keys is not None},
        cross_signing.of_user(txn, user_id),
    )


def _check(
    signer: Signer, other: str, name: str, key: Any, master: JsonObject | None
) -> list[Signature]:
    """The signatures that a key object brings. Raises MatrixError if one is not right."""
    if not isinstance(key, dict):
        raise bad_json("A signed key is an object.")
    is_master = master is not None and name in master["keys"].values()
    if other == signer.user_id and name in signer.device_keys:
        there, signing = signer.device_keys[name], signer.by(SELF_SIGNING)
    elif is_master and master is not None and other == signer.user_id:
        there, signing = master, signer.by_devices()
    elif is_master and master is not None:
        there, signing = master, signer.by(USER_SIGNING)
    else:
        raise not_found("There is no such key to sign.")
    try:
        if key_objects.signed_part(key) != key_objects.signed_part(there):
            raise invalid_param("What was signed is not the key that is there.")
    except canonical.CanonicalJSONError as error:
        raise bad_json(str(error)) from None
    signatures = key.get("signatures")
    by_signer = signatures.get(signer.user_id) if isinstance(signatures, dict) else None
    if not isinstance(by_signer, dict):
        raise invalid_signature("There is no signature of yours.")
    old = there.get("signatures", {}).get(signer.user_id, {})
    found = []
    for key_id, signature in by_signer.items():
        if old.get(key_id) == signature:
            continue  # what came with the key is sent back with the new signatures
        if key_id not in signing or not key_objects.is_signed(
            key, signer.user_id, key_id, signing[key_id]
        ):
            raise invalid_signature(f"The signature by {key_id[:300]} is not valid here.")
        found.append(Signature(other, name, signer.user_id, key_id, signature))
    return found
