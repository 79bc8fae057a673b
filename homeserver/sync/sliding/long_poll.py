"""Sliding sync as clients use it: answer at once, or wait until there is something to say."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from homeserver.core.tokens import SlidingToken
from homeserver.core.types import JsonObject
from homeserver.sync.journal import Journal
from homeserver.sync.long_poll import Wish, poll
from homeserver.sync.notifier import Notifier, Watch
from homeserver.sync.sliding import connection
from homeserver.sync.sliding.caught_up import CaughtUpConnections, Seen
from homeserver.sync.sliding.connection import Sent
from homeserver.sync.sliding.engine import Found, SlidingEngine
from homeserver.sync.sliding.request import SlidingRequest
from homeserver.sync.streams import to_device as to_device_stream
from homeserver.sync.streams import typing as typing_stream
from homeserver.users.presence import PresenceTracker
from storage.database import Database
from storage.ephemeral import EphemeralStore


class _Read(NamedTuple):
    """An answer without its position, and what was known before it was read."""

    found: Found
    ephemeral: int
    seen: Seen


class SlidingSync:
    """Answers requests."""

    def __init__(
        self,
        db: Database,
        engine: SlidingEngine,
        notifier: Notifier,
        ephemeral: EphemeralStore,
        presence: PresenceTracker,
        clock: IReactorTime,
        journal: Journal,
        count: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._db = db
        self._engine = engine
        self.caught_up = CaughtUpConnections(db, journal, notifier, engine.members, clock, count)
        self.caches = (*engine.caches, *self.caught_up.caches)
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._presence = presence
        self._clock = clock

    async def sync(self, request: SlidingRequest, wish: Wish) -> JsonObject | bytes:
        """The answer, as soon as there is something new, or after the timeout; it may be encoded
        already.

        A request without position is answered at once.

        Raises:
            MatrixError: 400 `M_UNKNOWN_POS` if the position is not known (any more).
        """
        ended = await self._presence.user_syncing(
            request.user_id, wish.set_presence, request.device_id
        )

        # A hint of another process may still be on its way.
        fresh = wish.timeout_ms == 0 and not self._notifier.is_alone

        async def answer(watch: Watch) -> tuple[_Read | bytes, bool]:
            quick = await self.caught_up.answer(request, watch, fresh=fresh)
            return quick if quick is not None else await self._answer(request, watch)

        try:
            read = await poll(
                self._notifier,
                self._clock,
                request.user_id,
                wish,
                answer,
                at_once=request.pos is None,
                profiles=request.extensions.profiles is not None,
            )
            return read if isinstance(read, bytes) else await self._finish(request, read)
        finally:
            ended()

    async def _answer(self, request: SlidingRequest, watch: Watch) -> tuple[_Read, bool]:
        seen = Seen.of(watch)
        ephemeral = await self._ephemeral.position()
        now_ms = int(self._clock.seconds() * 1000)
        found = await self._db.read(self._engine.read, request, now_ms)
        typed = await self._add_typing(request, found, ephemeral)
        if found.acknowledged is not None:
            await self._db.write(
                to_device_stream.acknowledge,
                request.user_id,
                request.device_id,
                found.acknowledged,
            )
        is_empty = found.is_empty and not typed
        if found.sent is None and request.pos is not None:
            token = SlidingToken(request.pos.connection, found.now, ephemeral)
            self.caught_up.settle(request, seen, found.follows, token, is_empty=is_empty)
        return _Read(found, ephemeral, seen), is_empty

    async def _finish(self, request: SlidingRequest, read: _Read) -> JsonObject:
        found, ephemeral, seen = read
        now_ms = int(self._clock.seconds() * 1000)
        if found.sent is not None:
            number = await self._write(request, found.sent, now_ms)
            token = SlidingToken(number, found.now, ephemeral)
            self.caught_up.settle(request, seen, found.follows, token, is_empty=False)
        else:
            assert request.pos is not None, "the first answer says what was sent"
            number = request.pos.connection
            token = SlidingToken(number, found.now, ephemeral)
            if found.touch:
                await self._db.write(connection.touch, number, now_ms)
        self._engine.told(request, token, found)
        return {"pos": str(token), **found.answer}

    async def _write(self, request: SlidingRequest, sent: Sent, now_ms: int) -> int:
        if request.pos is None:
            self.caught_up.forget(request)
        try:
            return await self._db.write(self._engine.write, request, sent, now_ms)
        except BaseException:
            # It may have been done, which ends other positions of the connection.
            self.caught_up.forget(request)
            raise

    async def _add_typing(self, request: SlidingRequest, found: Found, now: int) -> bool:
        since = request.pos.ephemeral if request.pos is not None else None
        new = self._rooms(found, is_new=True)
        typing = await typing_stream.room_changes(self._ephemeral, new, None, now)
        known = self._rooms(found, is_new=False)
        typing |= await typing_stream.room_changes(self._ephemeral, known, since, now)
        if not typing:
            return False
        rooms = {found.typing[nid][0]: event for nid, event in typing.items()}
        found.answer["extensions"]["typing"] = {"rooms": rooms}
        return True

    @staticmethod
    def _rooms(found: Found, *, is_new: bool) -> dict[str, int]:
        rooms: Collection[tuple[int, tuple[str, bool]]] = found.typing.items()
        return {room_id: nid for nid, (room_id, new) in rooms if new == is_new}
