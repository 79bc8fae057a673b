"""Runs Synapse's resolver on the fork that `tests.measure.resolving` wrote into a file.

To be run by the Python of an environment with matrix-synapse. The events and the auth chains are
looked up in memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import synapse.handlers.message  # type: ignore[import-not-found]  # noqa: F401  # ends a circle of imports
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS  # type: ignore[import-not-found]
from synapse.events import make_event_from_dict  # type: ignore[import-not-found]
from synapse.state import v2  # type: ignore[import-not-found]
from synapse.storage.databases.main.event_federation import (  # type: ignore[import-not-found]
    StateDifference,
)


class Store:
    """The events in memory, in the shape that the resolver asks for."""

    def __init__(self, events: dict[str, Any]) -> None:
        self._events = events
        self._chains: dict[str, frozenset[str]] = {}

    async def get_events(self, event_ids: Any, allow_rejected: bool = False) -> dict[str, Any]:
        return {name: self._events[name] for name in event_ids if name in self._events}

    async def get_auth_chain_difference(
        self, room_id: str, state_sets: list[set[str]], conflicted: Any, additional: Any
    ) -> Any:
        chains = [self._chain(names) for names in state_sets]
        difference = chains[0].union(*chains) - chains[0].intersection(*chains)
        subgraph = set()
        if conflicted is not None:
            below = self._chain(conflicted)
            above: dict[str, list[str]] = {}
            for name in below:
                for auth_id in self._events[name].auth_event_ids():
                    above.setdefault(auth_id, []).append(name)
            waiting = list(conflicted)
            subgraph = set(waiting)
            while waiting:
                for name in above.get(waiting.pop(), ()):
                    if name not in subgraph:
                        subgraph.add(name)
                        waiting.append(name)
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


class NoClock:
    """A clock that does not wait."""

    async def sleep(self, duration: Any) -> None:
        return None


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        given = json.load(file)
    version = KNOWN_ROOM_VERSIONS[given["version"]]
    states = [{(kind, key): name for kind, key, name in state} for state in given["states"]]
    found, state = [], {}
    for _ in range(given["rounds"]):
        events = {name: make_event_from_dict(pdu, version) for name, pdu in given["events"].items()}
        assert set(events) == {event.event_id for event in events.values()}
        gc.collect()
        gc.disable()
        began = time.process_time()
        state = asyncio.run(
            v2.resolve_events_with_store(
                NoClock(), given["room_id"], version, states, None, Store(events)
            )
        )
        found.append((time.process_time() - began) * 1000)
        gc.enable()
    print(json.dumps({"ms": min(found), "state": [[*key, name] for key, name in state.items()]}))


if __name__ == "__main__":
    main()
