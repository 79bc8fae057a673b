"""What redacted events were before, for moderators (MSC2815).

Whoever may redact others' events in the room, and administrators of this server, may look at it
for as long as it is kept. Users whose data is erased take theirs with them.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, forbidden
from homeserver.core.event import Event
from homeserver.core.power_levels import PowerLevels
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms import access
from homeserver.rooms.access import RoomAccess
from homeserver.rooms.view import Seen
from homeserver.web.request import Requester
from storage import redacted_contents, state
from storage.database import Database
from storage.state import StateStore
from storage.transaction import Transaction

_CREATE: StateKey = ("m.room.create", "")
_POWER: StateKey = ("m.room.power_levels", "")


class UnredactedEvents:
    """Shows events as they were. `kept_ms`: for how long that can be done."""

    def __init__(self, db: Database, states: StateStore, clock: IReactorTime, kept_ms: int) -> None:
        self._db = db
        self._states = states
        self._clock = clock
        self._kept_ms = kept_ms

    async def event(self, requester: Requester, room_id: str, event_id: str) -> JsonObject:
        """An event with its content, redacted or not.

        Raises MatrixError: 404 M_NOT_FOUND if the requester may not see it, 403 M_FORBIDDEN if
        they may not redact, 404 FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED if it is not kept.
        """
        now_ms = int(self._clock.seconds() * 1000)

        def read(txn: Transaction) -> JsonObject:
            room, seen = access.find_event(txn, self._states, room_id, event_id, requester)
            if not requester.is_admin and not _may_redact(txn, room, requester.user_id):
                raise forbidden("You may not see what was redacted in this room.")
            if seen.row.redacted_by is not None:
                seen = self._restored(txn, room, seen)
            return room.view.render([seen], now_ms)[0]

        return await self._db.read(read)

    def _restored(self, txn: Transaction, room: RoomAccess, seen: Seen) -> Seen:
        text = redacted_contents.get(txn, seen.row.event_nid)
        if text is None:
            raise MatrixError(
                404,
                "FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED",
                "What this event said is not kept any more.",
                **{"fi.mau.msc2815.content_keep_ms": self._kept_ms},
            )
        event = Event.from_json(text, room.view.version, seen.row.event_id)
        return Seen(seen.row, event, seen.membership)


def _may_redact(txn: Transaction, room: RoomAccess, user_id: str) -> bool:
    found = {
        key: room.view.event(row)
        for key, row in state.current(txn, room.room.room_nid, [_CREATE, _POWER]).items()
    }
    if room.standing is not access.Standing.JOINED or _CREATE not in found:
        return False
    power = PowerLevels.of(found.get(_POWER), found[_CREATE])
    return power.user_level(user_id) >= power.redact
