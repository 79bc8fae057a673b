"""Which events an application service is told of (Application Service API, "Registration").

Those of rooms in its namespace, or with an alias in it; those of rooms in which one of its users
was joined when they happened; and those that are about one of its users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from homeserver.cache import Cache
from homeserver.core.appservices import AppserviceRegistration
from storage import aliases, appservice_streams, memberships, rooms
from storage.events import EventRow
from storage.rooms import RoomRow
from storage.transaction import Transaction

MEMBER = "m.room.member"


class Owned:
    """Whose users are a service's; remembers. Used by one transaction at a time."""

    def __init__(self, registration: AppserviceRegistration) -> None:
        self.registration = registration
        self._users: Cache[str, bool] = Cache(f"users_of_{registration.appservice_id}", share=0.05)
        self.caches = (self._users,)

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
        self._txn = txn
        self._owned = owned
        self._after = after
        self.rooms: dict[int, RoomRow] = rooms.get_many(txn, room_nids)
        self._named = {nid for nid in self.rooms if self._is_named(nid)}
        self._stays: dict[int, _Stays] = {}

    def _is_named(self, room_nid: int) -> bool:
        registration = self._owned.registration
        if registration.rooms and registration.has_room(self.rooms[room_nid].room_id):
            return True
        return bool(registration.aliases) and any(
            registration.owns_alias(alias) for alias in aliases.of_room(self._txn, room_nid)
        )

    def wants(self, row: EventRow) -> bool:
        """Whether the service is told of an event."""
        if row.room_nid not in self.rooms:
            return False
        if row.type == MEMBER:
            if row.state_key is not None and self._owned.user(row.state_key):
                return True
        elif self._owned.user(row.sender):
            # Joined, or about to join the room that they make.
            return True
        return self.is_in(row.room_nid, row.pos or 0)

    def is_in(self, room_nid: int, pos: int) -> bool:
        """Whether the room is the service's, or one of its users was joined at a position."""
        if room_nid in self._named:
            return True
        stays = self._stays.get(room_nid)
        if stays is None:
            stays = self._stays[room_nid] = _Stays(self._txn, self._owned, self._after, room_nid)
        return stays.at(pos)


class _Stays:
    """When a service's users were in a room: who is now, and who came and went since."""

    def __init__(self, txn: Transaction, owned: Owned, after: int, room_nid: int) -> None:
        self._joined = {
            user for user in memberships.local_joined(txn, room_nid) if owned.user(user)
        }
        self._moves: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for move in appservice_streams.moves(txn, after, [room_nid]):
            if owned.user(move.user_id):
                self._moves[move.user_id].append((move.pos, move.previous))

    def at(self, pos: int) -> bool:
        """Whether any of them was joined at a position behind the first."""
        for user in self._joined | self._moves.keys():
            moves = self._moves.get(user, ())
            later = next((previous for at, previous in moves if at > pos), None)
            if (user in self._joined) if later is None else later == "join":
                return True
        return False
