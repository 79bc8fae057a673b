"""Rooms as other servers found them before.

Which room it is, whether this server is in it, and whether its ACL lets a server send there, are
the same as long as the room's state is. A server that goes on sending to a room is presumed to find
it as it did, so that the database need not be asked before its events are checked; where they are
added, under the room's lock, the presumption is proved.
"""

from __future__ import annotations

from typing import NamedTuple

from homeserver.cache import Cache
from homeserver.rooms.newness import Newness
from homeserver.rooms.open_to import OpenRoom
from storage.residence import SeenRoom
from storage.room_notes import RoomNotes
from storage.rooms import RoomRow


class NotAsPresumed(Exception):
    """A room has to be looked up: it is not, or may not be, as it was found before."""


class Familiar(NamedTuple):
    """A room that this server is in, open to a server: what it finds while this is the state."""

    origin: str
    found: OpenRoom
    state_root: bytes

    def is_proved(self, row: RoomRow, notes: RoomNotes) -> bool:
        """Whether it is so, and nothing of the server waits, as the row and what is noted tell of
        the room, which is locked."""
        return (
            (row.room_nid, row.state_root) == (self.found.room.room_nid, self.state_root)
            and not notes.is_partial
            and not notes.has_backlog
        )


class FamiliarRooms:
    """Remembers them. Used on the reactor thread."""

    def __init__(self) -> None:
        self._rooms: Cache[tuple[str, str], Familiar] = Cache("familiar_rooms", share=0.05)
        self.caches = (self._rooms,)
        self._faith = Newness()

    def get(self, origin: str, room_id: str) -> Familiar | None:
        """A room as a server found it last, if that may be presumed to be so still."""
        found = self._rooms.get((room_id, origin))
        return found if found is not None and self._faith.presumed(_key(origin, room_id)) else None

    def note(self, origin: str, seen: SeenRoom, found: OpenRoom) -> None:
        """A server has found a room so."""
        root = seen.state_root
        if found.room.is_here and found.is_allowed and not seen.has_backlog and root is not None:
            self._rooms[found.room.room_id, origin] = Familiar(origin, found, root)

    def disproved(self, origin: str, room_id: str) -> None:
        """It was not: it is looked up some times before it is presumed again."""
        self._rooms.pop((room_id, origin), None)
        self._faith.disproved(_key(origin, room_id))


def _key(origin: str, room_id: str) -> str:
    return f"{origin} {room_id}"
