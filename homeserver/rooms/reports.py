"""Reporting events, rooms and users to the administrators (client-server API, "Reporting Content").

An event is reported by those who are in the room and may see it; rooms and users by anybody, for
they are met without being in a room with them.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.ids import UserID
from homeserver.rooms import access
from homeserver.rooms.access import Standing
from homeserver.web.request import Requester
from storage import memberships, reports, rooms, users
from storage.database import Database
from storage.reports import Report
from storage.state import StateStore
from storage.transaction import Transaction

MAX_REASON = 4000
"""Characters of a reason that are kept."""


class Reports:
    """Keeps what is reported."""

    def __init__(
        self, db: Database, states: StateStore, clock: IReactorTime, server_name: str
    ) -> None:
        self._db = db
        self._states = states
        self._clock = clock
        self._server_name = server_name

    async def report_event(
        self, requester: Requester, room_id: str, event_id: str, reason: str
    ) -> None:
        """Raises MatrixError 404 `M_NOT_FOUND`: no such event, or the requester is not there."""

        def write(txn: Transaction) -> None:
            room, seen = access.find_event(txn, self._states, room_id, event_id, requester)
            if room.standing is not Standing.JOINED:
                raise errors.not_found("You are not in this room.")
            self._add(txn, requester, "event", reason, (room_id, event_id, seen.row.sender))

        await self._db.write(write)

    async def report_room(self, requester: Requester, room_id: str, reason: str) -> None:
        """Raises MatrixError 404 `M_NOT_FOUND` for a room that this server does not know."""

        def write(txn: Transaction) -> None:
            if rooms.nid(txn, room_id) is None:
                raise errors.not_found("This room is not known here.")
            self._add(txn, requester, "room", reason, (room_id, None, None))

        await self._db.write(write)

    async def report_user(self, requester: Requester, user_id: UserID, reason: str) -> None:
        """Raises MatrixError 404 `M_NOT_FOUND` for a user that this server does not know."""

        def write(txn: Transaction) -> None:
            is_local = user_id.domain == self._server_name
            if not (users.exists(txn, user_id) if is_local else _is_met(txn, user_id)):
                raise errors.not_found("This user is not known here.")
            self._add(txn, requester, "user", reason, (None, None, user_id))

        await self._db.write(write)

    def _add(
        self,
        txn: Transaction,
        requester: Requester,
        kind: str,
        reason: str,
        about: tuple[str | None, str | None, str | None],
    ) -> None:
        now_ms = int(self._clock.seconds() * 1000)
        kept = reason[:MAX_REASON].replace("\x00", "")
        reports.add(txn, Report(0, now_ms, requester.user_id, kind, *about, kept))


def _is_met(txn: Transaction, user_id: str) -> bool:
    return bool(memberships.of_user(txn, user_id))
