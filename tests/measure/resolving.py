"""What state resolution costs: `python -m tests.measure.resolving [--synapse PYTHON]`.

Two branches of a room with many members, which differ in some of them, and in power levels. CPU in
milliseconds, the least of some rounds: by the algorithm alone, with all events in memory
(`pure`; `reading`, with reading all of them from their texts before), and by two state trees of a
database whose caches are empty (`cold`; `first` if it never resolved the room's state before) or
full (`warm`), without what PostgreSQL itself uses.
With `--synapse`, the Python of a virtual environment that has matrix-synapse, its resolver gets
the same, with all events in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from homeserver.core import state_res
from homeserver.core.event import Event
from homeserver.core.types import StateKey
from scripts.benchmark.resolving import by_synapse_file, fork
from scripts.benchmark.resolving.by_hearth import digest
from scripts.benchmark.resolving.stored import StoredFork, opened
from tests.measure.stores import migrated_postgres, migrated_sqlite

Branches = tuple[dict[StateKey, str], dict[StateKey, str]]


class Fork:
    """A room of `members` members of which two branches differ in `conflicts`."""

    def __init__(self, version: str, members: int, conflicts: int) -> None:
        self.both = fork.branches(version, members, conflicts)
        room = self.both[0]
        self.events = room.events
        self.version = room.version
        self.states: Branches = (self.both[0].state_ids, self.both[1].state_ids)

    def events_again(self) -> dict[str, Event]:
        """The events as they are read from the texts of a database."""
        return {
            name: Event.for_rules(event.to_json(), self.version, name)
            for name, event in self.events.items()
        }


def least(work: Callable[[], object], prepare: Callable[[], object], rounds: int) -> float:
    """Milliseconds of CPU of the process."""
    found = []
    for _ in range(rounds):
        prepare()
        gc.collect()
        gc.disable()
        began = time.process_time()
        work()
        found.append((time.process_time() - began) * 1000)
        gc.enable()
    return min(found)


def pure(forked: Fork, rounds: int, *, parsed: bool) -> float:
    """The algorithm, with a store in memory."""
    events: dict[str, Event] = {}

    def prepare() -> None:
        nonlocal events
        events = forked.events

    def work() -> None:
        nonlocal events
        if not parsed:
            events = forked.events_again()
        state_res.resolve(forked.states, events.get, forked.version)

    return least(work, prepare, rounds)


def stored(forked: Fork, url: str, rounds: int) -> tuple[float, float, float]:
    """By two state trees in a database: for the first time, with empty caches, with full ones."""
    with opened(url) as session:
        fork = StoredFork(session, forked.states, forked.events, forked.version)
        first = fork.milliseconds(rounds, cold=True)
        fork.keep()
        cold = fork.milliseconds(rounds, cold=True)
        return min(first), min(cold), min(fork.milliseconds(rounds, cold=False))


def by_synapse(python: str, forked: Fork, directory: Path, rounds: int) -> float:
    """Synapse's resolver with the same states, in a process of its own."""
    given = directory / "fork.json"
    fork.write(given, forked.both)
    done = subprocess.run(
        [python, str(by_synapse_file()), str(given), str(rounds)],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    ours = state_res.resolve(forked.states, forked.events.get, forked.version)
    assert answer["digest"] == digest(ours), "the results differ"
    return float(min(answer["ms"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", nargs="*", default=["11", "12"])
    parser.add_argument("--conflicts", nargs="*", type=int, default=[10, 1000, 10_000])
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--synapse", metavar="PYTHON")
    options = parser.parse_args()
    databases = {"sqlite": migrated_sqlite, "postgres": migrated_postgres}
    for version in options.versions:
        for conflicts in options.conflicts:
            forked = Fork(version, options.members, conflicts)
            figures = {
                "pure": pure(forked, options.rounds, parsed=True),
                "reading": pure(forked, options.rounds, parsed=False),
            }
            for kind in options.databases.split(","):
                with databases[kind]() as url:
                    first, cold, warm = stored(forked, url, options.rounds)
                figures |= {f"{kind} first": first, f"{kind} cold": cold, f"{kind} warm": warm}
            if options.synapse:
                with tempfile.TemporaryDirectory() as directory:
                    figures["synapse"] = by_synapse(
                        options.synapse, forked, Path(directory), options.rounds
                    )
            text = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(f"version {version:<3} conflicts {conflicts:<6} {text}", flush=True)


if __name__ == "__main__":
    main()
