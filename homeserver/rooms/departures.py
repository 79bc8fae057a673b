"""Closed accounts leave their rooms: a job, enqueued in the transaction that closes the account.

Whatever process is there runs it, also after a crash, and when an account is closed by a command
beside the server.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from homeserver.core.ids import UserID
from homeserver.rooms.membership import Membership
from storage import jobs
from storage.transaction import Transaction


class Departures:
    """Makes users leave all their rooms and reject all invites."""

    KIND = "leave_rooms"

    def __init__(self, members: Membership, clock: IReactorTime) -> None:
        self._members = members
        self._clock = clock

    def enqueue(self, txn: Transaction, user_id: str) -> None:
        """Have the user leave, soon after the transaction is committed."""
        now_ms = int(self._clock.seconds() * 1000)
        jobs.enqueue(txn, self.KIND, {"user_id": user_id}, now_ms, dedup_key=user_id)

    async def run(self, job: jobs.Job) -> None:
        """The job. Running it again does no harm."""
        await self._members.leave_all(UserID(job.payload["user_id"]))
