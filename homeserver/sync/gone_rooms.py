"""Rooms that were removed from the server, in the answer of `/sync`.

A client that was away when its user was taken out of such a room is told of that, though nothing
else of the room is left.
"""

from __future__ import annotations

from collections.abc import Collection

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


def add_known(
    snapshot: Snapshot,
    known: Collection[int],
    present: Collection[str],
    answer: dict[str, JsonObject],
) -> None:
    """The same in the answer of sliding sync.

    Parameters: `known`, the numbers of the rooms that the connection was sent; `present`, the IDs
    of those that the user has to do with.
    """
    user_id, since = snapshot.request.user_id, snapshot.request.since
    if since is None:
        return
    for gone in gone_rooms.of_user(snapshot.txn, user_id, since, snapshot.now):
        if gone.room_nid in known and gone.room_id not in present:
            shown = _shown(snapshot, gone)
            answer[gone.room_id] = {
                "membership": "leave",
                "timeline": shown,
                "limited": False,
                "num_live": len(shown),
                "required_state": shown,
                "bump_stamp": gone.pos,
            }


def _section(snapshot: Snapshot, gone: GoneRoom) -> JsonObject:
    key = "state_after" if snapshot.request.use_state_after else "state"
    return {
        "timeline": {
            "events": _shown(snapshot, gone),
            "limited": False,
            "prev_batch": str(SyncToken(gone.pos, 0)),
        },
        key: {"events": []},
    }


def _shown(snapshot: Snapshot, gone: GoneRoom) -> list[JsonObject]:
    """The event by which the user left, if there was one."""
    version = ROOM_VERSIONS.get(gone.version)
    if gone.event is None or gone.event_id is None or version is None:
        return []
    event = Event.from_json(gone.event, version, gone.event_id)
    if snapshot.request.filter.event_format == "federation":
        return [client_format.to_federation(event)]
    return [
        client_format.to_client(
            event, now_ms=snapshot.now_ms, room_id=False, membership=event.membership
        )
    ]
