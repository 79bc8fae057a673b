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
    changed = None if since is None else presence.changed_since(since)
    if shared_users is not None:
        wanted = set(shared_users) | {user_id}
        if changed is not None:
            wanted &= changed
    else:
        wanted = await _sharing(presence, user_id, changed)
    found = await presence.events(wanted, since)
    if new_users:
        found = await presence.events([u for u in new_users if u not in found]) | found
    return list(found.values())


async def _sharing(
    presence: PresenceTracker, user_id: str, changed: frozenset[str] | None
) -> set[str]:
    """Those who changed (None: all) and share a room with the user, who may be one of them."""
    if changed is None:
        own = {user_id}
    else:
        own = {user_id} & changed
        if changed == own:
            return own
    # Few at a time: when everybody comes online at once, the sets of who changed are large. Held
    # only while the database is asked: whoever gives it back within the call that got it resumes
    # the next from there, and a long enough row of them exceeds what the interpreter can nest.
    await presence.few.acquire()
    try:
        return await presence.sharing(user_id, changed) | own
    finally:
        presence.few.release()
