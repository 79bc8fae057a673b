"""Finding events by time (client-server API, `GET /rooms/{roomId}/timestamp_to_event`)."""

from __future__ import annotations

from homeserver.core import errors
from homeserver.rooms import access
from homeserver.rooms.view import Seen
from homeserver.web.request import Requester
from storage import timeline
from storage.database import Database
from storage.state import StateStore
from storage.transaction import Transaction

_BATCH = 20
_MAX_LOOKED_AT = 1000
"""Events that are looked at for one that the reader may see."""


class EventsByTime:
    """Finds the event nearest to a time."""

    def __init__(self, db: Database, states: StateStore) -> None:
        self._db = db
        self._states = states

    async def nearest(
        self, requester: Requester, room_id: str, ts: int, *, backwards: bool
    ) -> tuple[str, int]:
        """ID and time (milliseconds) of the nearest event not before `ts`, or not after it.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`; 404 `M_NOT_FOUND` if there is none that the requester
                may see.
        """

        def read(txn: Transaction) -> Seen | None:
            room = access.enter(txn, self._states, room_id, requester)
            for skip in range(0, _MAX_LOOKED_AT, _BATCH):
                rows = timeline.by_time(
                    txn,
                    room.room.room_nid,
                    ts,
                    backwards=backwards,
                    until=room.until,
                    limit=_BATCH,
                    skip=skip,
                )
                seen = room.visible(rows)
                if seen:
                    return seen[0]
                if len(rows) < _BATCH:
                    break
            return None

        found = await self._db.read(read)
        if found is None:
            side = "before" if backwards else "after"
            raise errors.not_found(f"There is no event that you may see {side} this time.")
        return found.row.event_id, found.row.origin_server_ts
