"""Redacting all that a user sent (Synapse's "Redact events of a user").

A job does it, room by room, from the newest event on, and notes how far it is: it goes on after
a crash, in any process. Users of this server redact what they sent themselves; where they cannot,
because they are not in the room any more, the administrator does it, who does it for users of
other servers too.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, invalid_param, not_found
from homeserver.core.ids import EventID, RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.send import Sending
from homeserver.web.request import Requester
from storage import jobs, mass_redactions, memberships, rooms, users
from storage.database import Database
from storage.events import TransactionKey
from storage.mass_redactions import ACTIVE, COMPLETE, FAILED, SCHEDULED, MassRedaction
from storage.transaction import Transaction

MAX_ROOMS = 10_000
DEFAULT_LIMIT = 1000
MAX_LIMIT = 1_000_000
LOOKED_AT = 2_000
"""Events of a room that one transaction looks at."""
MAX_FAILURES = 1000
"""Events that could not be redacted, of which is told."""


@dataclass(frozen=True, slots=True)
class WantedRedactions:
    """What an administrator asks for.

    Parameters: `rooms`, none for all in which the user is or was; `limit`, events in each room;
    `use_admin`, whether the administrator redacts, and not the user; `after_ts` and `before_ts`
    in milliseconds.
    """

    rooms: Sequence[str] = ()
    reason: str | None = None
    limit: int = DEFAULT_LIMIT
    use_admin: bool = False
    after_ts: int | None = None
    before_ts: int | None = None


class MassRedactions:
    """Redacts all that a user sent."""

    KIND = "redact_all_events"

    def __init__(
        self, db: Database, clock: IReactorTime, sending: Sending, server_name: str
    ) -> None:
        self._db = db
        self._clock = clock
        self._sending = sending
        self._server_name = server_name

    async def begin(self, admin: UserID, user_id: UserID, wanted: WantedRedactions) -> str:
        """Have events redacted; the ID under which to ask how far it is.

        Raises MatrixError: 400 `M_INVALID_PARAM`; 404 `M_NOT_FOUND` for an unknown user.
        """
        if not 0 < wanted.limit <= MAX_LIMIT:
            raise invalid_param(f"limit: from 1 to {MAX_LIMIT}.")
        if len(wanted.rooms) > MAX_ROOMS:
            raise invalid_param(f"rooms: at most {MAX_ROOMS}.")
        return await self._db.write(self._begin, admin, user_id, wanted)

    def _begin(
        self, txn: Transaction, admin: UserID, user_id: UserID, wanted: WantedRedactions
    ) -> str:
        is_local = user_id.domain == self._server_name
        if is_local and not users.exists(txn, user_id):
            raise not_found("There is no such account.")
        room_ids = list(dict.fromkeys(wanted.rooms)) or _rooms_of(txn, user_id)
        now_ms = self._now()
        redact_id = secrets.token_urlsafe(12)
        request: JsonObject = {
            "reason": wanted.reason,
            "limit": wanted.limit,
            "use_admin": wanted.use_admin or not is_local,
            "after_ts": wanted.after_ts,
            "before_ts": wanted.before_ts,
        }
        progress: JsonObject = {"rooms": room_ids, "before": None, "left": wanted.limit}
        mass_redactions.add(
            txn,
            MassRedaction(
                redact_id, user_id, admin, request, progress, SCHEDULED, now_ms, {}, None
            ),
        )
        jobs.enqueue(txn, self.KIND, {"redact_id": redact_id}, now_ms, dedup_key=redact_id)
        return redact_id

    async def get(self, redact_id: str) -> MassRedaction:
        """How far it is. Raises MatrixError 404 `M_NOT_FOUND`."""
        found = await self._db.read(mass_redactions.get, redact_id)
        if found is None:
            raise not_found(f"redact id '{redact_id}' not found")
        return found

    async def run(self, job: jobs.Job) -> None:
        """The job. Run again, it goes on where it was."""
        row = await self._db.read(mass_redactions.get, job.payload["redact_id"])
        if row is None or row.is_over:
            return
        try:
            row = await self._write(row._replace(status=ACTIVE))
            while row.progress["rooms"]:
                row = await self._write(await self._step(row))
            await self._write(row._replace(status=COMPLETE))
        except Exception as error:
            if job.attempts >= jobs.MAX_ATTEMPTS:
                await self._write(row._replace(status=FAILED, error=type(error).__name__))
            raise

    async def _write(self, row: MassRedaction) -> MassRedaction:
        row = row._replace(changed_ts=self._now())
        await self._db.write(mass_redactions.update, row)
        return row

    async def _step(self, row: MassRedaction) -> MassRedaction:
        """Redact what is in the next part of the first room."""
        progress, request = row.progress, row.request
        room_id, left = progress["rooms"][0], progress["left"]
        times = request["after_ts"], request["before_ts"]
        found = await self._db.read(_sent, room_id, row.user_id, progress["before"], times)
        failures = dict(row.failures)
        for event_id, _ in found.event_ids[:left]:
            refusal = await self._redact(row, room_id, event_id)
            if refusal is not None and len(failures) < MAX_FAILURES:
                failures[event_id] = refusal
        left -= len(found.event_ids)
        if found.upto is None or left <= 0:
            rest = progress["rooms"][1:]
            progress = {"rooms": rest, "before": None, "left": request["limit"]}
        else:
            progress = {"rooms": progress["rooms"], "before": found.upto, "left": left}
        return row._replace(progress=progress, failures=failures)

    async def _redact(self, row: MassRedaction, room_id: str, event_id: str) -> str | None:
        """Redact an event; why that cannot be done, if it cannot."""
        senders = [row.asked_by] if row.request["use_admin"] else [row.user_id, row.asked_by]
        reason = row.request["reason"]
        content: JsonObject = {} if reason is None else {"reason": reason}
        refusal = None
        for sender in senders:
            # The transaction keeps it from being redacted twice.
            transaction = TransactionKey("", f"redact/{event_id}", row.redact_id)
            requester = Requester(UserID(sender), is_admin=sender == row.asked_by)
            try:
                await self._sending.redact(
                    requester, RoomID(room_id), EventID(event_id), dict(content), transaction
                )
                return None
            except MatrixError as error:
                if error.status >= 500:
                    raise
                refusal = refusal or error.error
        return refusal

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _rooms_of(txn: Transaction, user_id: str) -> list[str]:
    rows = memberships.of_user(txn, user_id, ("join", "leave", "ban"))
    found = rooms.get_many(txn, [row.room_nid for row in rows])
    return sorted(room.room_id for room in found.values())


def _sent(
    txn: Transaction,
    room_id: str,
    user_id: str,
    before: int | None,
    times: tuple[int | None, int | None],
) -> mass_redactions.Sent:
    room_nid = rooms.nid(txn, room_id)
    if room_nid is None:
        return mass_redactions.Sent([], None)
    return mass_redactions.sent_by(txn, room_nid, user_id, before, times, LOOKED_AT)
