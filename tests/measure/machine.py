"""CPU time and memory of process trees, from /proc."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    found: list[int] = []
    queue = [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                queue.extend(map(int, children.read_text().split()))
            except OSError:
                continue
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time, with that of the children that have ended."""
    total = 0.0
    for pid in pids:
        try:
            # The process's CPU clock, numbered as by clock_getcpuclockid(3): /proc has hundredths
            # of a second only.
            own = time.clock_gettime((~pid << 3) | 2)
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += own + (int(fields[13]) + int(fields[14])) / _TICK
    return total


def resident_mb(pid: int) -> float:
    """Resident memory."""
    return _status_mb(pid, "VmRSS:")


def forget_peak(pid: int) -> None:
    """Let `peak_mb` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The most resident memory since the start or `forget_peak`."""
    return _status_mb(pid, "VmHWM:")


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no {name}")


async def quiet(used: Callable[[], float], seconds: float = 1.5, share: float = 0.04) -> None:
    """Wait until less than `share` of a core was used for some time; three minutes at most."""
    deadline = time.monotonic() + 180
    since, before = time.monotonic(), used()
    while time.monotonic() < deadline:
        await asyncio.sleep(0.25)
        now, spent = time.monotonic(), used()
        if spent - before > share * max(now - since, 0.25):
            since, before = now, spent
        elif now - since >= seconds:
            return
