"""Cross-signing keys of this server's users. Table `cross_signing_keys`."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from storage import device_keys
from storage.transaction import Transaction

MASTER = "master"
SELF_SIGNING = "self_signing"
USER_SIGNING = "user_signing"


class CrossSigningRow(NamedTuple):
    """A cross-signing key; `keys` is JSON, `public_key` unpadded base64."""

    user_id: str
    usage: str
    public_key: str
    keys: str


def of_users(txn: Transaction, user_ids: Collection[str]) -> dict[str, dict[str, CrossSigningRow]]:
    """The keys of these users by usage."""
    found: dict[str, dict[str, CrossSigningRow]] = {}
    if not user_ids:
        return found
    where, args = txn.any_of("user_id", user_ids)
    for row in txn.all(
        f"SELECT user_id, usage, public_key, keys FROM cross_signing_keys WHERE {where}", args
    ):
        found.setdefault(row[0], {})[row[1]] = CrossSigningRow(*row)
    return found


def of_user(txn: Transaction, user_id: str) -> dict[str, CrossSigningRow]:
    """The keys of a user by usage."""
    return of_users(txn, [user_id]).get(user_id, {})


def put(txn: Transaction, row: CrossSigningRow) -> None:
    """Set a key; signatures on the one before, and made with it, go."""
    before = of_user(txn, row.user_id).get(row.usage)
    if before is not None and before.public_key != row.public_key:
        _forget(txn, before)
    txn.execute(
        "INSERT INTO cross_signing_keys (user_id, usage, public_key, keys) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (user_id, usage)"
        " DO UPDATE SET public_key = excluded.public_key, keys = excluded.keys",
        row,
    )


def delete(txn: Transaction, user_id: str, usages: Collection[str]) -> None:
    """Delete keys of a user, with the signatures on them and made with them."""
    for usage, row in of_user(txn, user_id).items():
        if usage in usages:
            _forget(txn, row)
            txn.execute(
                "DELETE FROM cross_signing_keys WHERE user_id = ? AND usage = ?", (user_id, usage)
            )


def delete_all(txn: Transaction, user_id: str) -> None:
    """Delete all keys of a user."""
    delete(txn, user_id, (MASTER, SELF_SIGNING, USER_SIGNING))


def is_public_key(txn: Transaction, user_id: str, name: str) -> bool:
    """Whether a user has a cross-signing key of this public key."""
    sql = "SELECT 1 FROM cross_signing_keys WHERE user_id = ? AND public_key = ?"
    return txn.one(sql, (user_id, name)) is not None


def for_update(txn: Transaction, user_id: str) -> dict[str, Any]:
    """The content of `m.signing_key_update` (server-server API, "End-to-End Encryption")."""
    content: dict[str, Any] = {"user_id": user_id}
    signatures = device_keys.signatures_on(txn, [user_id], None)
    for usage, row in of_user(txn, user_id).items():
        if usage != USER_SIGNING:
            content[f"{usage}_key"] = device_keys.with_signatures(
                json.loads(row.keys), signatures.get((user_id, row.public_key), ())
            )
    return content


def _forget(txn: Transaction, row: CrossSigningRow) -> None:
    device_keys.delete_signatures_on(txn, row.user_id, row.public_key)
    device_keys.delete_signatures_by(txn, row.user_id, f"ed25519:{row.public_key}")
