"""The workloads, in the order in which they run: later ones use what earlier ones made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scripts.benchmark.context import Context
from scripts.benchmark.workloads import send

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """`run` does one round with one kind of server. `once`: it is long, one round is enough."""

    title: str
    run: Callable[[Context], Awaitable[None]]
    once: bool = False


WORKLOADS: dict[str, Workload] = {
    "send": Workload("Sending messages", send.run),
}
