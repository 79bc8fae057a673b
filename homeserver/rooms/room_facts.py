"""Single facts about rooms that other servers ask for."""

from __future__ import annotations

from homeserver.core.errors import not_found
from homeserver.core.event_format import MAX_PREV_EVENTS
from homeserver.rooms import description, server_access
from storage import room_servers, state
from storage.database import Database
from storage.state import StateStore
from storage.transaction import Transaction

_STATE_OF_ONE = 500
"""State events that make a complexity of 1."""


class RoomFacts:
    """Answers to other servers."""

    def __init__(self, db: Database, states: StateStore) -> None:
        self._db = db
        self._states = states

    async def heads(self, server: str, room_id: str) -> list[str]:
        """The events on which this server would build (MSC4370).

        Raises MatrixError: 404 M_NOT_FOUND for a room that is not known here, 403 M_FORBIDDEN if
        the server is not in the room or its ACL denies the server.
        """
        return await self._db.read(self._heads, server, room_id)

    def _heads(self, txn: Transaction, server: str, room_id: str) -> list[str]:
        room = server_access.enter(txn, self._states, room_id, server).room
        if not room.extremities:
            raise not_found("This room is not known here.")
        return list(room.extremities[:MAX_PREV_EVENTS])

    async def complexity(self, server: str, room_id: str) -> float:
        """How large the state of a room is.

        Raises MatrixError 404 M_NOT_FOUND for a room that is not known here, or that is open
        neither to everybody nor to the server.
        """
        return await self._db.read(_complexity, server, room_id)


def _complexity(txn: Transaction, server: str, room_id: str) -> float:
    room = server_access.known_room(txn, room_id)
    told = description.describe(txn, [room])[room.room_nid]
    is_open = told.world_readable or told.join_rule == "public"
    is_in = room_servers.is_in(txn, room.room_nid, server)
    if not (is_open or is_in) or not server_access.acl_allows(txn, room.room_nid, server):
        raise not_found("This room is not known here.")
    return round(state.count_current(txn, room.room_nid) / _STATE_OF_ONE, 2)
