"""Resolves a fork with Hearth's resolver: `python -m scripts.benchmark.resolving.by_hearth FILE N`.

Prints JSON: the CPU milliseconds of each of N times, and a digest of the state that came out.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from homeserver.core import state_res
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS


def main(file: str, times: str) -> None:
    """Each time begins with states and parsed events, and nothing else known."""
    document = json.loads(Path(file).read_bytes())
    version = ROOM_VERSIONS[document["version"]]
    states = [{(kind, key): name for kind, key, name in each} for each in document["states"]]
    found: list[float] = []
    resolved: Mapping[tuple[str, str], str] = {}
    for _ in range(int(times)):
        events = {
            name: Event.from_pdu(pdu, version, name) for name, pdu in document["events"].items()
        }

        def many(names: Collection[str], events: dict[str, Event] = events) -> dict[str, Event]:
            return {name: events[name] for name in names if name in events}

        gc.collect()
        began = time.process_time()
        resolved = state_res.resolve(states, events.get, version, get_events=many)
        found.append(1000 * (time.process_time() - began))
    print(json.dumps({"ms": found, "digest": digest(resolved)}))


def digest(state: Mapping[tuple[str, str], str]) -> str:
    """The same for equal states, as `by_synapse` makes it."""
    lines = sorted("\n".join((*key, name)) for key, name in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
