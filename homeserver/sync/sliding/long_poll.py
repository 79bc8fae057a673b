"""Sliding sync as clients use it: answer at once, or wait until there is something to say."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime

from homeserver.core.tokens import SlidingToken
from homeserver.core.types import JsonObject
from homeserver.sync.long_poll import Wish, poll
from homeserver.sync.notifier import Notifier, Watch
from homeserver.sync.sliding import connection
from homeserver.sync.sliding.engine import Found, SlidingEngine
from homeserver.sync.sliding.request import SlidingRequest
from homeserver.sync.streams import to_device as to_device_stream
from homeserver.sync.streams import typing as typing_stream
from homeserver.users.presence import PresenceTracker
from storage.database import Database
from storage.ephemeral import EphemeralStore


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
    ) -> None:
        self._db = db
        self._engine = engine
        self.caches = engine.caches
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._presence = presence
        self._clock = clock

    async def sync(self, request: SlidingRequest, wish: Wish) -> JsonObject:
        """The answer, as soon as there is something new, or after the timeout.

        A request without position is answered at once.

        Raises:
            MatrixError: 400 `M_UNKNOWN_POS` if the position is not known (any more).
        """
        ended = await self._presence.user_syncing(
            request.user_id, wish.set_presence, request.device_id
        )

        async def answer(_: Watch) -> tuple[tuple[Found, int], bool]:
            return await self._answer(request)

        try:
            found, ephemeral = await poll(
                self._notifier,
                self._clock,
                request.user_id,
                wish,
                answer,
                at_once=request.pos is None,
                profiles=request.extensions.profiles is not None,
            )
            return await self._finish(request, found, ephemeral)
        finally:
            ended()

    async def _answer(self, request: SlidingRequest) -> tuple[tuple[Found, int], bool]:
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
        return (found, ephemeral), found.is_empty and not typed

    async def _finish(self, request: SlidingRequest, found: Found, ephemeral: int) -> JsonObject:
        now_ms = int(self._clock.seconds() * 1000)
        if found.sent is not None:
            number = await self._db.write(self._engine.write, request, found.sent, now_ms)
        else:
            assert request.pos is not None, "the first answer says what was sent"
            number = request.pos.connection
            if found.touch:
                await self._db.write(connection.touch, number, now_ms)
        return {"pos": str(SlidingToken(number, found.now, ephemeral)), **found.answer}

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
