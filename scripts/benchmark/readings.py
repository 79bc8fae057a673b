"""What processes use of the machine, read from /proc."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.measure.machine import cpu_seconds, tree

__all__ = ["MachineCpu", "cpu_seconds", "describe_machine", "machine_cpu", "pss_mb", "tree"]

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class MachineCpu:
    """Seconds for which the cores of the machine were busy, and that its host kept from it."""

    busy: float
    stolen: float


def machine_cpu() -> MachineCpu:
    """Since the machine started."""
    numbers = Path("/proc/stat").read_text("ascii").split(maxsplit=9)[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, numbers)
    return MachineCpu((user + nice + system + irq + softirq) / _TICK, steal / _TICK)


def pss_mb(pids: Iterable[int]) -> float:
    """Memory of processes in MB (10^6): what several share counts to each with its part."""
    kilobytes = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
        except OSError:
            continue
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024 / 1e6


def describe_machine() -> dict[str, Any]:
    """For the report."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        if line.startswith("model name")
    ]
    memory = int(Path("/proc/meminfo").read_text("ascii").split(maxsplit=2)[1])
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


_LOOP = """
import time
def work():
    found = {}
    for number in range(2000):
        thing = [number]
        found[f"key {number % 50}"] = thing[0] + found.get("key 3", 0)
    return sorted(found.items())
def timed():
    began = time.process_time()
    work()
    return time.process_time() - began
print(min(timed() for _ in range(200)))
"""


def loop_ms(python: str) -> float:
    """CPU time of a fixed loop in an interpreter: builds of one version differ by half.

    Raises CalledProcessError.
    """
    asked = subprocess.run([python, "-c", _LOOP], capture_output=True, text=True, check=True)
    return round(float(asked.stdout) * 1000, 3)
