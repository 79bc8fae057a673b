"""Resolves a fork with Synapse's resolver: `SYNAPSE-PYTHON by_synapse.py FILE N`.

Prints the same as `by_hearth`, and as `store_ms` how much of it went into what stands in for
Synapse's database: events in memory, and their auth chains. Stands alone: it is run by an
interpreter that has Synapse and not Hearth.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import synapse.handlers.message  # type: ignore[import-not-found]  # noqa: F401  # ends a circle of imports
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS  # type: ignore[import-not-found]
from synapse.events import make_event_from_dict  # type: ignore[import-not-found]
from synapse.state import v2  # type: ignore[import-not-found]
from synapse.storage.databases.main.event_federation import (  # type: ignore[import-not-found]
    StateDifference,
)


class Store:
    """The events in memory. `spent`: seconds of CPU that were used here."""

    def __init__(self, events: dict[str, Any]) -> None:
        self.spent = 0.0
        self._events = events

    async def get_events(self, event_ids: Any, allow_rejected: bool = False) -> dict[str, Any]:
        """As Synapse's store."""
        began = time.process_time()
        found = {name: self._events[name] for name in event_ids if name in self._events}
        self.spent += time.process_time() - began
        return found

    async def get_auth_chain_difference(
        self, room_id: str, state_sets: list[set[str]], conflicted: Any, additional: Any
    ) -> Any:
        """As Synapse's store: the difference, and in the newest versions the subgraph."""
        began = time.process_time()
        chains = [self._chain(names) for names in state_sets]
        difference: set[str] = set().union(*chains)
        difference -= chains[0].intersection(*chains[1:])
        subgraph: set[str] = set() if conflicted is None else self._between(set(conflicted))
        self.spent += time.process_time() - began
        return StateDifference(difference, subgraph)

    def _chain(self, names: Any) -> set[str]:
        found = set(names)
        waiting = list(found)
        while waiting:
            for auth_id in self._events[waiting.pop()].auth_event_ids():
                if auth_id not in found:
                    found.add(auth_id)
                    waiting.append(auth_id)
        return found

    def _between(self, conflicted: set[str]) -> set[str]:
        """What is on a path of auth events from one of these to another."""
        above: dict[str, list[str]] = {}
        for name in self._chain(conflicted):
            for auth_id in self._events[name].auth_event_ids():
                above.setdefault(auth_id, []).append(name)
        found, waiting = set(conflicted), list(conflicted)
        while waiting:
            for name in above.get(waiting.pop(), ()):
                if name not in found:
                    found.add(name)
                    waiting.append(name)
        return found


class NoClock:
    """A clock that does not wait."""

    async def sleep(self, duration: Any) -> None:
        """Return at once."""


def main(file: str, times: str) -> None:
    """Each time begins with states and parsed events, and nothing else known."""
    document = json.loads(Path(file).read_bytes())
    version = KNOWN_ROOM_VERSIONS[document["version"]]
    states = [{(kind, key): name for kind, key, name in each} for each in document["states"]]
    found: list[float] = []
    in_store: list[float] = []
    resolved: Any = {}
    for _ in range(int(times)):
        events = {
            name: make_event_from_dict(pdu, version) for name, pdu in document["events"].items()
        }
        for event in events.values():
            event.auth_event_ids()
        store = Store(events)
        gc.collect()
        began = time.process_time()
        resolved = asyncio.run(
            v2.resolve_events_with_store(
                NoClock(), document["room_id"], version, states, None, store
            )
        )
        found.append(1000 * (time.process_time() - began))
        in_store.append(1000 * store.spent)
    lines = sorted("\n".join((*key, name)) for key, name in dict(resolved).items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    print(json.dumps({"ms": found, "store_ms": in_store, "digest": digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
