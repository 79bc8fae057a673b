"""What other parts of the server do when accounts change.

The composition root fills the lists before the server starts. Functions that take a
transaction run inside the one that makes the change, as its last steps; coroutines run after
it has been committed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from homeserver.core.ids import UserID
from storage.transaction import Transaction

DeviceHook: TypeAlias = Callable[[Transaction, str, str], None]
"""Called with transaction, user ID, device ID."""


@dataclass(slots=True)
class UserHooks:
    """Lists of functions to call."""

    device_id_reserved: list[Callable[[Transaction, str, str], bool]] = field(default_factory=list)
    """May say that a new device cannot have this ID: it is a cross-signing key of the user."""

    device_deleted: list[DeviceHook] = field(default_factory=list)
    """A device is deleted: its keys, pushers and waiting messages go with it."""

    device_changed: list[DeviceHook] = field(default_factory=list)
    """A device was added, renamed or deleted: others' device lists change."""

    signing_keys_changed: list[Callable[[Transaction, str], None]] = field(default_factory=list)
    """A user's master or self-signing key changed, or got a signature that all may see."""

    deactivated: list[Callable[[Transaction, str], None]] = field(default_factory=list)
    """An account was closed: it leaves its rooms."""

    profile_changed: list[Callable[[UserID, str], Awaitable[object]]] = field(default_factory=list)
    """A field of a profile changed: member events follow."""

    erase: list[Callable[[Transaction, str], None]] = field(default_factory=list)
    """A deactivated user wants their data gone: account data and the like."""
