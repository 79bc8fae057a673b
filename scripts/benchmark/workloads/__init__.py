"""The workloads, in the order in which they run: later ones use what earlier ones made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scripts.benchmark.context import Context
from scripts.benchmark.servers import KINDS, Hearth
from scripts.benchmark.workloads import (
    fanout,
    federation,
    joins,
    many_rooms,
    memory,
    messages,
    processes,
    resolution,
    send,
    shape,
)

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """`run` does one round with one kind of server. `once`: it is long, one round is enough.

    `kinds`: the servers that it is run with.
    """

    title: str
    run: Callable[[Context], Awaitable[None]]
    once: bool = False
    kinds: tuple[str, ...] = tuple(KINDS)


WORKLOADS: dict[str, Workload] = {
    "send": Workload("Sending messages", send.run),
    "fanout": Workload("Fan-out to waiting clients", fanout.run),
    "initial": Workload("First sync", many_rooms.run_initial),
    "incremental": Workload("Later syncs", many_rooms.run_incremental),
    "sliding": Workload("Sliding sync", many_rooms.run_sliding),
    "shape": Workload("First syncs of many at once", shape.run),
    "messages": Workload("Reading history", messages.run),
    "joins": Workload("Joining rooms", joins.run),
    "federation": Workload("Federation", federation.run),
    "resolution": Workload("State resolution", resolution.run),
    "processes": Workload("Two processes", processes.run, kinds=(Hearth.kind,)),
    "memory": Workload("Memory", memory.run_idle, once=True),
    "soak": Workload("A long time of messages", memory.run_soak, once=True),
}
