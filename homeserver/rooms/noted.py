"""What is remembered of outliers from their insertion on, so that nobody reads them again.

The state of a large room comes as thousands of events, which are inserted part by part, and then
taken together: by whom, their numbers are asked for, and how they were judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from storage import rooms
from storage.transaction import Transaction

_NO_NUMBERS: Mapping[str, int] = {}


class Noted:
    """Outliers of one room that were inserted, as long as nobody has changed or deleted any event
    of that room since: whoever does calls `storage.rooms.contents_changed`, or removes the room.

    For one errand, in database threads one after the other.
    """

    __slots__ = ("_numbers", "_rejected", "_room_nid", "_version")

    def __init__(self) -> None:
        self._room_nid: int | None = None
        self._version = -1
        self._numbers: dict[str, int] = {}
        self._rejected: set[str] = set()

    @property
    def rejected(self) -> Set[str]:
        """Those of them that their own auth events forbid."""
        return self._rejected

    def version(self, txn: Transaction, room_nid: int) -> int:
        """What `add` wants to know of the room: to be asked before the insertion, with the room
        locked."""
        if room_nid == self._room_nid:
            # Compared when the numbers are asked for.
            return self._version
        return rooms.content_version(txn, room_nid)

    def add(
        self, room_nid: int, version: int, numbers: Mapping[str, int], rejected: Set[str]
    ) -> None:
        """Take note of events that were not stored before, once the transaction is committed."""
        if room_nid != self._room_nid:
            # A room that was removed and came back has another number, and nothing of before.
            self._room_nid, self._version = room_nid, version
            self._numbers.clear()
            self._rejected.clear()
        self._numbers.update(numbers)
        self._rejected |= rejected

    def numbers(self, txn: Transaction, room_nid: int) -> Mapping[str, int]:
        """Numbers of the events by ID; none if what is stored of the room has changed since."""
        if room_nid != self._room_nid or not self._numbers:
            return _NO_NUMBERS
        if rooms.content_version(txn, room_nid) != self._version:
            return _NO_NUMBERS
        return self._numbers
