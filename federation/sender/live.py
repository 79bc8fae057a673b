"""Typing and presence of this server's users, for the servers that share rooms with them.

Neither is in the log. Each process hears of every change, and tells the destinations that it
serves. What is lost is made good by the next change, or ends by itself at the other server.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from federation.sender import edus
from homeserver.core.ids import domain_of
from homeserver.rooms.typing import Typing
from homeserver.rooms.write import WrittenRoom
from homeserver.ticking import start_ticking
from homeserver.users.presence import PresenceTracker
from storage import memberships, outgoing
from storage.bus import Bus
from storage.database import Database
from storage.ephemeral import EphemeralStore
from storage.transaction import Transaction

CHANNEL = "typing"
JOINS = "joins"
"""The channel on which processes tell each other who joined a room."""
GATHER_S = 0.1
"""Seconds in which changes of typing are gathered."""
REPEAT_MS = 40_000
"""After so long others are told again that a user types; they forget it after a minute."""
PRESENCE_EVERY_S = 2.0
MAX_ROOMS = 10_000
"""Rooms of which it is remembered who types."""
MAX_PRESENT = 500
"""Users of one room of whose presence a server is told that enters it."""
MAX_JOINS = 100
"""Joins that are told of at once; presence of more is left to its next change."""

Emit = Callable[[Collection[str], str, object, bytes], object]
"""Called with servers, "typing" or "presence", a key that the next change has too, the EDU or
update."""

_log = structlog.get_logger(__name__)


class LiveEdus:
    """Follows typing and presence from `start` to `stop`."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        clock: Any,
        server_name: str,
        store: EphemeralStore,
        typing: Typing,
        presence: PresenceTracker,
        emit: Emit,
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._suffix = ":" + server_name
        self._store = store
        self._typing = typing
        self._presence = presence
        self._emit = emit
        self._rooms: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._told: dict[str, dict[str, int]] = {}
        self._gathering: IDelayedCall | None = None
        self._presence_upto = 0
        self._joins: set[tuple[int, str]] = set()
        self._unsubscribe: list[Callable[[], None]] = []
        self._loops = [
            (LoopingCall(self._safely, self._repeat_typing), REPEAT_MS / 2000),
            (LoopingCall(self._safely, self._tell_presence), PRESENCE_EVERY_S),
            (LoopingCall(self._safely, self._tell_joined), PRESENCE_EVERY_S),
        ]
        self._under_way: set[Deferred[None]] = set()

    async def start(self) -> None:
        """Begin to follow."""
        self._unsubscribe = [
            self._bus.subscribe(CHANNEL, self._heard),
            self._bus.subscribe(JOINS, self._heard_join),
        ]
        self._typing.on_changed.append(self._changed)
        self._presence_upto = await self._store.position()
        for loop, interval in self._loops:
            loop.clock = self._clock
            start_ticking(loop, interval)

    async def stop(self) -> None:
        """Follow no more."""
        if self._unsubscribe:
            self._typing.on_changed.remove(self._changed)
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        if self._gathering is not None and self._gathering.active():
            self._gathering.cancel()
        for work in list(self._under_way):
            await work

    def _safely(self, work: Callable[[], Awaitable[None]]) -> Deferred[None]:
        ended: Deferred[None] = Deferred()
        self._under_way.add(ended)

        async def run() -> None:
            try:
                await work()
            except Exception as error:
                _log.warning("Typing or presence is not sent", reason=str(error))
            self._under_way.discard(ended)
            ended.callback(None)

        return Deferred.fromCoroutine(run())

    # Typing

    def _changed(self, room_id: str, room_nid: int) -> None:
        self._bus.publish(CHANNEL, json.dumps([room_id, room_nid]).encode())

    def _heard(self, payload: bytes) -> None:
        room_id, room_nid = json.loads(payload)
        self._rooms[room_id] = room_nid
        if self._gathering is None:
            self._gathering = self._clock.callLater(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._safely(self._tell_typing)

    async def _tell_typing(self) -> None:
        rooms, self._rooms = self._rooms, {}
        numbers = {room_id: nid for room_id, nid in rooms.items() if len(self._told) < MAX_ROOMS}
        servers = await self._db.read(outgoing.servers, set(numbers.values()))
        shared = {room_id: nid for room_id, nid in numbers.items() if servers[nid]}
        if not shared:
            return
        typing = await self._store.typing(shared, None)
        now = int(self._clock.seconds() * 1000)
        for room_id, room_nid in shared.items():
            users = {user for user in typing.get(room_id, ()) if user.endswith(self._suffix)}
            told = self._told.pop(room_id, {})
            for user_id in sorted(users | told.keys()):
                is_typing = user_id in users
                if is_typing == (user_id in told) and (now - told[user_id] < REPEAT_MS):
                    continue
                told[user_id] = now
                body = edus.typing(room_id, user_id, is_typing)
                self._emit(servers[room_nid], "typing", (room_id, user_id), body)
            still = {user_id: told[user_id] for user_id in users}
            if still:
                self._told[room_id] = still
                self._numbers[room_id] = room_nid
            else:
                self._numbers.pop(room_id, None)

    async def _repeat_typing(self) -> None:
        self._rooms = {**self._numbers, **self._rooms}
        if self._rooms:
            await self._tell_typing()

    # Presence

    async def _tell_presence(self) -> None:
        if not self._presence.is_federated:
            return
        since, upto = self._presence_upto, await self._store.position()
        changed = self._presence.changed_since(since)
        self._presence_upto = upto
        users = [user_id for user_id in changed or () if user_id.endswith(self._suffix)]
        if not users:
            return
        around = await self._db.read(outgoing.servers_around, users)
        shown = [user_id for user_id in users if around[user_id]]
        for user_id, event in (await self._presence.events(shown, since)).items():
            update = edus.presence_update(user_id, event["content"])
            self._emit(around[user_id], "presence", user_id, update)

    # Presence of those who begin to share a room (Server-Server API, "Presence")

    def events_written(self, room: WrittenRoom) -> None:
        """Look for joins among the events of a room that this process wrote."""
        if not self._presence.is_federated:
            return
        for entry in room.entries:
            event, old = entry.event, entry.replaces
            was_there = old is not None and old.membership == "join"
            if event.membership == "join" and event.state_key and not was_there:
                join = [room.room_nid, event.state_key]
                self._bus.publish(JOINS, json.dumps(join).encode())

    def _heard_join(self, payload: bytes) -> None:
        room_nid, user_id = json.loads(payload)
        if len(self._joins) < MAX_JOINS:
            self._joins.add((room_nid, user_id))

    async def _tell_joined(self) -> None:
        joins, self._joins = self._joins, set()
        if not joins:
            return
        for user_id, servers in (await self._db.read(self._strangers, joins)).items():
            for event in (await self._presence.events([user_id])).values():
                update = edus.presence_update(user_id, event["content"])
                self._emit(servers, "presence", user_id, update)

    def _strangers(
        self, txn: Transaction, joins: Collection[tuple[int, str]]
    ) -> dict[str, set[str]]:
        """Users of this server, and the servers that see them in a room now and did not before."""
        found: dict[str, set[str]] = {}
        present = outgoing.servers(txn, {room_nid for room_nid, _ in joins})
        for room_nid, user_id in sorted(joins):
            servers = present[room_nid]
            if user_id.endswith(self._suffix):
                found.setdefault(user_id, set()).update(servers)
                continue
            server = domain_of(user_id)
            if servers.get(server) == 1:
                # Others of that server would have been told before.
                for local in memberships.local_joined(txn, room_nid)[:MAX_PRESENT]:
                    found.setdefault(local, set()).add(server)
        return {user_id: servers for user_id, servers in found.items() if servers}
