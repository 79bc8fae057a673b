"""Which member events each device has, so that lazy loading need not repeat them.

Client-server API, "Lazy-loading room members". Never is a member withheld that the device needs:

1. What a device has is known for one token at a time: what it was sent up to that token.
2. An answer adds to it only when the device comes back with that answer's token. Answers that were
   lost on the way, or that a parallel sync got, count for nothing.
3. A room that the user enters again is new to the client, which may have dropped what it knew of it
   when the user left: what it got before counts no more.
4. Of a token that is not known here (another process gave it out, or it was forgotten), the device
   is thought to have nothing: members are sent again, which clients take without harm.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

from homeserver.cache import Cache

MAX_MEMBERS = 10_000
"""Member events remembered for one device; when there are more, all are forgotten."""
_MAX_PENDING = 4
"""Answers to one token that wait for the device to come back with theirs."""

NOTHING: frozenset[int] = frozenset()


Point = TypeVar("Point", int, tuple[int, int])
"""What tells tokens apart: of `/sync`, the durable position; of sliding sync also the number under
which is kept what the connection was sent, as windows move while nothing happens."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Numbers of the member events that an answer has, and of those that count no more with it."""

    added: frozenset[int]
    dropped: frozenset[int]


_NO_MEMBERS = _Answer(NOTHING, NOTHING)


@dataclass(slots=True)
class _Device(Generic[Point]):
    base: Point | None
    """The token that `known` is for; None: before the first sync."""
    known: frozenset[int] = NOTHING
    pending: dict[Point, _Answer] = field(default_factory=dict)
    """Answers to `base`, by their tokens."""


class SentMembers(Generic[Point]):
    """Safe to use from many threads. Events go by their numbers. `name`: of the cache."""

    def __init__(self, name: str = "sent_members") -> None:
        self._devices: Cache[tuple[str, str], _Device[Point]] = Cache(name, _size)
        self.caches: tuple[Cache[tuple[str, str], _Device[Point]], ...] = (self._devices,)
        self._lock = Lock()

    def known(self, user_id: str, device_id: str, since: Point | None) -> frozenset[int]:
        """Numbers of member events that a device has which comes with the token `since`."""
        key = (user_id, device_id)
        with self._lock:
            return self._come_back(key, self._devices.get(key), since)

    def _come_back(
        self, key: tuple[str, str], device: _Device[Point] | None, since: Point | None
    ) -> frozenset[int]:
        if device is None or since is None:
            return NOTHING
        if since != device.base:
            if since not in device.pending:
                return NOTHING
            answer = device.pending[since]
            device.base = since
            device.pending = {}
            if answer.added or answer.dropped:
                device.known = (device.known - answer.dropped) | answer.added
                if len(device.known) > MAX_MEMBERS:
                    device.known = NOTHING
                self._devices[key] = device  # its size is another one
        return device.known

    def sent(
        self,
        user_id: str,
        device_id: str,
        since: Point | None,
        now: Point,
        members: frozenset[int],
        dropped: frozenset[int] = NOTHING,
    ) -> None:
        """The answer to `since` whose token is `now` has these member events.

        Parameters: `dropped`, those of rooms with which the client starts anew.
        """
        if now == since:
            return  # Coming back with the same token would not show that the answer arrived.
        with self._lock:
            device = self._devices.get((user_id, device_id))
            if device is None or device.base != since:
                device = _Device(since)
            if now in device.pending:
                # Two answers have this token: what only one of them has may not be there.
                other = device.pending[now]
                device.pending[now] = _Answer(other.added & members, other.dropped | dropped)
                return
            while len(device.pending) >= _MAX_PENDING:
                del device.pending[next(iter(device.pending))]
            device.pending[now] = _Answer(members, dropped)
            self._devices[user_id, device_id] = device

    def move_on(
        self, user_id: str, device_id: str, since: Point | None, now: Point, needed: Collection[int]
    ) -> bool:
        """As `known` and then `sent` without any members, if the device has all that are `needed`;
        else False."""
        key = (user_id, device_id)
        with self._lock:
            device = self._devices.get(key)
            if not self._come_back(key, device, since).issuperset(needed):
                return False
            if since is None or now == since:
                return True
            # What is larger by one short entry is not weighed anew.
            if device is not None and device.base == since and len(device.pending) < _MAX_PENDING:
                other = device.pending.get(now)
                if other is None or other.added:
                    dropped = NOTHING if other is None else other.dropped
                    device.pending[now] = _Answer(NOTHING, dropped) if dropped else _NO_MEMBERS
                return True
        self.sent(user_id, device_id, since, now, NOTHING)
        return True


def _size(key: tuple[str, str], device: _Device[Point]) -> int:
    members = len(device.known)
    for answer in device.pending.values():
        members += len(answer.added) + len(answer.dropped)
    return 500 + 200 * len(device.pending) + 70 * members
