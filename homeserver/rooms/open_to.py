"""Into which rooms another server may send (Server-Server API, "Server Access Control Lists")."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import orjson

from homeserver.core.acl import is_allowed
from storage import residence
from storage.residence import KnownRoom, SeenRoom
from storage.transaction import Transaction


class OpenRoom(NamedTuple):
    """A known room, as another server finds it."""

    room: KnownRoom
    is_allowed: bool
    """What the room's ACL says; without meaning where this server is not in the room."""


def look_up(txn: Transaction, origin: str, room_ids: Collection[str]) -> dict[str, OpenRoom]:
    """Those of these rooms that are known, by ID."""
    known = residence.known_rooms(txn, room_ids)
    here = [room.room_nid for room in known.values() if room.is_here]
    lists = residence.access_lists(txn, here)
    return {
        room_id: OpenRoom(room, _allows(origin, lists.get(room.room_nid)))
        for room_id, room in known.items()
    }


def as_seen(origin: str, seen: SeenRoom) -> OpenRoom:
    """One room as `look_up` tells of it."""
    return OpenRoom(seen.room, not seen.room.is_here or _allows(origin, seen.access_list))


def open_to(txn: Transaction, origin: str, room_ids: Collection[str]) -> dict[str, int]:
    """Numbers of those of these rooms that this server is in and whose ACL lets `origin` send."""
    return {
        room_id: found.room.room_nid
        for room_id, found in look_up(txn, origin, room_ids).items()
        if found.room.is_here and found.is_allowed
    }


def _allows(origin: str, text: str | None) -> bool:
    if text is None:
        return True
    return is_allowed(origin, orjson.loads(text)["content"])
