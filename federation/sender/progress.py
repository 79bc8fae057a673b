"""Writes down, every few seconds and in bulk, what the destinations have got.

1. A destination that is served as news comes has no row. Its shard's position says that it has
   everything, or waits for it while a transaction is under way.
2. One that cannot be reached, or is still busy with the same at the next look, gets a row, so
   that the shard's position moves on.
3. A shard that another process took over meanwhile is not written.

What was sent after the last look is sent again after a crash, which does no harm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from federation.sender.destination import Destination
from storage import destinations, leases, outgoing_to_device
from storage.database import Database
from storage.destinations import DestinationRow
from storage.transaction import Transaction

IDLE_EVERY_S = 60.0
"""Seconds between two looks when nothing happened."""


def lease_name(shard: int) -> str:
    """The lease of those who serve a shard."""
    return f"federation:{shard}"


@dataclass(slots=True)
class Batch:
    """What is written in one transaction."""

    shards: dict[int, int] = field(default_factory=dict)
    rows: list[DestinationRow] = field(default_factory=list)
    settled: list[Destination] = field(default_factory=list)
    apart: list[tuple[str, int]] = field(default_factory=list)
    apart_got: list[tuple[str, int]] = field(default_factory=list)
    to_device_got: list[tuple[str, int]] = field(default_factory=list)


class Progress:
    """Used by the sender, which tells it what changed."""

    def __init__(self, db: Database, owner: str) -> None:
        self._db = db
        self._owner = owner
        self._busy: dict[Destination, None] = {}
        self._apart: dict[tuple[str, int], None] = {}
        self._written: dict[int, int] = {}
        self._changed = False

    @property
    def busy(self) -> Collection[Destination]:
        """Destinations that had something to send since the last look."""
        return self._busy.keys()

    def changed(self, destination: Destination) -> None:
        """Something was queued for the destination, or arrived, or did not."""
        self._busy[destination] = None
        self._changed = True

    def note_apart(self, destination: Destination, positions: Iterable[int]) -> None:
        """Events for a destination that is behind, which their rooms do not tell of."""
        for pos in positions:
            self._apart[destination.name, pos] = None
        destination.apart_rows = True
        self.changed(destination)

    def forget(self, destination: Destination) -> None:
        """Another process serves it."""
        self._busy.pop(destination, None)

    def loaded(self, positions: dict[int, int]) -> None:
        """What the table has of these shards."""
        self._written.update(positions)

    async def write(
        self, live: Collection[int], read_pos: int, *, idle_too: bool
    ) -> list[Destination]:
        """Write what changed in the `live` shards; the destinations that need no memory now.

        `idle_too`: also when nothing happened but that the log moved on. Raises StorageError;
        then the next call writes it all.
        """
        if not self._changed and not idle_too:
            return []
        self._changed = False
        batch = self._batch(live, read_pos)
        try:
            held = await self._db.write(_write, batch, self._owner)
        except BaseException:
            self._changed = True
            raise
        return self._wrote(batch, held)

    def _batch(self, live: Collection[int], read_pos: int) -> Batch:
        batch = Batch(shards=dict.fromkeys(live, read_pos))
        for each in self._busy:
            if each.shard not in batch.shards:
                continue
            pos = each.cursor(read_pos)
            if each.failing_since is None and not each.has_work:
                batch.settled.append(each)
            elif (
                each.failing_since is not None or each.behind or each.written or each.held_at == pos
            ):
                row = _row(each, pos)
                if row != each.written:
                    batch.rows.append(row)
            else:
                batch.shards[each.shard] = min(batch.shards[each.shard], pos)
                each.held_at = pos
            if each.apart_rows:
                batch.apart_got.append((each.name, pos))
            if each.to_device_after > each.to_device_deleted:
                batch.to_device_got.append((each.name, each.to_device_after))
        batch.apart = list(self._apart)
        return batch

    def _wrote(self, batch: Batch, held: set[int]) -> list[Destination]:
        for shard in held:
            self._written[shard] = batch.shards[shard]
        for key in batch.apart:
            self._apart.pop(key, None)
        rows = {row.server_name: row for row in batch.rows}
        deleted = dict(batch.to_device_got)
        free = []
        settled = set(batch.settled)
        for each in list(self._busy):
            if each.shard not in held:
                continue
            each.to_device_deleted = max(each.to_device_deleted, deleted.get(each.name, 0))
            if each.name in rows:
                each.written = rows[each.name]
            if each in settled:
                each.written, each.held_at = None, -1
                if not each.has_work and not each.running and each.failing_since is None:
                    del self._busy[each]
                    free.append(each)
            elif (
                each.failing_since is not None
                and each.written is not None
                and not each.running
                and _row(each, each.written.pos) == each.written
            ):
                del self._busy[each]  # until something happens to it
        return free


def _row(each: Destination, pos: int) -> DestinationRow:
    return DestinationRow(
        each.name, each.shard, pos, each.failing_since, each.retry_at, each.interval
    )


def _write(txn: Transaction, batch: Batch, owner: str) -> set[int]:
    """Write a batch as far as it is of shards that are still held; those shards."""
    names = {lease_name(shard): shard for shard in batch.shards}
    held = {names[name] for name in leases.held_by(txn, names, owner)}
    destinations.put_shards(txn, {shard: batch.shards[shard] for shard in held})
    destinations.put(txn, [row for row in batch.rows if row.shard in held])
    gone = [each for each in batch.settled if each.shard in held]
    destinations.delete(txn, [each.name for each in gone if each.written])
    destinations.add_events(txn, batch.apart)
    for name, upto in batch.apart_got:
        destinations.delete_events(txn, name, upto)
    for name, upto in batch.to_device_got:
        outgoing_to_device.delete(txn, name, upto)
    return held
