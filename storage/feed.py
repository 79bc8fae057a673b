"""What is new in the log, for those in this process who wait for it.

1. A commit publishes hints on channels. Hints of this process arrive at once, those of others
   through the bus.
2. A hint may be lost: while the bus is away, or when a process dies between commit and hint.
   Listeners of `on_missed` are told, and look for themselves. While the bus does not carry what
   others publish, that is each second in which another process has moved the clock; and once for
   the last seconds before, as a bus notices late that it carries nothing.
3. Cache invalidations are read from the database together with the clock, each second and
   whenever `Database.position` is asked for after a hint. They are never lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import structlog
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.ticking import start_ticking
from storage import invalidations
from storage.bus import Bus, Unsubscribe, once
from storage.database import Database

INTERVAL = 1.0
"""Seconds between two looks at the clock."""
KEEP_INVALIDATIONS = 3600.0
"""Seconds that a process may sleep without having to empty its caches."""
DOUBTED = 10
"""Looks at the clock before a bus was known to be away, in which hints may have been lost."""
_PRUNE_EVERY = 600.0

Listener = Callable[[int], object]
"""Called with a position up to which something concerns the channel."""

_log = structlog.get_logger(__name__)


class Feed:
    """One for each homeserver; used on the reactor thread."""

    def __init__(self, db: Database, bus: Bus, clock: IReactorTime) -> None:
        self._db = db
        self._bus = bus
        self._listeners: dict[str, list[Listener]] = {}
        self._from_bus: dict[str, Unsubscribe] = {}
        self._on_missed: list[Callable[[], object]] = []
        self._foreign = deque([db.positions.foreign], DOUBTED)
        """Where other processes had moved the clock to, at the last looks."""
        self._clock = clock
        self._next_prune = clock.seconds() + _PRUNE_EVERY
        self._loop = LoopingCall(self._look_safely)
        self._loop.clock = clock
        db.on_commit(self._committed)

    async def start(self) -> None:
        """Begin to read the clock each second."""
        start_ticking(self._loop, INTERVAL)

    def stop(self) -> None:
        """Read no more."""
        if self._loop.running:
            self._loop.stop()

    def subscribe(self, channel: str, listener: Listener) -> Unsubscribe:
        """Have `listener(pos)` called for each hint on a channel, until the returned function is
        called."""
        listeners = self._listeners.get(channel)
        if listeners is None:
            listeners = self._listeners[channel] = []
            self._from_bus[channel] = self._bus.subscribe(channel, self._heard(channel))
        listeners.append(listener)
        return once(lambda: self._unsubscribe(channel, listener))

    def on_missed(self, listener: Callable[[], object]) -> None:
        """Have `listener()` called when hints on any channel may have been lost."""
        self._on_missed.append(listener)

    def missed(self) -> None:
        """Hints may have been lost, say because a process died: have everybody look."""
        for listener in tuple(self._on_missed):
            try:
                listener()
            except Exception:
                _log.exception("A listener of the feed failed")

    def on_invalidate(
        self,
        cache: str,
        callback: Callable[[str], None],
        everything: Callable[[], None] | None = None,
    ) -> None:
        """See `Database.on_invalidate`."""
        self._db.on_invalidate(cache, callback, everything)

    def publish(self, *channels: str) -> None:
        """Hint at something that is not in the log, such as typing."""
        pos = self._db.positions.applied
        for channel in channels:
            self._deliver(channel, pos)
        self._db.publish(channels, pos)

    def _unsubscribe(self, channel: str, listener: Listener) -> None:
        listeners = self._listeners.get(channel, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners and channel in self._from_bus:
            del self._listeners[channel]
            self._from_bus.pop(channel)()

    def _committed(self, channels: tuple[str, ...], pos: int) -> None:
        for channel in channels:
            self._deliver(channel, pos)

    def _heard(self, channel: str) -> Callable[[bytes], None]:
        def heard(payload: bytes) -> None:
            token, _, text = payload.decode("ascii", "replace").partition(":")
            if token == self._db.process_token or not text.isdigit():
                return
            pos = int(text)
            self._db.positions.heard_of(pos)
            self._deliver(channel, pos)

        return heard

    def _deliver(self, channel: str, pos: int) -> None:
        for listener in tuple(self._listeners.get(channel, ())):
            try:
                listener(pos)
            except Exception:
                _log.exception("A listener of the feed failed", channel=channel)

    def _look_safely(self) -> Deferred[None]:
        return ensureDeferred(self._look())

    async def _look(self) -> None:
        try:
            await self._db.look()
            await self._prune()
        except Exception as error:
            _log.warning("Cannot read the clock", reason=str(error))
            return
        foreign = self._db.positions.foreign
        if not self._bus.reliable:
            is_news = foreign > self._foreign[0]
            self._foreign.clear()
            if is_news:
                self.missed()
        self._foreign.append(foreign)

    async def _prune(self) -> None:
        now = self._clock.seconds()
        if now >= self._next_prune:
            self._next_prune = now + _PRUNE_EVERY
            await self._db.write(invalidations.prune, int((now - KEEP_INVALIDATIONS) * 1000))
