"""Room summaries (client-server API, "Room summaries"): what a room is, before joining it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeserver.core import errors
from homeserver.core.ids import RoomID, UserID
from homeserver.rooms.description import RoomDescription, describe
from homeserver.rooms.remote_rooms import RemoteRooms
from storage import memberships, rooms
from storage.database import Database
from storage.transaction import Transaction

OPEN_RULES = ("public", "knock", "knock_restricted")
"""Join rules of rooms that show themselves to everybody."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A room as one reader may see it from outside."""

    room: RoomDescription
    membership: str | None
    """The reader's; None without a reader, or for one who never was there."""


class RoomSummaries:
    """Summarises rooms for members and for those who may become members.

    `remote` is what asks other servers about rooms that this server is not in.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.remote: RemoteRooms | None = None

    async def get(
        self, room_id: RoomID, reader_id: UserID | None, via: Sequence[str] = ()
    ) -> Summary:
        """The summary of a room.

        Parameters: `via`, servers to ask about a room that this server is not in. Strangers who
        are not logged in have nobody asked.

        Raises:
            MatrixError: 404 `M_NOT_FOUND` if there is no such room, or nothing lets the reader in.
        """
        if reader_id is not None and not await self._db.read(_is_here, room_id):
            found = await self._told(room_id, via)
            if found is not None:
                return await self._db.read(_judge, found, reader_id)
        return await self._db.read(summarise, room_id, reader_id)

    async def _told(self, room_id: RoomID, via: Sequence[str]) -> RoomDescription | None:
        if self.remote is None:
            return None
        legacy = room_id.legacy_domain
        space = await self.remote.space(room_id, [*via, *([legacy] if legacy else [])])
        return space.room if space is not None else None


def _is_here(txn: Transaction, room_id: str) -> bool:
    nid = rooms.nid(txn, room_id)
    return nid is not None and bool(memberships.local_joined(txn, nid))


def _judge(txn: Transaction, room: RoomDescription, reader_id: str) -> Summary:
    nid = rooms.nid(txn, room.room_id)
    row = memberships.get(txn, nid, reader_id) if nid is not None else None
    membership = row.membership if row is not None else None
    if not accessible(txn, room, reader_id, membership):
        raise _not_found()
    return Summary(room, membership)


def summarise(txn: Transaction, room_id: str, reader_id: str | None) -> Summary:
    """See `RoomSummaries.get`."""
    room = rooms.get(txn, room_id)
    if room is None or room.state_root is None:
        raise _not_found()
    found = describe(txn, [room])[room.room_nid]
    row = memberships.get(txn, room.room_nid, reader_id) if reader_id is not None else None
    membership = row.membership if row is not None else None
    if not accessible(txn, found, reader_id, membership):
        raise _not_found()
    return Summary(found, membership)


def accessible(
    txn: Transaction, room: RoomDescription, reader_id: str | None, membership: str | None
) -> bool:
    """Whether a user (None: somebody not logged in) may know of a room: they are in it or invited,
    may join, knock or peek ("Spaces", "Server behaviour")."""
    if membership in ("join", "invite", "knock"):
        return True
    if room.join_rule in OPEN_RULES or room.world_readable:
        return True
    if reader_id is None:
        return False
    for allowed in room.allowed_room_ids:
        nid = rooms.nid(txn, allowed)
        row = memberships.get(txn, nid, reader_id) if nid is not None else None
        if row is not None and row.membership == "join":
            return True
    return False


def _not_found() -> errors.MatrixError:
    return errors.not_found("There is no such room, or it is not open to you.")
