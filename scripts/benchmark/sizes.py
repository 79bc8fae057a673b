"""How much every workload does."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Counts, unless a name ends in a unit."""

    room_version: str = "11"
    workload_timeout_s: int = 3600
    """For one turn of one server, what it prepares included."""
    least_s: float = 5.0
    """A closed loop goes on for so long, also when it has done its count: a fast server is not to
    be judged by a blink."""

    senders: int = 50
    send_one: int = 400
    send_many: int = 1000

    process_senders: int = 200
    """For one process and for two: each is to have messages to write together."""

    receivers: int = 1000
    """Clients that wait in `/sync` in one room."""
    fanout_paced: int = 5
    fanout_burst: int = 20

    rooms: int = 500
    room_members: int = 6
    room_messages: int = 8
    initial_syncs: int = 4
    idle_rooms: int = 200
    sync_idle: int = 300
    sync_change: int = 80

    scale: float = 0.2
    """Of the shape of 200 users in 300 rooms of 300 members: each number is multiplied by it."""

    history: int = 2000
    history_page: int = 100

    local_joins: int = 1000
    remote_members: int = 10_000
    """Of the room that another server has, and that is joined over federation."""
    remote_servers: int = 50
    """That these are users of."""

    resolve_state: int = 10_000
    resolve_conflicts: int = 1000
    resolve_times: int = 5

    federation_paced: int = 100
    federation_burst: int = 400
    transactions: int = 40
    transaction_events: int = 50

    longpolls: int = 5000
    longpolls_synapse: int = 1000
    """Fewer, as it is given for each of them; making their users takes it long."""
    soak_events: int = 200_000
    soak_events_synapse: int = 5000
    soak_clients: int = 500
    soak_rooms: int = 50
    soak_rate: float = 250.0
    """Messages a second, if the server keeps up."""
    soak_sample: int = 1000
    """Messages between two readings of memory."""


FULL = Sizes()
QUICK = Sizes(
    workload_timeout_s=600,
    least_s=1.5,
    senders=50,
    send_one=60,
    send_many=200,
    receivers=100,
    fanout_paced=5,
    fanout_burst=10,
    rooms=40,
    room_members=3,
    room_messages=3,
    initial_syncs=3,
    idle_rooms=40,
    sync_idle=60,
    sync_change=20,
    scale=0.05,
    history=300,
    local_joins=100,
    remote_members=1000,
    remote_servers=20,
    resolve_state=2000,
    resolve_conflicts=200,
    resolve_times=3,
    federation_paced=20,
    federation_burst=60,
    transactions=8,
    longpolls=300,
    longpolls_synapse=100,
    soak_events=4000,
    soak_events_synapse=600,
    soak_clients=50,
    soak_rooms=10,
    soak_sample=100,
)


def override(sizes: Sizes, assignments: list[str]) -> Sizes:
    """Apply each `name=value`. Raises ValueError."""
    kinds: dict[str, Any] = {
        field.name: type(getattr(sizes, field.name)) for field in fields(sizes)
    }
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in kinds:
            raise ValueError(f"no such size: {name}; there are {', '.join(kinds)}")
        try:
            changes[name] = kinds[name](value)
        except ValueError:
            raise ValueError(f"{name}={value}: not a number") from None
    return replace(sizes, **changes)
