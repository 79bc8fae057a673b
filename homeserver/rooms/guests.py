"""Guests leave rooms that no longer take them (client-server API, "Guest access", "Server
behaviour")."""

from __future__ import annotations

import json

import structlog
from twisted.internet.defer import Deferred

from homeserver.core.errors import MatrixError
from homeserver.core.ids import RoomID, UserID
from homeserver.rooms.membership import Membership
from homeserver.rooms.write import WrittenRoom
from homeserver.web.request import Requester
from storage import memberships, rooms, state, users
from storage.database import Database
from storage.transaction import Transaction

_log = structlog.get_logger(__name__)
_ACCESS = ("m.room.guest_access", "")


class GuestAccess:
    """Watches what is written to rooms, from wherever it comes."""

    def __init__(self, db: Database, membership: Membership) -> None:
        self._db = db
        self._membership = membership
        self._running = 0
        self._idle: list[Deferred[None]] = []

    def written(self, room: WrittenRoom) -> None:
        """To be called after each commit to a room."""
        # A redaction takes the permission away as well as a new event does.
        if any(e.event.type in (_ACCESS[0], "m.room.redaction") for e in room.entries):
            self._running += 1
            Deferred.fromCoroutine(self._remove(room.room_id))

    async def drained(self) -> None:
        """Wait for what is under way."""
        if self._running:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    async def _remove(self, room_id: str) -> None:
        try:
            for guest in await self._db.read(_unwanted_guests, room_id):
                await self._leave(guest, RoomID(room_id))
        except Exception:
            _log.exception("Guests were not removed", room_id=room_id)
        finally:
            self._running -= 1
            if not self._running:
                idle, self._idle = self._idle, []
                for waiter in idle:
                    waiter.callback(None)

    async def _leave(self, guest: str, room_id: RoomID) -> None:
        try:
            await self._membership.leave(
                Requester(UserID(guest), is_guest=True), room_id, "Guests may not be here any more"
            )
        except MatrixError as problem:
            _log.warning(
                "A guest was not removed", room_id=room_id, user_id=guest, error=problem.error
            )


def _unwanted_guests(txn: Transaction, room_id: str) -> list[str]:
    room = rooms.get(txn, room_id)
    if room is None:
        return []
    row = state.current(txn, room.room_nid, [_ACCESS]).get(_ACCESS)
    if row is not None and json.loads(row.json)["content"].get("guest_access") == "can_join":
        return []
    members = memberships.of_room(txn, room.room_nid, ["join", "invite"])
    local = [member.user_id for member in members if member.is_local]
    return [user_id for user_id in local if _is_guest(txn, user_id)]


def _is_guest(txn: Transaction, user_id: str) -> bool:
    row = users.get_user(txn, user_id)
    return row is not None and row.is_guest
