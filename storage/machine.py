"""What the operating system tells of the processes beside this one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_SLACK_MS = 10_000
"""The start of a process is known to about a second, and clocks are corrected."""


class Machine:
    """The machine that this process runs on, as far as its PIDs have a meaning.

    `name` is the host's name with what tells apart machines of one name and containers on one
    machine: the boot and the PID namespace. Where the system does not tell these, processes of
    others are never taken for gone.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = Path(proc)
        self.pid = os.getpid()
        host = socket.gethostname()
        try:
            boot = (self._proc / "sys/kernel/random/boot_id").read_text().strip()
            namespace = (self._proc / "self/ns/pid").readlink().name
        except OSError:
            self.name = host
            self._is_known = False
        else:
            self.name = f"{host} {boot} {namespace}"
            self._is_known = True

    def is_gone(self, pid: int, last_seen_ts: int) -> bool:
        """Whether the process that had a PID at a time (ms) has it no more."""
        if not self._is_known:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass
        started = self._started_ms(pid)
        return started is not None and started > last_seen_ts + _SLACK_MS

    def _started_ms(self, pid: int) -> int | None:
        """When a process began, by the clock of now."""
        try:
            # The name of the program may have spaces and brackets.
            fields = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            lines = (self._proc / "stat").read_text().splitlines()
            boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
            return boot * 1000 + int(fields[19]) * 1000 // os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError, StopIteration):
            return None
