"""Result files as the benchmark writes them, made by hand."""

from __future__ import annotations

from typing import Any

from scripts.benchmark.phases import QUANTILES


def phase(name: str = "send.one", **changes: Any) -> dict[str, Any]:
    """100 messages in 2 seconds, for 0.4 s of CPU; latencies of 1 to 16 ms."""
    found = {
        "name": name,
        "title": "one sender",
        "unit": "message",
        "rate": True,
        "operations": 100,
        "wall_s": 2.0,
        "server_cpu_s": 0.3,
        "database_cpu_s": 0.1,
        "loadgen_cpu_s": 0.2,
        "others_cores": 0.0,
        "stolen_cores": 0.0,
        "latency_ms": [float(at + 1) for at in range(len(QUANTILES))],
    }
    return found | changes


def run(server: str, number: int = 1, workload: str = "send", **changes: Any) -> dict[str, Any]:
    """One turn of a server."""
    found = {
        "workload": workload,
        "server": server,
        "round": number,
        "status": "ok",
        "seconds": 3.0,
        "phases": [phase()],
        "values": [],
        "series": {},
        "notes": [],
    }
    return found | changes


def document(*runs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A result file."""
    found = {
        "format": 1,
        "started": "2026-11-23T08:00:00+00:00",
        "preset": "quick",
        "rounds": 1,
        "database": "postgres",
        "sizes": {"senders": 50},
        "machine": {
            "cpu": "A processor",
            "cores": 2,
            "memory_gib": 8.0,
            "kernel": "6.1",
            "python": "3.11.7",
            "load_average": [0.1, 0.2, 0.3],
        },
        "servers": {"hearth": "0.1.0", "synapse": "1.2.3"},
        "libraries": {"twisted": "26.10.0"},
        "runs": list(runs),
    }
    return found | changes
