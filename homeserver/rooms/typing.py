"""Who is typing ("Typing Notifications"): kept in the ephemeral store, with a time at which it
ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.cache import Cache
from homeserver.core.errors import forbidden
from homeserver.core.ids import RoomID, UserID, domain_of
from homeserver.rooms.open_to import open_to
from homeserver.rooms.write import WrittenRoom
from homeserver.ticking import start_ticking
from homeserver.web.request import Requester
from storage import memberships, residence, rooms
from storage.database import Database
from storage.ephemeral import EphemeralStore
from storage.feed import Feed
from storage.transaction import Transaction

DEFAULT_TIMEOUT = 30_000
MAX_TIMEOUT = 120_000
REMOTE_TIMEOUT = 60_000
"""A user of another server types for so long at most unless the server says so again."""
EXPIRE_EVERY = 1.0
"""Seconds between two looks for those who stopped without saying so."""

_log = structlog.get_logger(__name__)


class RemoteTyping(NamedTuple):
    """What another server says of its user."""

    room_id: str
    user_id: str
    is_typing: bool


class Typing:
    """The typing users of all rooms."""

    def __init__(
        self, db: Database, store: EphemeralStore, feed: Feed, clock: IReactorTime
    ) -> None:
        self._db = db
        self._store = store
        self._feed = feed
        self._clock = clock
        self.on_changed: list[Callable[[str, int], object]] = []
        """Called with ID and number of a room when this process changed who types there."""
        self._nids: Cache[str, int] = Cache("room_numbers", share=0.05)
        self.caches = (self._nids,)
        feed.on_invalidate(rooms.NUMBERS, self._forget, self._nids.clear)
        self._loop = LoopingCall(self._expire)
        self._loop.clock = clock

    def _forget(self, room_id: str) -> None:
        self._nids.pop(room_id, None)

    def start(self) -> None:
        """Begin to look for those who stopped without saying so."""
        start_ticking(self._loop, EXPIRE_EVERY)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    async def set_typing(
        self,
        requester: Requester,
        user_id: UserID,
        room_id: RoomID,
        typing: bool,
        timeout_ms: int | None,
    ) -> None:
        """The requester types for so long (at most two minutes), or no longer.

        Raises MatrixError 403 M_FORBIDDEN for another user, or a room that they are not in.
        """
        if requester.user_id != user_id:
            raise forbidden("You cannot type for another user.")
        room_nid = await self._db.query(memberships.joined_number, room_id, user_id)
        if room_nid is None:
            raise forbidden("You are not in this room.")
        if requester.is_shadow_banned:
            return
        self._nids[room_id] = room_nid
        timeout = DEFAULT_TIMEOUT if timeout_ms is None else min(timeout_ms, MAX_TIMEOUT)
        until = None
        if typing and timeout > 0:
            until = int(self._clock.seconds() * 1000) + timeout
        if await self._store.set_typing(room_id, user_id, until):
            self._tell({room_id: room_nid})

    async def set_remote(self, origin: str, changes: Sequence[RemoteTyping]) -> None:
        """Users of another server type, or no longer.

        Passed over: users of any other server or not in the room, rooms that this server is not
        in or whose ACL denies the server.
        """
        last = {
            (change.room_id, change.user_id): change.is_typing
            for change in changes
            if domain_of(change.user_id) == origin
        }
        if not last:
            return
        joined = await self._db.read(_remote_joined, origin, last.keys())
        until = int(self._clock.seconds() * 1000) + REMOTE_TIMEOUT
        channels = set()
        for (room_id, user_id), is_typing in last.items():
            room_nid = joined.get((room_id, user_id))
            if room_nid is None:
                continue
            self._nids[room_id] = room_nid
            if await self._store.set_typing(room_id, user_id, until if is_typing else None):
                channels.add(f"room:{room_nid}")
        if channels:
            self._feed.publish(*channels)

    def events_written(self, room: WrittenRoom) -> None:
        """Whoever leaves a room does not type there any more."""
        for entry in room.entries:
            event = entry.event
            if event.type == "m.room.member" and event.membership in ("leave", "ban"):
                self._stop(room, event.state_key or "")

    def _stop(self, room: WrittenRoom, user_id: str) -> None:
        async def stop() -> None:
            if await self._store.set_typing(room.room_id, user_id, None):
                self._tell({room.room_id: room.room_nid})

        Deferred.fromCoroutine(stop()).addErrback(_failed)

    def _expire(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._expire_all()).addErrback(_failed)

    async def _expire_all(self) -> None:
        changed = await self._store.expire_typing()
        numbers = ((name, self._nids.get(name)) for name in changed)
        known = {name: nid for name, nid in numbers if nid is not None}
        unknown = [room_id for room_id in changed if room_id not in known]
        if unknown:
            read = await self._db.read(_numbers, unknown)
            self._nids.update(read)
            known |= read
        if known:
            self._tell(known)

    def _tell(self, changed: dict[str, int]) -> None:
        self._feed.publish(*(f"room:{room_nid}" for room_nid in changed.values()))
        for room_id, room_nid in changed.items():
            for listener in self.on_changed:
                listener(room_id, room_nid)


def _failed(failure: Any) -> None:
    _log.warning("Who is typing is not kept", reason=str(failure.value))


def _remote_joined(
    txn: Transaction, origin: str, wanted: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Those (room, user) of which the user is in the room, and the numbers of the rooms."""
    numbers = open_to(txn, origin, {room_id for room_id, _ in wanted})
    found = {}
    for room_id, room_nid in numbers.items():
        users = [user_id for name, user_id in wanted if name == room_id]
        for user_id in residence.joined(txn, room_nid, users):
            found[room_id, user_id] = room_nid
    return found


def _numbers(txn: Transaction, room_ids: list[str]) -> dict[str, int]:
    found = {room_id: rooms.nid(txn, room_id) for room_id in room_ids}
    return {room_id: nid for room_id, nid in found.items() if nid is not None}
