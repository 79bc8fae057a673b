"""Finding events by time (client-server API, `GET /rooms/{roomId}/timestamp_to_event`)."""

from __future__ import annotations

from typing import Protocol

from homeserver.core import errors
from homeserver.rooms import access
from homeserver.rooms.access import RoomAccess
from homeserver.rooms.view import Seen
from homeserver.web.request import Requester
from storage import gaps, timeline
from storage.database import Database
from storage.state import StateStore
from storage.transaction import Transaction

_BATCH = 20
_MAX_LOOKED_AT = 1000
"""Events that are looked at for one that the reader may see."""


class RemoteTimes(Protocol):
    """Asks other servers by time; `homeserver.rooms.backfill.Backfill` does."""

    async def nearest(
        self, room_id: str, ts: int, *, backwards: bool, local_ts: int | None
    ) -> bool:
        """Get the event nearest to a time that others know, if it is nearer than ours."""
        ...


class EventsByTime:
    """Finds the event nearest to a time.

    `others` are asked where this server's history has a gap at that time, once they are there.
    """

    def __init__(self, db: Database, states: StateStore) -> None:
        self._db = db
        self._states = states
        self.others: RemoteTimes | None = None

    async def nearest(
        self, requester: Requester, room_id: str, ts: int, *, backwards: bool
    ) -> tuple[str, int]:
        """ID and time (milliseconds) of the nearest event not before `ts`, or not after it.

        Raises:
            MatrixError: 403 `M_FORBIDDEN`; 404 `M_NOT_FOUND` if there is none that the requester
                may see.
        """

        def read(txn: Transaction) -> tuple[Seen | None, bool]:
            room = access.enter(txn, self._states, room_id, requester)
            return search(txn, room), _at_gap(txn, room, ts)

        def search(txn: Transaction, room: RoomAccess) -> Seen | None:
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

        found, at_gap = await self._db.read(read)
        local_ts = found.row.origin_server_ts if found is not None else None
        others = self.others if at_gap and local_ts != ts else None
        if others is not None and await others.nearest(
            room_id, ts, backwards=backwards, local_ts=local_ts
        ):
            found, _ = await self._db.read(read)
        if found is None:
            side = "before" if backwards else "after"
            raise errors.not_found(f"There is no event that you may see {side} this time.")
        return found.row.event_id, found.row.origin_server_ts


def _at_gap(txn: Transaction, room: RoomAccess, ts: int) -> bool:
    """Whether history is missing between the last event before a time and the first after it."""
    room_nid = room.room.room_nid
    before, after = (
        timeline.by_time(txn, room_nid, ts, backwards=backwards, until=room.until, limit=1, skip=0)
        for backwards in (True, False)
    )
    low = before[0].depth if before else 0
    high = after[0].depth if after else None
    return bool(gaps.within(txn, room_nid, low, high, room.until, 1))
