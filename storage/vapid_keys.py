"""The key by which push services know this server (RFC 8292). Table `vapid_keys`."""

from __future__ import annotations

from collections.abc import Callable

from storage.transaction import Transaction


def get(txn: Transaction) -> str | None:
    """The private key as it was stored; None while there is none."""
    found: str | None = txn.value("SELECT private_key FROM vapid_keys WHERE id = 1")
    return found


def get_or_make(txn: Transaction, make: Callable[[], str]) -> str:
    """The private key; if there is none, the one that `make` gives. All processes get the same."""
    found = get(txn)
    if found is not None:
        return found
    txn.execute(
        "INSERT INTO vapid_keys (id, private_key) VALUES (1, ?) ON CONFLICT (id) DO NOTHING",
        (make(),),
    )
    made = get(txn)
    assert made is not None, "the row was inserted here or elsewhere"
    return made
