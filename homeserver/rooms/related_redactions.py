"""Redacting what relates to a redacted event (MSC3912).

A job does it: what relates to an event may be a lot. What the user may not redact is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError
from homeserver.core.ids import EventID, RoomID, UserID
from homeserver.rooms.send import Sending
from homeserver.web.request import Requester
from storage import jobs, relations, rooms, users
from storage.database import Database
from storage.events import TransactionKey
from storage.transaction import Transaction

MAX_TYPES = 20
"""Relation types in one request."""
AT_ONCE = 50
MOST = 10_000
"""Events that one request redacts."""


class RelatedRedactions:
    """Redacts events that relate to another one."""

    KIND = "redact_related"

    def __init__(self, db: Database, clock: IReactorTime, sending: Sending) -> None:
        self._db = db
        self._clock = clock
        self._sending = sending

    async def enqueue(
        self,
        requester: Requester,
        room_id: RoomID,
        event_id: EventID,
        rel_types: Sequence[str],
        reason: str | None,
    ) -> None:
        """Have events redacted that relate to this one in these ways ("*": in any)."""
        payload = {
            "user_id": requester.user_id,
            "room_id": room_id,
            "event_id": event_id,
            "rel_types": sorted(set(rel_types)),
            "reason": reason,
        }
        await self._db.write(
            jobs.enqueue,
            self.KIND,
            payload,
            int(self._clock.seconds() * 1000),
            dedup_key=f"{requester.user_id} {event_id} {' '.join(payload['rel_types'] or [])}",
        )

    async def run(self, job: jobs.Job) -> None:
        """The job. Run again, it goes on with what is not redacted yet."""
        told = job.payload
        user = await self._db.read(users.get_user, told["user_id"])
        if user is None or user.deactivated or user.locked or user.suspended:
            return
        requester = Requester(
            UserID(told["user_id"]),
            is_guest=user.is_guest,
            is_shadow_banned=user.shadow_banned,
        )
        content = {} if told["reason"] is None else {"reason": told["reason"]}
        after = ""
        for _ in range(MOST // AT_ONCE):
            found = await self._db.read(
                _related, told["room_id"], told["event_id"], told["rel_types"], after
            )
            for event_id in found:
                await self._redact(requester, told["room_id"], event_id, content)
            if len(found) < AT_ONCE:
                return
            after = found[-1]

    async def _redact(
        self, requester: Requester, room_id: str, event_id: str, content: dict[str, str]
    ) -> None:
        # The transaction keeps it from being redacted twice.
        transaction = TransactionKey("", f"redact/{event_id}", "with_relations")
        try:
            await self._sending.redact(
                requester, RoomID(room_id), EventID(event_id), dict(content), transaction
            )
        except MatrixError as error:
            if error.status >= 500:
                raise


def _related(
    txn: Transaction, room_id: str, event_id: str, rel_types: list[str], after: str
) -> list[str]:
    room = rooms.get(txn, room_id)
    if room is None:
        return []
    wanted = None if "*" in rel_types else rel_types
    return relations.unredacted(txn, room.room_nid, event_id, wanted, after, AT_ONCE)
