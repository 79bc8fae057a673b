"""Users of other servers in rooms of a test's server, without the servers."""

from __future__ import annotations

from storage import memberships, rooms
from storage.database import Database
from storage.memberships import MembershipRow
from storage.transaction import Transaction


def _put(txn: Transaction, room_id: str, user_id: str, membership: str) -> None:
    room_nid = rooms.nid(txn, room_id)
    assert room_nid is not None
    name = f"$member-{user_id}"
    row = MembershipRow(
        room_nid, user_id, membership, name, 0, user_id, 1, False, False, None, None, None
    )
    # Not in `room_servers`: this server would try to reach theirs.
    memberships.put(txn, [row])


async def put_member(db: Database, room_id: str, user_id: str, membership: str = "join") -> None:
    """A remote user is a member of a room, though no event says so."""
    await db.write(_put, room_id, user_id, membership)
