"""Rooms that two users share (client-server API, "Mutual Rooms").

Pages follow the rooms' numbers. A token names the last room of a page and when it was given out;
it is good for an hour.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core import errors
from homeserver.core.ids import UserID
from storage import memberships, rooms
from storage.database import Database
from storage.transaction import Transaction

PAGE = 500
"""Rooms of one answer."""
TOKEN_LIFETIME_MS = 60 * 60 * 1000

_TOKEN = re.compile(r"m([0-9]{1,15})_([0-9]{1,18})")


class SharedRooms(NamedTuple):
    """A page of room IDs, the number of all of them, and the token of the next page."""

    joined: list[str]
    total: int
    next_batch: str | None


class MutualRooms:
    """Finds rooms that users share. `page`: how many rooms an answer has at most."""

    def __init__(self, db: Database, clock: IReactorTime, page: int = PAGE) -> None:
        self._db = db
        self._clock = clock
        self._page = page

    async def find(self, user_id: UserID, other: UserID, token: str | None) -> SharedRooms:
        """Rooms that both are in.

        Raises:
            MatrixError: 400 `M_INVALID_PARAM` for oneself, a user ID that is not compliant, or a
                token that is bad or too old.
        """
        now_ms = int(self._clock.seconds() * 1000)
        if other == user_id:
            raise errors.invalid_param("You share all of your rooms with yourself.")
        if not other.is_compliant:
            raise errors.invalid_param("This is not a user ID by today's rules.")
        after = -1 if token is None else _parse(token, now_ms)

        def read(txn: Transaction) -> SharedRooms:
            shared = memberships.shared_rooms(txn, user_id, other)
            rest = [room_nid for room_nid in shared if room_nid > after]
            chosen = rest[: self._page]
            found = rooms.get_many(txn, chosen)
            more = len(rest) > len(chosen)
            return SharedRooms(
                [found[room_nid].room_id for room_nid in chosen],
                len(shared),
                f"m{now_ms}_{chosen[-1]}" if more else None,
            )

        return await self._db.read(read)


def _parse(token: str, now_ms: int) -> int:
    found = _TOKEN.fullmatch(token)
    if found is None or not 0 <= now_ms - int(found[1]) <= TOKEN_LIFETIME_MS:
        raise errors.invalid_param("The token is not valid, or no longer.")
    return int(found[2])
