"""What is not worth a row: who is typing, who is online.

It has a counter of its own, the second number of a `/sync` token. Alone, a process keeps it in
memory; several processes share it in Redis (`storage.redis_ephemeral`). What is lost with the
memory (or with Redis) is made again within seconds by what clients do.

The counter starts at the time in milliseconds, so that a token from before a restart is in the
past and not in the future.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime


class PresenceEntry(NamedTuple):
    """A user's presence and the counter's value when it last changed."""

    serial: int
    value: str
    """JSON that the presence service writes and reads."""


class EphemeralStore(Protocol):
    """Times are in milliseconds since 1970."""

    async def position(self) -> int:
        """The counter: everything up to it can be read."""

    async def set_typing(self, room_id: str, user_id: str, until_ms: int | None) -> bool:
        """The user types until then; None: no longer. Whether the list of users changed."""

    async def typing(self, room_ids: Collection[str], since: int | None) -> dict[str, list[str]]:
        """Users who type, by room: where the list changed after `since`, or, if that is None,
        where somebody types."""

    async def typing_since(self, since: int) -> dict[str, list[str]]:
        """Users who type, by room, of all rooms where the list changed after `since`."""

    async def expire_typing(self) -> list[str]:
        """Drop those whose time is over; the rooms whose lists changed by that."""

    async def put_presence(self, user_id: str, value: str, *, announce: bool = True) -> int:
        """Set a user's presence; without `announce` its serial stays. The serial."""

    async def presence(self, user_ids: Collection[str]) -> dict[str, PresenceEntry]:
        """The presence of those of these users that have any."""

    async def close(self) -> None:
        """Let go of connections."""


MAX_REMEMBERED = 100_000
"""Rooms whose last change of typing is remembered; users whose presence is."""


class MemoryEphemeral:
    """See `EphemeralStore`."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._counter = self._now()
        self._typing: dict[str, dict[str, int]] = {}
        self._changed: dict[str, int] = {}
        self._presence: dict[str, PresenceEntry] = {}

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    def _next(self) -> int:
        self._counter += 1
        return self._counter

    def _typing_changed(self, room_id: str) -> None:
        # The newest last, so that the longest unchanged are forgotten first.
        self._changed.pop(room_id, None)
        self._changed[room_id] = self._next()
        if len(self._changed) > MAX_REMEMBERED:
            del self._changed[next(iter(self._changed))]

    async def position(self) -> int:
        return self._counter

    async def set_typing(self, room_id: str, user_id: str, until_ms: int | None) -> bool:
        users = self._typing.setdefault(room_id, {})
        was_there = user_id in users
        if until_ms is not None:
            users[user_id] = until_ms
        else:
            users.pop(user_id, None)
            if not users:
                del self._typing[room_id]
        if was_there == (until_ms is not None):
            return False
        self._typing_changed(room_id)
        return True

    async def typing(self, room_ids: Collection[str], since: int | None) -> dict[str, list[str]]:
        found = {}
        for room_id in room_ids:
            users = self._typing.get(room_id, {})
            if users if since is None else self._changed.get(room_id, 0) > since:
                found[room_id] = sorted(users)
        return found

    async def typing_since(self, since: int) -> dict[str, list[str]]:
        found = {}
        for room_id in reversed(self._changed):
            if self._changed[room_id] <= since:
                break
            found[room_id] = sorted(self._typing.get(room_id, ()))
        return found

    async def expire_typing(self) -> list[str]:
        now = self._now()
        changed = []
        for room_id, users in list(self._typing.items()):
            over = [user_id for user_id, until in users.items() if until <= now]
            for user_id in over:
                del users[user_id]
            if not users:
                del self._typing[room_id]
            if over:
                self._typing_changed(room_id)
                changed.append(room_id)
        return changed

    async def put_presence(self, user_id: str, value: str, *, announce: bool = True) -> int:
        old = self._presence.pop(user_id, None)
        serial = self._next() if announce or old is None else old.serial
        self._presence[user_id] = PresenceEntry(serial, value)
        if len(self._presence) > MAX_REMEMBERED:
            del self._presence[next(iter(self._presence))]
        return serial

    async def presence(self, user_ids: Collection[str]) -> dict[str, PresenceEntry]:
        return {name: self._presence[name] for name in user_ids if name in self._presence}

    async def close(self) -> None:
        return
