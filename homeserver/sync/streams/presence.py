"""Presence in sync: `m.presence` events of those who share a room with the user."""

from __future__ import annotations

from collections.abc import Callable, Collection

from homeserver.core.presence import State
from homeserver.core.types import JsonObject
from homeserver.users.presence import MAX_SHOWN, PresenceTracker
from storage import acquaintances
from storage.database import Database


class PresenceStream:
    """The presence of the people whom a user may see."""

    def __init__(self, db: Database, presence: PresenceTracker) -> None:
        self._db = db
        self._presence = presence

    async def user_syncing(
        self, user_id: str, state: State, device_id: str | None
    ) -> Callable[[], None]:
        """See `PresenceTracker.user_syncing`."""
        return await self._presence.user_syncing(user_id, state, device_id)

    async def changes(
        self, user_id: str, since: int | None, newly_joined: Collection[int] = ()
    ) -> list[JsonObject]:
        """Presence that changed after `since`; of all who are not offline when that is None.

        What changes while this is read may be shown by this sync and by the next: a presence
        replaces the one before.

        Parameters:
            since: a position of the ephemeral store.
            newly_joined: rooms whose members' presence is news though it did not change.
        """
        presence = self._presence
        if not presence.enabled:
            return []
        changed = None if since is None else presence.changed_since(since)
        wanted = await presence.sharing(user_id, changed)
        if changed is None or user_id in changed:
            wanted.add(user_id)
        found = await presence.events(wanted, since)
        if since is not None and newly_joined:
            members = await self._db.read(acquaintances.members, newly_joined, MAX_SHOWN)
            found = await presence.events(members - found.keys()) | found
        return list(found.values())
