"""Reporting events, rooms and users to the administrators (client-server API, "Reporting Content").

An event is reported by those who are in the room and may see it; rooms and users by anybody, for
they are met without being in a room with them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.ids import UserID
from homeserver.core.types import JsonObject
from homeserver.rooms import access
from homeserver.rooms.access import Standing
from homeserver.web.request import Requester
from storage import events, memberships, overviews, reports, rooms, users
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
        self,
        requester: Requester,
        room_id: str,
        event_id: str,
        reason: str,
        score: int | None = None,
    ) -> None:
        """`score`: from 0 to -100, how bad it is. Raises MatrixError 404 `M_NOT_FOUND`: no such
        event, or the requester is not there."""

        def write(txn: Transaction) -> None:
            room, seen = access.find_event(txn, self._states, room_id, event_id, requester)
            if room.standing is not Standing.JOINED:
                raise errors.not_found("You are not in this room.")
            about = (room_id, event_id, seen.row.sender)
            self._add(txn, requester, "event", reason, about, score)

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
        score: int | None = None,
    ) -> None:
        now_ms = int(self._clock.seconds() * 1000)
        kept = reason[:MAX_REASON].replace("\x00", "")
        reports.add(txn, Report(0, now_ms, requester.user_id, kind, *about, kept, score))

    # For administrators

    async def page(
        self, wanted: reports.Wanted, start: int, limit: int, *, newest_first: bool
    ) -> tuple[list[ShownReport], int]:
        """Some reports, and how many there are in all."""

        def read(txn: Transaction) -> tuple[list[ShownReport], int]:
            found, total = reports.page(txn, wanted, start, limit, newest_first=newest_first)
            return _shown(txn, found), total

        return await self._db.read(read)

    async def get(self, kind: str, report_id: int) -> tuple[ShownReport, JsonObject | None]:
        """A report, and the event that it is about as other servers see it, if it is there.

        Raises MatrixError 404 `M_NOT_FOUND`.
        """

        def read(txn: Transaction) -> tuple[ShownReport, JsonObject | None]:
            found = reports.get(txn, kind, report_id)
            if found is None:
                raise errors.not_found("There is no such report.")
            row = events.get(txn, found.event_id) if found.event_id is not None else None
            return _shown(txn, [found])[0], None if row is None else json.loads(row.json)

        return await self._db.read(read)

    async def delete(self, kind: str, report_id: int) -> None:
        """Remove a report. Raises MatrixError 404 `M_NOT_FOUND`."""
        if not await self._db.write(reports.delete, kind, report_id):
            raise errors.not_found("There is no such report.")


@dataclass(frozen=True, slots=True)
class ShownReport:
    """A report with what its room is called."""

    report: Report
    name: str | None = None
    canonical_alias: str | None = None


def _shown(txn: Transaction, found: Sequence[Report]) -> list[ShownReport]:
    numbers = {}
    for each in found:
        number = None if each.room_id is None else rooms.nid(txn, each.room_id)
        if number is not None:
            numbers[each.room_id] = number
    kinds = {"m.room.name": "name", "m.room.canonical_alias": "alias"}
    texts = overviews.current_texts(txn, list(numbers.values()), kinds)

    def told(each: Report, event_type: str) -> str | None:
        number = numbers.get(each.room_id)
        text = None if number is None else texts[number].get(event_type)
        value = None if text is None else json.loads(text)["content"].get(kinds[event_type])
        return value if isinstance(value, str) else None

    return [
        ShownReport(each, told(each, "m.room.name"), told(each, "m.room.canonical_alias"))
        for each in found
    ]


def _is_met(txn: Transaction, user_id: str) -> bool:
    return bool(memberships.of_user(txn, user_id))
