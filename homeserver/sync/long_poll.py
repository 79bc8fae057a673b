"""`/sync` as clients use it: answer at once, or wait until there is something to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from twisted.internet.interfaces import IReactorTime

from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.sync.caught_up import CaughtUp, remember
from homeserver.sync.engine import ALWAYS_TOLD, Durable, SyncEngine, acknowledge
from homeserver.sync.journal import Journal
from homeserver.sync.notifier import Asked, Notifier, Settled, Watch
from homeserver.sync.request import SyncRequest, nothing
from homeserver.sync.streams import presence as presence_stream
from homeserver.sync.streams import typing as typing_stream
from homeserver.users.presence import PresenceTracker
from homeserver.web.responses import encode_json
from homeserver.web.slicing import Slicer
from storage.database import Database
from storage.ephemeral import EphemeralStore

T = TypeVar("T")

_OLD_NAMES = {"state_after": "org.matrix.msc4222.state_after"}

MAX_TIMEOUT = 300_000
"""Longest wait in milliseconds."""
SETTLED_FOR = 60.0
"""Seconds after which the database is asked even if no hint came."""


class Wish(NamedTuple):
    """How to answer: the parameters that are not about what to answer.

    `on_stop` is given a function to call when the server stops.
    """

    timeout_ms: int
    set_presence: Literal["offline", "online", "unavailable"]
    on_stop: Callable[[Callable[[], None]], None]
    old_names: bool = False
    """Whether `state_after` is called as before version 1.16 of the specification."""


class _Stop:
    """Called when the server stops: has a client that waits go on. (A closure takes more.)"""

    __slots__ = ("_notifier", "_user_id", "is_told")

    def __init__(self, notifier: Notifier, user_id: str) -> None:
        self._notifier = notifier
        self._user_id = user_id
        self.is_told = False

    def __call__(self) -> None:
        self.is_told = True
        self._notifier.wake_user(self._user_id)


async def poll(
    notifier: Notifier,
    clock: IReactorTime,
    user_id: str,
    wish: Wish,
    answer: Callable[[Watch], Awaitable[tuple[T, bool]]],
    *,
    at_once: bool,
    profiles: bool = False,
) -> T:
    """The answer as soon as there is something in it, or after the timeout.

    Parameters: `answer` computes it, and whether it is empty, for the user's watch; `at_once`, do
    not wait; `profiles`, whether it has changes of profiles.
    """
    ends = clock.seconds() + min(wish.timeout_ms, MAX_TIMEOUT) / 1000
    stop = _Stop(notifier, user_id)
    wish.on_stop(stop)
    while True:
        watch = await notifier.watch(user_id, profiles=profiles)
        version = watch.version
        found, is_empty = await answer(watch)
        left = ends - clock.seconds()
        if at_once or not is_empty or left <= 0 or stop.is_told or notifier.is_stopped:
            return found
        del found
        await notifier.wait(watch, version, left)


class Sync:
    """Answers `/sync`."""

    def __init__(
        self,
        db: Database,
        engine: SyncEngine,
        notifier: Notifier,
        ephemeral: EphemeralStore,
        presence: PresenceTracker,
        clock: IReactorTime,
        journal: Journal,
        count: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._journal = journal
        self.caught_up = CaughtUp(journal, presence, engine, clock, count)
        self.slicer = Slicer(clock)
        """Encodes the answers that are large."""
        self._db = db
        self._engine = engine
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._presence = presence
        self._clock = clock

    async def sync(self, request: SyncRequest, wish: Wish) -> JsonObject | bytes:
        """The answer, as soon as there is something new, or after the timeout; it may be encoded
        already.

        A request without token, or with `full_state`, is answered at once.
        """
        ended = await self._presence.user_syncing(
            request.user_id, wish.set_presence, request.device_id
        )
        try:
            if wish.timeout_ms == 0:
                watch = await self._notifier.watch(
                    request.user_id, profiles=bool(request.filter.profile_fields)
                )
                known = self._known(request, wish, watch)
                if known is not None:
                    return _nothing_new(known)
            found = await poll(
                self._notifier,
                self._clock,
                request.user_id,
                wish,
                partial(self._look, request, wish),
                at_once=request.since is None or request.full_state,
                profiles=bool(request.filter.profile_fields),
            )
            # Who waits on needs no answer made.
            return _nothing_new(found) if isinstance(found, Settled) else found
        finally:
            ended()

    async def _look(
        self, request: SyncRequest, wish: Wish, watch: Watch
    ) -> tuple[JsonObject | bytes | Settled, bool]:
        """What there is now, and whether that is nothing."""
        known = self._known(request, wish, watch)
        if known is not None:
            return known, True
        quick = await self.caught_up.answer(
            request,
            watch,
            old_names=wish.old_names,
            # A hint of another process may still be on its way.
            fresh=wish.timeout_ms == 0 and not self._notifier.is_alone,
        )
        return quick if quick is not None else await self._answer(request, wish, watch)

    def _known(self, request: SyncRequest, wish: Wish, watch: Watch) -> Settled | None:
        """What the device has, if that it has everything is known without asking anybody.

        A client that waits trusts in hints, and so may one that comes back: nothing was hinted at
        since it was given its token. Presence alone may change without a hint, in large rooms.
        """
        settled = watch.settled.get(request.device_id)
        if settled is None or settled.version != watch.version or request.full_state:
            return None
        # Only who asks for profiles is hinted at them.
        if request.filter.profile_fields or request.is_behind:
            return None
        # A hint of another process may still be on its way.
        if wish.timeout_ms == 0 and not self._notifier.is_alone:
            return None
        if not settled.is_at(Asked(request.since, request.ephemeral_since)):
            return None
        if self._clock.seconds() >= settled.until:
            return None
        if self._presence.has_changed_since(settled.token.ephemeral):
            return None
        return settled

    async def _answer(
        self, request: SyncRequest, wish: Wish, watch: Watch
    ) -> tuple[JsonObject, bool]:
        version, own_version, rooms = watch.version, watch.own_version, watch.rooms
        rooms_at = watch.rooms_at
        ephemeral = await self._ephemeral.position()
        now_ms = int(self._clock.seconds() * 1000)
        # Somebody may type in a room that has no other news.
        all_rooms = request.ephemeral_since != ephemeral
        durable = await self._engine.look(self._db, request, now_ms, all_rooms=all_rooms)
        typed = await self._add_typing(request, durable, ephemeral)
        present = await self._add_presence(request, durable, ephemeral)
        if durable.has_acknowledged:
            await self._db.write(acknowledge, request)
        token = SyncToken(durable.now, ephemeral, durable.to_device_reached, durable.sticky_reached)
        durable.answer["next_batch"] = str(token)
        is_empty = durable.is_empty and not typed and not present
        if durable.is_settled:
            settled = self._settled(request, durable, watch, version, own_version, token)
            settled.rooms = rooms if durable.moved_at <= rooms_at else None
            if is_empty:
                settled.came_with = Asked(request.since, request.ephemeral_since)
            watch.settle(request.device_id, settled)
            self._journal.begin(token.durable, token.ephemeral)
        answer = _with_old_names(durable.answer) if wish.old_names else durable.answer
        return answer, is_empty

    def _settled(
        self,
        request: SyncRequest,
        durable: Durable,
        watch: Watch,
        version: int,
        own_version: int,
        token: SyncToken,
    ) -> Settled:
        until = self._clock.seconds() + SETTLED_FOR
        keys = {name: durable.answer[name] for name in ALWAYS_TOLD}
        settled = Settled(version, own_version, token, until, keys)
        settled.ignored = durable.ignored
        old = watch.settled.get(request.device_id)
        asked = Asked(request.since, request.ephemeral_since)
        if old is not None and old.own_version == own_version and old.is_at(asked):
            # Of the other rooms the counts are what they were.
            settled.counts = dict(old.counts)
        remember(settled.counts, durable.counts)
        return settled

    async def _add_presence(self, request: SyncRequest, durable: Durable, now: int) -> bool:
        wanted = request.filter.presence
        if wanted.matches_nothing:
            return False
        events = await presence_stream.changes(
            self._presence,
            request.user_id,
            None,
            request.ephemeral_since,
            now,
            new_users=durable.new_people,
        )
        events = [event for event in events if wanted.matches("m.presence", event.get("sender"))]
        if events:
            durable.answer["presence"] = {"events": events}
        return bool(events)

    async def _add_typing(self, request: SyncRequest, durable: Durable, now: int) -> bool:
        since = request.ephemeral_since
        wanted = request.filter.room.ephemeral
        if (since == now and not durable.newly_joined) or not wanted.matches("m.typing"):
            return False
        rooms = {
            room.room_id: nid
            for nid, room in durable.joined.items()
            if wanted.matches_room(room.room_id)
        }
        typing = await typing_stream.room_changes(self._ephemeral, rooms, since, now)
        if durable.newly_joined and since is not None:
            new = {room_id: nid for room_id, nid in rooms.items() if nid in durable.newly_joined}
            typing |= await typing_stream.room_changes(self._ephemeral, new, None, now)
        if not typing:
            return False
        sections = durable.answer.setdefault("rooms", {}).setdefault("join", {})
        for nid, event in typing.items():
            section = sections.setdefault(durable.joined[nid].room_id, nothing(request))
            section.setdefault("ephemeral", {"events": []})["events"].append(event)
        return True


def _nothing_new(settled: Settled) -> bytes:
    """The answer that tells nothing."""
    tail = settled.tail
    if not tail:
        tail = settled.tail = encode_json(settled.answer)[1:-1]
    return b'{"next_batch":"%b",%b}' % (str(settled.token).encode(), tail)


def _with_old_names(answer: JsonObject) -> JsonObject:
    """The answer with `state_after` as it was called before version 1.16."""
    rooms = dict(answer.get("rooms", {}))
    for kind in ("join", "leave"):
        if kind in rooms:
            rooms[kind] = {
                room_id: {_OLD_NAMES.get(name, name): part for name, part in room.items()}
                for room_id, room in rooms[kind].items()
            }
    return {**answer, "rooms": rooms} if rooms else answer
