"""`/sync` as clients use it: answer at once, or wait until there is something to say."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from homeserver.core.ids import UserID
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.sync.engine import Durable, SyncEngine
from homeserver.sync.notifier import Notifier
from homeserver.sync.request import SyncRequest
from storage.database import Database
from storage.ephemeral import EphemeralStore

MAX_TIMEOUT = 300_000
"""Longest wait in milliseconds."""


class PresenceSource(Protocol):
    """The presence of the people whom a user may see."""

    async def user_syncing(self, user_id: UserID, state: str) -> None:
        """The user's client is there, and says what presence it has."""

    async def changes(
        self, user_id: UserID, since: int | None, newly_joined: Collection[int]
    ) -> list[JsonObject]:
        """`m.presence` events newer than `since`, and those of people in newly joined rooms."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How to answer: the parameters that are not about what to answer.

    `on_stop` is given a function to call when the server stops.
    """

    timeout_ms: int
    set_presence: str
    on_stop: Callable[[Callable[[], None]], None]


class Sync:
    """Answers `/sync`."""

    def __init__(
        self,
        db: Database,
        engine: SyncEngine,
        notifier: Notifier,
        ephemeral: EphemeralStore,
        presence: PresenceSource | None,
        clock: IReactorTime,
    ) -> None:
        self._db = db
        self._engine = engine
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._presence = presence
        self._clock = clock

    async def sync(self, request: SyncRequest, wish: Wish) -> JsonObject:
        """The answer, as soon as there is something new, or after the timeout.

        A request without token, or with `full_state`, is answered at once.
        """
        user_id = UserID(request.user_id)
        if self._presence is not None and wish.set_presence != "offline":
            await self._presence.user_syncing(user_id, wish.set_presence)
        ends = self._clock.seconds() + min(wish.timeout_ms, MAX_TIMEOUT) / 1000
        stopping: list[bool] = []

        def stop() -> None:
            stopping.append(True)
            self._notifier.wake_user(user_id)

        wish.on_stop(stop)
        while True:
            watch = await self._notifier.watch(request.user_id)
            version = watch.version
            answer, is_empty = await self._answer(user_id, request)
            left = ends - self._clock.seconds()
            at_once = request.since is None or request.full_state
            if at_once or not is_empty or left <= 0 or stopping:
                return answer
            del answer
            await self._notifier.wait(watch, version, left)

    async def _answer(self, user_id: UserID, request: SyncRequest) -> tuple[JsonObject, bool]:
        ephemeral = await self._ephemeral.position()
        now_ms = int(self._clock.seconds() * 1000)
        durable = await self._db.read(self._engine.read, request, now_ms)
        answer = durable.answer
        is_empty = durable.is_empty
        if await self._add_typing(request, durable):
            is_empty = False
        if self._presence is not None:
            # Presence of people in rooms that are new to the client comes whole.
            events = await self._presence.changes(
                user_id, request.ephemeral_since, durable.newly_joined
            )
            wanted = request.filter.presence
            events = [e for e in events if wanted.matches("m.presence", e.get("sender"))]
            if events:
                answer["presence"] = {"events": events}
                is_empty = False
        answer["next_batch"] = str(SyncToken(durable.now, ephemeral))
        return answer, is_empty

    async def _add_typing(self, request: SyncRequest, durable: Durable) -> bool:
        wanted = request.filter.room.ephemeral
        ids = [
            room_id for room_id in durable.joined if wanted.matches_event("m.typing", None, room_id)
        ]
        fresh = [r for r in ids if durable.joined[r] in durable.newly_joined]
        typing = await self._ephemeral.typing(ids, request.ephemeral_since)
        if fresh and request.ephemeral_since is not None:
            typing |= await self._ephemeral.typing(fresh, None)
        if not typing:
            return False
        rooms = durable.answer.setdefault("rooms", {}).setdefault("join", {})
        for room_id, users in typing.items():
            section = rooms.setdefault(room_id, {})
            events = section.setdefault("ephemeral", {}).setdefault("events", [])
            events.append({"type": "m.typing", "content": {"user_ids": users}})
        return True
