"""Which shards of the destinations this process serves: leases, shared evenly by processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from twisted.internet.interfaces import IReactorTime

from federation.sender.destination import SHARDS
from federation.sender.progress import lease_name
from storage import leases, processes
from storage.database import Database
from storage.leases import LeaseKeeper
from storage.transaction import Transaction

_SHARD_OF = {lease_name(shard): shard for shard in range(SHARDS)}


class Shards:
    """`lost(shard)`: another process has it; `giving(shards)`: they are about to be given up."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        owner: str,
        lost: Callable[[int], object],
        giving: Callable[[Collection[int]], Awaitable[object]],
    ) -> None:
        self._db = db
        self._clock = clock
        self._owner = owner
        self._giving = giving
        self._keeper = LeaseKeeper(db, clock, owner, lambda name: lost(_SHARD_OF[name]))

    @property
    def held(self) -> set[int]:
        """The shards that this process serves."""
        return {_SHARD_OF[name] for name in self._keeper.held}

    async def look(self) -> None:
        """Claim what is free, give up what is too much. Raises StorageError."""
        now = int(self._clock.seconds() * 1000)
        running, taken = await self._db.read(_look, now)
        share = -(-SHARDS // max(running, 1))
        held = self.held
        if len(held) > share:
            surplus = sorted(held)[share:]
            await self._giving(surplus)
            await self._keeper.release([lease_name(shard) for shard in surplus])
            return
        free = sorted(set(range(SHARDS)) - taken - held)[: share - len(held)]
        if free:
            await self._keeper.claim([lease_name(shard) for shard in free])

    async def stop(self) -> None:
        """Give everything up."""
        await self._keeper.stop()


def _look(txn: Transaction, now: int) -> tuple[int, set[int]]:
    """How many processes run, and which shards are taken."""
    taken = {_SHARD_OF[name] for name in leases.taken(txn, _SHARD_OF, now)}
    return len(processes.running(txn)), taken
