"""The running processes of this server, and noticing that one died. Table `processes`.

Each process writes the time into its row every few seconds. Others judge it by whether the row
changes, on their own clock, so hosts need not agree on the time. Of a process on the same machine
the system tells at once whether it is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from homeserver.ticking import start_ticking
from storage import jobs, leases, push_queue
from storage.database import Database
from storage.machine import Machine
from storage.transaction import Transaction

INTERVAL = 5.0
"""Seconds between two beats."""
DEAD_AFTER = 20.0
"""Seconds without a beat after which a process is taken for dead."""
_SHOWN = 5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """A row; times in milliseconds of the process's own clock.

    `host` is a `storage.machine.Machine`'s name: `pid` means something only there.
    """

    process_id: str
    host: str
    pid: int
    started_ts: int
    last_seen_ts: int


def beat(txn: Transaction, process: Process) -> None:
    """Write a process's row, again if somebody took it for dead."""
    txn.execute(
        "INSERT INTO processes (process_id, host, pid, started_ts, last_seen_ts)"
        " VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (process_id) DO UPDATE SET last_seen_ts = excluded.last_seen_ts",
        (
            process.process_id,
            process.host,
            process.pid,
            process.started_ts,
            process.last_seen_ts,
        ),
    )


def running(txn: Transaction) -> list[Process]:
    """All rows, the longest running first."""
    return [
        Process(*row)
        for row in txn.all(
            "SELECT process_id, host, pid, started_ts, last_seen_ts FROM processes"
            " ORDER BY started_ts, process_id"
        )
    ]


def remove(txn: Transaction, process_id: str) -> None:
    """A process ends: forget it, release its leases, and leave its jobs to others."""
    txn.execute("DELETE FROM processes WHERE process_id = ?", (process_id,))
    _release(txn, process_id)


def bury(txn: Transaction, dead: Process) -> bool:
    """`remove`, unless the process was seen since."""
    buried = txn.execute(
        "DELETE FROM processes WHERE process_id = ? AND last_seen_ts = ?",
        (dead.process_id, dead.last_seen_ts),
    )
    if buried:
        _release(txn, dead.process_id)
    return buried > 0


def is_gone(process: Process, machine: Machine) -> bool:
    """Whether a process is certainly dead: it was here, and its PID is free or another's."""
    return process.host == machine.name and machine.is_gone(process.pid, process.last_seen_ts)


def _release(txn: Transaction, process_id: str) -> None:
    leases.release_all(txn, process_id)
    jobs.release_all(txn, process_id)
    push_queue.release_all(txn, process_id)


class Heartbeat:
    """Keeps this process's row and watches the others'.

    Parameters: `process_id`, the owner of this process's leases and jobs; `died(process_id)`,
    called when another process is gone, in whichever way; `alone`: no other process can be at
    work on this database, so that those in the table are of the past.
    """

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        process_id: str,
        died: Callable[[str], object],
        *,
        alone: bool = False,
        machine: Machine | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._died = died
        self._alone = alone
        self._machine = machine or Machine()
        now = int(clock.seconds() * 1000)
        self._row = Process(process_id, self._machine.name, self._machine.pid, now, now)
        # Others' last row, and when it was first seen here.
        self._others: dict[str, tuple[Process, float]] = {}
        self._loop = LoopingCall(self._beat_safely)
        self._loop.clock = clock

    async def start(self) -> None:
        """Register, and take over from processes of the past. Raises StorageError."""
        dead = await self._db.write(_start, self._row, self._machine, self._alone)
        _tell("Processes of the past ended without a word", dead)
        await self.beat()
        start_ticking(self._loop, INTERVAL)

    async def stop(self) -> None:
        """Unregister, and release the leases of this process."""
        if self._loop.running:
            self._loop.stop()
        await self._db.write(remove, self._row.process_id)

    async def beat(self) -> None:
        """Write this process's row, look at the others'. Raises StorageError."""
        row = self._row
        now = self._clock.seconds()
        row = Process(row.process_id, row.host, row.pid, row.started_ts, int(now * 1000))
        rows = await self._db.write(_beat_and_look, row)
        others = {other.process_id: other for other in rows if other.process_id != row.process_id}
        gone = [process_id for process_id in self._others if process_id not in others]
        dead = []
        for process_id, other in others.items():
            seen = self._others.get(process_id)
            is_silent = seen is not None and seen[0] == other and now - seen[1] >= DEAD_AFTER
            if is_silent or is_gone(other, self._machine):
                if await self._db.write(bury, other):
                    dead.append(other)
                    gone.append(process_id)
            elif seen is None or seen[0] != other:
                self._others[process_id] = (other, now)
        _tell("Processes died", dead)
        for process_id in gone:
            self._others.pop(process_id, None)
            try:
                self._died(process_id)
            except Exception:
                _log.exception("The end of a process was not handled", process=process_id)

    def _beat_safely(self) -> Deferred[None]:
        return ensureDeferred(self._try_to_beat())

    async def _try_to_beat(self) -> None:
        try:
            await self.beat()
        except Exception as error:
            _log.warning("The heartbeat could not be written", reason=str(error))


def _tell(message: str, dead: list[Process]) -> None:
    if dead:
        some = [
            f"{each.process_id} (PID {each.pid}, {each.host.partition(' ')[0]})"
            for each in dead[:_SHOWN]
        ]
        _log.warning(message, processes=len(dead), some=some)


def _start(txn: Transaction, row: Process, machine: Machine, alone: bool) -> list[Process]:
    """Register a process; the others that are dead, which are buried."""
    others = [other for other in running(txn) if other.process_id != row.process_id]
    dead = [other for other in others if (alone or is_gone(other, machine)) and bury(txn, other)]
    beat(txn, row)
    return dead


def _beat_and_look(txn: Transaction, row: Process) -> list[Process]:
    beat(txn, row)
    return running(txn)
