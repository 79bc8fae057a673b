"""Typing in sync: the `m.typing` event of each room where the list of those who type changed."""

from __future__ import annotations

from collections.abc import Mapping

from homeserver.core.types import JsonObject
from storage.ephemeral import EphemeralStore


async def room_changes(
    ephemeral: EphemeralStore, rooms: Mapping[str, int], since: int | None, now: int
) -> dict[int, JsonObject]:
    """`m.typing` events without a room ID, by the number of the room.

    Parameters:
        rooms: numbers of the rooms by ID.
        since: the position of the ephemeral store from which changes are wanted; None for the
            rooms in which somebody types now. What changed after `now` may be shown as well: the
            next sync shows it again, and a list replaces the one before.
    """
    if not rooms or (since is not None and since >= now):
        return {}
    found = await ephemeral.typing(rooms.keys(), since)
    return {
        rooms[room_id]: {"type": "m.typing", "content": {"user_ids": users}}
        for room_id, users in found.items()
    }
