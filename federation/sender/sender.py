"""Sends to other servers what happens here (Server-Server API, "Transactions").

1. What is new in the log is read once for all destinations, with the servers that get it, and
   queued in memory (`news`). While a destination takes what it is sent, nothing is written.
2. Each destination has one transaction under way at a time (`transmit`, `schedule`).
3. Who cannot be reached is left alone for longer and longer, with nothing in memory; what it
   misses stays in the log (`destination`).
4. How far the destinations are is written in bulk (`progress`), for the next start or for the
   process that takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from random import Random, SystemRandom
from typing import Any

import structlog
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from federation.client.requests import FederationClient
from federation.sender.destination import Destination, Item, shard_of
from federation.sender.news import Dispatch, NewsReader, Reading
from federation.sender.progress import IDLE_EVERY_S, Progress
from federation.sender.schedule import Schedule
from federation.sender.shards import Shards
from federation.sender.transmit import Transmitter
from homeserver.cache import Cache
from homeserver.ticking import start_ticking
from storage import destinations, device_updates, outgoing_to_device
from storage.bus import Bus
from storage.database import Database
from storage.destinations import DestinationRow
from storage.feed import Feed
from storage.outgoing import CHANNEL
from storage.transaction import Transaction

HEARD_CHANNEL = "federation_heard"
LOOK_S = 1.0
SHARDS_S = 5.0
WRITE_S = 3.0
PRUNE_S = 3600.0
KEEP_UPDATES_MS = 30 * 24 * 60 * 60 * 1000
"""A server that was away for longer asks for the devices of users anew."""
HEARD_AGAIN_S = 60.0
"""After so long other processes are told again that a server was heard from."""

_log = structlog.get_logger(__name__)


class FederationSender:
    """One for each process.

    `told(arrived)` is called after each attempt of a transaction; `dropped(messages)` when so
    many messages for devices are given up.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        bus: Bus,
        clock: Any,
        client: FederationClient,
        server_name: str,
        *,
        told: Callable[[bool], object] = lambda arrived: None,
        dropped: Callable[[int], object] = lambda messages: None,
        random: Random | None = None,
    ) -> None:
        self._db = db
        self._feed = feed
        self._bus = bus
        self._clock = clock
        self._server_name = server_name
        self._dropped = dropped
        self._reader = NewsReader(server_name)
        self._progress = Progress(db, db.process_token)
        transmitter = Transmitter(
            db,
            client,
            clock,
            self._reader,
            server_name,
            lambda: self._read_pos,
            random=SystemRandom() if random is None else random,
            told=told,
            note_apart=self._progress.note_apart,
        )
        self._schedule = Schedule(clock, transmitter.send_next, self._progress.changed)
        self._shards = Shards(db, clock, db.process_token, self._lost, self._give_up)
        self._destinations: dict[str, Destination] = {}
        self._live: set[int] = set()
        self._read_pos = 0
        self._working: Deferred[None] | None = None
        self._again = False
        self._stopped = False
        self._heard: Cache[str, bool] = Cache(
            "servers_heard", share=0.02, lives_s=HEARD_AGAIN_S, seconds=clock.seconds
        )
        self.caches = (self._heard,)
        self._next_idle_write = 0.0
        self._loops = [
            (LoopingCall(self._look), LOOK_S),
            (LoopingCall(self._safely, self._take_shards), SHARDS_S),
            (LoopingCall(self._safely, self._write), WRITE_S),
            (LoopingCall(self._safely, self._prune), PRUNE_S),
        ]
        self._unsubscribe: list[Callable[[], None]] = []
        self._under_way: set[Deferred[None]] = set()

    async def start(self) -> None:
        """Take the shards that are free, and begin with what they have missed."""
        self._read_pos = await self._db.position(fresh=True)
        self._unsubscribe = [
            self._feed.subscribe(CHANNEL, lambda pos: self._look()),
            self._bus.subscribe(HEARD_CHANNEL, lambda name: self._heard_here(name.decode())),
        ]
        self._db.on_invalidate(destinations.RETRY_NOW, self._retry_here, None)
        await self._shards.look()
        for loop, interval in self._loops:
            loop.clock = self._clock
            start_ticking(loop, interval)
        self._look()

    async def stop(self) -> None:
        """Break off what is under way, write how far the destinations are."""
        self._stopped = True
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        for work in [*self._under_way, *([self._working] if self._working else [])]:
            await _end_of(work)
        await self._schedule.stop()
        try:
            await self._progress.write(self._live, self._read_pos, idle_too=True)
            await self._shards.stop()
        except Exception as error:
            _log.warning("What other servers have is not written down", reason=str(error))

    @property
    def pending(self) -> int:
        """Destinations that have not got everything, as far as this process knows."""
        return sum(destination.has_work for destination in self._destinations.values())

    @property
    def unreachable(self) -> int:
        """Destinations that are left alone for a while."""
        return sum(each.failing_since is not None for each in self._destinations.values())

    def heard_from(self, server_name: str) -> None:
        """A server has made a request that it signed: it is there, try again. Cheap."""
        if shard_of(server_name) in self._live:
            self._heard_here(server_name)
        elif server_name not in self._heard:
            self._heard[server_name] = True
            self._bus.publish(HEARD_CHANNEL, server_name.encode())

    def put_volatile(self, servers: Collection[str], kind: str, key: object, body: bytes) -> None:
        """Tell servers what is not in the log: see `federation.sender.live.Emit`."""
        for name in servers:
            destination = self._destination(name, self._live)
            if destination is not None:
                destination.put_volatile(kind, key, body)
                self._schedule.wake(destination)

    # Reading the log

    def _look(self) -> None:
        """See what is new, now or once the look that is under way is over."""
        if self._stopped:
            return
        if self._working is not None:
            self._again = True
            return
        self._working = Deferred()
        Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        try:
            while True:
                self._again = False
                await self._read_new()
                if not self._again or self._stopped:
                    break
        except Exception as error:
            _log.warning("The log cannot be read for other servers", reason=str(error))
        finally:
            working, self._working = self._working, None
            assert working is not None
            working.callback(None)

    async def _read_new(self) -> None:
        new = self._shards.held - self._live
        if new:
            await self._adopt(new)
        upto = await self._db.position()
        if not self._live:
            self._read_pos = max(self._read_pos, upto)
        while self._read_pos < upto and not self._stopped:
            news = await self._db.read(self._reader.read, Reading(self._read_pos, upto))
            self._fan_out(news.dispatches, dict.fromkeys(self._live, 0))
            for name in news.to_device:
                self._has_messages(name, news.upto, self._live)
            self._read_pos = news.upto

    async def _adopt(self, new: set[int]) -> None:
        """Begin to serve shards: with what their destinations have missed so far."""
        upto = self._read_pos
        positions, rows, waiting = await self._db.read(_load, new, upto)
        self._progress.loaded(positions)
        for row in rows:
            self._restore(row)
        after = min(positions.values())
        while after < upto:
            news = await self._db.read(self._reader.read, Reading(after, upto))
            self._fan_out(news.dispatches, positions)
            after = news.upto
        for name in waiting:
            self._has_messages(name, upto, new)
        self._live |= new & self._shards.held
        for shard in new - self._live:
            self._lost(shard)  # another process took it meanwhile

    def _restore(self, row: DestinationRow) -> None:
        if row.server_name in self._destinations:
            return  # the last attempt to begin was broken off
        destination = self._destinations[row.server_name] = Destination(row.server_name)
        destination.behind = True
        destination.loaded = row.pos
        destination.failing_since = row.failing_since
        destination.retry_at = row.retry_at
        destination.interval = row.retry_interval
        destination.written = row
        destination.apart_rows = True
        if row.failing_since is None:
            self._progress.changed(destination)
            self._schedule.wake(destination)
        else:
            self._schedule.later(destination)

    def _fan_out(self, dispatches: Iterable[Dispatch], after: dict[int, int]) -> None:
        """Queue news for the destinations of these shards, each from its position on."""
        for each in dispatches:
            item = Item(each.pos, each.body)
            apart = Item(each.pos, each.body, apart=True) if each.apart else item
            for name in each.servers:
                destination = self._destination(name, after)
                if destination is None or each.pos <= after[destination.shard]:
                    continue
                own = apart if name in each.apart else item
                if destination.behind or not destination.put(own, is_edu=each.is_edu):
                    if own.apart:
                        self._progress.note_apart(destination, [own.pos])
                    continue
                self._progress.changed(destination)
                if not destination.running:
                    self._schedule.wake(destination)

    def _has_messages(self, name: str, upto: int, shards: Collection[int]) -> None:
        destination = self._destination(name, shards)
        if destination is not None:
            destination.to_device_upto = upto
            self._progress.changed(destination)
            self._schedule.wake(destination)

    def _destination(self, name: str, shards: Collection[int]) -> Destination | None:
        """The destination, if it is in one of the shards."""
        destination = self._destinations.get(name)
        if destination is None:
            if name == self._server_name or shard_of(name) not in shards:
                return None
            destination = self._destinations[name] = Destination(name)
        return destination if destination.shard in shards else None

    def _heard_here(self, name: str) -> None:
        destination = self._destinations.get(name)
        if destination is not None and destination.failing_since is not None:
            self._schedule.heard_from(destination)
            self._progress.changed(destination)

    def _retry_here(self, name: str) -> None:
        """An administrator wants a server to be tried again."""
        destination = self._destinations.get(name)
        if not self._stopped and destination is not None and destination.failing_since is not None:
            self._schedule.retry(destination)
            self._progress.changed(destination)

    # Shards and positions

    async def _take_shards(self) -> None:
        await self._shards.look()
        if self._shards.held - self._live:
            self._look()

    async def _give_up(self, shards: Collection[int]) -> None:
        await self._progress.write(self._live, self._read_pos, idle_too=True)
        for shard in shards:
            self._lost(shard)

    def _lost(self, shard: int) -> None:
        self._live.discard(shard)
        for name in [each.name for each in self._destinations.values() if each.shard == shard]:
            destination = self._destinations.pop(name)
            self._schedule.forget(destination)
            self._progress.forget(destination)

    async def _write(self) -> None:
        now = self._clock.seconds()
        idle_too = now >= self._next_idle_write
        if idle_too:
            self._next_idle_write = now + IDLE_EVERY_S
        free = await self._progress.write(self._live, self._read_pos, idle_too=idle_too)
        for destination in free:
            self._destinations.pop(destination.name, None)

    async def _prune(self) -> None:
        before = int(self._clock.seconds() * 1000) - KEEP_UPDATES_MS
        await self._db.write(device_updates.prune, before)
        for name in await self._db.read(outgoing_to_device.crowded):
            if shard_of(name) in self._live:
                messages = await self._db.write(outgoing_to_device.drop_oldest, name)
                if messages:
                    _log.warning("messages for devices given up", server=name, messages=messages)
                    self._dropped(messages)

    def _safely(self, work: Callable[[], Any]) -> Deferred[None]:
        ended: Deferred[None] = Deferred()
        self._under_way.add(ended)

        async def run() -> None:
            try:
                await work()
            except Exception as error:
                _log.warning("Sending to other servers is disturbed", reason=str(error))
            self._under_way.discard(ended)
            ended.callback(None)

        return Deferred.fromCoroutine(run())


def _load(
    txn: Transaction, shards: set[int], upto: int
) -> tuple[dict[int, int], list[DestinationRow], list[str]]:
    return (
        destinations.shard_positions(txn, shards),
        destinations.of_shards(txn, shards),
        outgoing_to_device.destinations(txn, 0, upto),
    )


async def _end_of(work: Deferred[None]) -> None:
    """Wait for what others may wait for too."""
    mine: Deferred[None] = Deferred()

    def ended(result: Any) -> Any:
        mine.callback(None)
        return result

    work.addBoth(ended)
    await mine
