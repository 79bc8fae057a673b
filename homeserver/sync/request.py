"""What a `/sync` is computed for."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.core.filters import Filter
from homeserver.sync.lazy_members import SentMembers
from storage.state import StateStore
from storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The parameters of a `/sync`, parsed."""

    user_id: str
    device_id: str
    since: int | None
    """Durable position of the token; None: initial sync."""
    ephemeral_since: int | None
    to_device_since: int | None
    """Up to where the device has got its messages."""
    filter: Filter
    full_state: bool = False
    use_state_after: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One consistent reading: everything up to `now` and nothing after it."""

    txn: Transaction
    states: StateStore
    request: SyncRequest
    now: int
    now_ms: int
    ignored: frozenset[str]
    sent_members: SentMembers
