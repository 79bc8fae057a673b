"""Which events an application service is told of (Application Service API, "Registration").

Those of rooms in its namespace, or with an alias in it; those of rooms in which one of its users
was joined when they happened; and those that are about one of its users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from cachetools import LRUCache

from homeserver.core.appservices import AppserviceRegistration
from storage import aliases, appservice_streams, memberships, rooms
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.transaction import Transaction

MEMBER = "m.room.member"
CREATE = "m.room.create"
KNOWN_USERS = 100_000
"""User IDs of which it is remembered whether they are a service's."""


class Owned:
    """Whose users are a service's; remembers. Used by one transaction at a time."""

    def __init__(self, registration: AppserviceRegistration) -> None:
        self.registration = registration
        self._users: LRUCache[str, bool] = LRUCache(KNOWN_USERS)

    def user(self, user_id: str) -> bool:
        found = self._users.get(user_id)
        if found is None:
            found = self._users[user_id] = self.registration.owns_user(user_id)
        return found


class Interest:
    """Judges events of some rooms behind a position, within one transaction."""

    def __init__(
        self, txn: Transaction, owned: Owned, after: int, room_nids: Collection[int]
    ) -> None:
        self._owned = owned
        self.rooms: dict[int, RoomRow] = rooms.get_many(txn, room_nids)
        self._named = {nid for nid in self.rooms if self._is_named(txn, nid)}
        others = [nid for nid in self.rooms if nid not in self._named]
        self._joined = {
            nid: {user for user in memberships.local_joined(txn, nid) if owned.user(user)}
            for nid in others
        }
        self._moves: dict[int, dict[str, list[tuple[int, str]]]] = defaultdict(dict)
        for move in appservice_streams.moves(txn, after, others):
            if owned.user(move.user_id):
                of_user = self._moves[move.room_nid].setdefault(move.user_id, [])
                of_user.append((move.pos, move.previous))

    def _is_named(self, txn: Transaction, room_nid: int) -> bool:
        registration = self._owned.registration
        if registration.rooms and registration.has_room(self.rooms[room_nid].room_id):
            return True
        return bool(registration.aliases) and any(
            registration.owns_alias(alias) for alias in aliases.of_room(txn, room_nid)
        )

    def wants(self, row: EventRow) -> bool:
        """Whether the service is told of an event."""
        if row.room_nid not in self.rooms:
            return False
        is_target = row.type == MEMBER and row.state_key is not None
        if is_target and self._owned.user(str(row.state_key)):
            return True
        if row.type == CREATE and self._owned.user(row.sender):
            # Who makes a room joins it right afterwards.
            return True
        return self.is_in(row.room_nid, row.pos or 0)

    def is_in(self, room_nid: int, pos: int) -> bool:
        """Whether the room is the service's, or one of its users was joined at a position."""
        if room_nid in self._named:
            return True
        moves = self._moves.get(room_nid, {})
        joined = self._joined.get(room_nid, set())
        for user in joined | moves.keys():
            later = next((previous for at, previous in moves.get(user, ()) if at > pos), None)
            if (user in joined) if later is None else later == "join":
                return True
        return False
