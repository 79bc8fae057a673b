"""Rooms that nobody of this server can enter: administrators block them, or remove them."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from storage import blocked_rooms
from storage.database import Database
from storage.transaction import Transaction


async def check_now(db: Database, room_id: str) -> None:
    """`check`, before anything else is done."""
    if await db.query(blocked_rooms.is_closed, room_id):
        raise _blocked()


def check(txn: Transaction, room_id: str) -> None:
    """Raise MatrixError 403 `M_FORBIDDEN` for a room that is blocked or being removed."""
    if blocked_rooms.is_closed(txn, room_id):
        raise _blocked()


def _blocked() -> errors.MatrixError:
    return errors.forbidden("This room has been blocked on this server.")


def check_within(txn: Transaction, room_nid: int, room_id: str) -> None:
    """As `check`, in the transaction of a request (`AppendRequest.within`)."""
    check(txn, room_id)


class RoomBlocks:
    """Blocks rooms."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock

    async def blocked_by(self, room_id: str) -> str | None:
        """Who blocked a room; None if it is not blocked."""
        return await self._db.read(blocked_rooms.blocked_by, room_id)

    async def block(self, room_id: str, user_id: str) -> None:
        """Block a room, whether it is known or not."""
        await self._db.write(
            blocked_rooms.block, room_id, user_id, int(self._clock.seconds() * 1000)
        )

    async def unblock(self, room_id: str) -> None:
        """Let users enter a room again."""
        await self._db.write(blocked_rooms.unblock, room_id)
