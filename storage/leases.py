"""Work that one process at a time may do: named rows with an owner and an end. Table `leases`.

An owner that dies is replaced when its lease has run out. Times are milliseconds of the caller's
clock: hosts that share a database are expected to agree within a fraction of a lease.

Holding a lease does not stop a process that was suspended past its end. Work that must not be
done twice checks `holds` in the transaction that records it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.ticking import start_ticking
from storage.database import Database
from storage.transaction import Transaction

DURATION_MS = 30_000

_log = structlog.get_logger(__name__)


def claim(
    txn: Transaction, names: Collection[str], owner: str, now: int, duration: int
) -> set[str]:
    """Claim those of `names` that are free, and renew those that `owner` holds; returns them.

    A name that another process is claiming at the same moment is that one's.
    """
    wanted = sorted(set(names))
    if not wanted:
        return set()
    until = now + duration
    condition, args = txn.any_of("name", wanted)
    held = txn.all(
        "WITH free AS MATERIALIZED (SELECT name FROM leases"
        f" WHERE {condition} AND (expires_ts <= ? OR owner = ?){txn.dialect.skip_locked})"
        " UPDATE leases SET owner = ?, expires_ts = ? WHERE name IN (SELECT name FROM free)"
        " RETURNING name",
        (*args, now, owner, owner, until),
    )
    claimed = {name for (name,) in held}
    condition, args = txn.any_of("name", wanted)
    known = {name for (name,) in txn.all(f"SELECT name FROM leases WHERE {condition}", args)}
    for name in wanted:
        if name not in known:
            claimed.update(
                new
                for (new,) in txn.all(
                    "INSERT INTO leases (name, owner, expires_ts) VALUES (?, ?, ?)"
                    " ON CONFLICT (name) DO NOTHING RETURNING name",
                    (name, owner, until),
                )
            )
    return claimed


def renew(
    txn: Transaction, names: Collection[str], owner: str, now: int, duration: int
) -> set[str]:
    """Extend the leases that `owner` still holds, also past their end if nobody took them."""
    condition, args = txn.any_of("name", names)
    return {
        name
        for (name,) in txn.all(
            f"UPDATE leases SET expires_ts = ? WHERE {condition} AND owner = ? RETURNING name",
            (now + duration, *args, owner),
        )
    }


def release(txn: Transaction, names: Collection[str], owner: str) -> None:
    """Give up leases; those of other owners stay."""
    condition, args = txn.any_of("name", names)
    txn.execute(f"DELETE FROM leases WHERE {condition} AND owner = ?", (*args, owner))


def release_all(txn: Transaction, owner: str) -> None:
    """Give up everything that an owner holds."""
    txn.execute("DELETE FROM leases WHERE owner = ?", (owner,))


def holds(txn: Transaction, name: str, owner: str) -> bool:
    """Whether nobody else took the lease; no one can until the end of the transaction."""
    sql = f"SELECT 1 FROM leases WHERE name = ? AND owner = ?{txn.dialect.for_update}"
    return txn.one(sql, (name, owner)) is not None


def owner_of(txn: Transaction, name: str, now: int) -> str | None:
    """Who holds a lease at the moment."""
    owner: str | None = txn.value(
        "SELECT owner FROM leases WHERE name = ? AND expires_ts > ?", (name, now)
    )
    return owner


def taken(txn: Transaction, names: Collection[str], now: int) -> set[str]:
    """Those of the leases that somebody holds at the moment."""
    condition, args = txn.any_of("name", names)
    sql = f"SELECT name FROM leases WHERE {condition} AND expires_ts > ?"
    return {name for (name,) in txn.all(sql, [*args, now])}


def held_by(txn: Transaction, names: Collection[str], owner: str) -> set[str]:
    """`holds` for several: those of the leases that nobody else took."""
    condition, args = txn.any_of("name", names)
    lock = txn.dialect.for_update
    sql = f"SELECT name FROM leases WHERE {condition} AND owner = ? ORDER BY name{lock}"
    return {name for (name,) in txn.all(sql, [*args, owner])}


def held(txn: Transaction, names: Collection[str], now: int) -> set[str]:
    """Those of the leases that somebody holds at the moment."""
    condition, args = txn.any_of("name", names)
    rows = txn.all(f"SELECT name FROM leases WHERE {condition} AND expires_ts > ?", (*args, now))
    return {name for (name,) in rows}


class LeaseKeeper:
    """Claims leases for one owner and renews them in time.

    Parameters: `owner`, unique to the process; `lost(name)`, called when a lease could not be
    renewed before its end or was taken by another owner: the work under it must stop.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        owner: str,
        lost: Callable[[str], object],
        duration: int = DURATION_MS,
    ) -> None:
        self._db = db
        self._clock = clock
        self._owner = owner
        self._lost = lost
        self._duration = duration
        self._until: dict[str, int] = {}
        self._loop = LoopingCall(self._renew_safely)
        self._loop.clock = clock

    @property
    def held(self) -> frozenset[str]:
        """The names of the leases that are held now."""
        now = self._now()
        return frozenset(name for name, until in self._until.items() if until > now)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def claim(self, names: Collection[str]) -> set[str]:
        """Claim leases; those that are free are kept until they are released."""
        now = self._now()
        claimed = await self._db.write(claim, names, self._owner, now, self._duration)
        for name in claimed:
            self._until[name] = now + self._duration
        if self._until and not self._loop.running:
            start_ticking(self._loop, self._duration / 3000)
        return claimed

    async def release(self, names: Collection[str]) -> None:
        """Give up leases, which other processes may claim at once."""
        for name in names:
            self._until.pop(name, None)
        await self._db.write(release, names, self._owner)

    async def stop(self) -> None:
        """Give up all leases."""
        if self._loop.running:
            self._loop.stop()
        await self.release(list(self._until))

    def _renew_safely(self) -> Deferred[None]:
        return ensureDeferred(self._renew())

    async def _renew(self) -> None:
        now = self._now()
        names = list(self._until)
        kept: set[str] = set()
        try:
            kept = await self._db.write(renew, names, self._owner, now, self._duration)
        except Exception as error:
            _log.warning("Leases could not be renewed", reason=str(error))
            now = self._now()
            kept = {name for name in names if self._until.get(name, 0) > now}
        else:
            for name in kept & self._until.keys():
                self._until[name] = now + self._duration
        for name in set(names) - kept:
            if self._until.pop(name, None) is not None:
                self._tell(name)

    def _tell(self, name: str) -> None:
        _log.warning("A lease was lost", lease=name)
        try:
            self._lost(name)
        except Exception:
            _log.exception("The loss of a lease was not handled", lease=name)
