"""Presence in sync: `m.presence` events of those who share a room with the user."""

from __future__ import annotations

from collections.abc import Collection

from homeserver.core.types import JsonObject
from homeserver.users.presence import PresenceTracker


async def changes(
    presence: PresenceTracker,
    user_id: str,
    shared_users: Collection[str] | None,
    since: int | None,
    now: int,
    *,
    new_users: Collection[str] = (),
) -> list[JsonObject]:
    """Presence that changed after `since`; of all who are not offline when that is None.

    Positions are those of the ephemeral store. What changed after `now` may be shown too: it is
    shown again by the next sync, and a presence replaces the one before.

    Parameters:
        shared_users: who shares a room with the user; None to find out, which costs nothing when
            nobody changed.
        new_users: people of newly joined rooms, whose presence is news though it did not change.
    """
    if not presence.enabled:
        return []
    # Few at a time: when everybody comes online at once, the sets of who changed are large.
    await presence.few.acquire()
    try:
        return await _changes(presence, user_id, shared_users, since, new_users)
    finally:
        presence.few.release()


async def _changes(
    presence: PresenceTracker,
    user_id: str,
    shared_users: Collection[str] | None,
    since: int | None,
    new_users: Collection[str],
) -> list[JsonObject]:
    changed = None if since is None else presence.changed_since(since)
    if shared_users is not None:
        wanted = set(shared_users) | {user_id}
        if changed is not None:
            wanted &= changed
    elif changed is None:
        wanted = await presence.sharing(user_id) | {user_id}
    else:
        wanted = await presence.sharing(user_id, changed) | (changed & {user_id})
    found = await presence.events(wanted, since)
    if new_users:
        found = await presence.events([u for u in new_users if u not in found]) | found
    return list(found.values())
