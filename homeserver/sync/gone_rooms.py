"""Rooms that were removed from the server, in the answer of `/sync`.

A client that was away when its user was taken out of such a room is told of that, though nothing
else of the room is left.
"""

from __future__ import annotations

from homeserver.core import client_format
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.sync.request import Snapshot
from storage import gone_rooms, memberships, rooms
from storage.gone_rooms import GoneRoom
from storage.user_news import is_after


def add(snapshot: Snapshot, sections: dict[str, JsonObject]) -> None:
    """Add the rooms that are gone for the user since the token to the section `leave`."""
    request, newest = snapshot.request, snapshot.newest
    if request.since is None or not is_after(newest.gone, request.since):
        return
    wanted = request.filter.room
    for gone in gone_rooms.of_user(snapshot.txn, request.user_id, request.since, snapshot.now):
        if wanted.matches_room(gone.room_id) and not _is_back(snapshot, gone.room_id):
            sections.setdefault("leave", {})[gone.room_id] = _section(snapshot, gone)


def _is_back(snapshot: Snapshot, room_id: str) -> bool:
    """Whether the user has to do with the room again."""
    nid = rooms.nid(snapshot.txn, room_id)
    return (
        nid is not None and memberships.get(snapshot.txn, nid, snapshot.request.user_id) is not None
    )


def _section(snapshot: Snapshot, gone: GoneRoom) -> JsonObject:
    version = ROOM_VERSIONS.get(gone.version)
    shown = []
    if gone.event is not None and gone.event_id is not None and version is not None:
        event = Event.from_json(gone.event, version, gone.event_id)
        filters = snapshot.request.filter
        if filters.event_format == "federation":
            shown = [client_format.to_federation(event)]
        else:
            shown = [
                client_format.to_client(
                    event, now_ms=snapshot.now_ms, room_id=False, membership=event.membership
                )
            ]
    key = "state_after" if snapshot.request.use_state_after else "state"
    return {
        "timeline": {
            "events": shown,
            "limited": False,
            "prev_batch": str(SyncToken(gone.pos, 0)),
        },
        key: {"events": []},
    }
