"""Resolves a fork with Hearth's resolver: `python -m scripts.benchmark.resolving.by_hearth FILE N`.

Prints JSON: the CPU milliseconds of each of N times, and a digest of the state that came out. As
`stored_ms` and `cold_ms` what it takes as a server does it, from a database (SQLite), reading
included: with what is kept of state trees and auth events in memory, and with empty caches. The
latter as `first_ms` if the room's state was never resolved before.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from homeserver.core import canonical, state_res
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from scripts.benchmark.resolving.stored import StoredFork, opened


def main(file: str, times: str) -> None:
    """Each time begins with states, and with events as resolvers are given them: read from
    their text, as the other resolver's are. Nothing else is known."""
    document = json.loads(Path(file).read_bytes())
    version = ROOM_VERSIONS[document["version"]]
    states = [{(kind, key): name for kind, key, name in each} for each in document["states"]]
    texts = {name: canonical.encode(pdu) for name, pdu in document["events"].items()}
    found: list[float] = []
    resolved: Mapping[tuple[str, str], str] = {}
    for _ in range(int(times)):
        events = {name: Event.for_rules(text, version, name) for name, text in texts.items()}
        gc.collect()
        began = time.process_time()
        resolved = state_res.resolve(states, events.get, version)
        found.append(1000 * (time.process_time() - began))
    answer = {"ms": found, "digest": digest(resolved)}
    with TemporaryDirectory() as directory, opened(f"sqlite:///{directory}/fork.db") as session:
        stored = StoredFork(session, states, events, version)
        answer["first_ms"] = stored.milliseconds(int(times), cold=True)
        stored.keep()
        answer["cold_ms"] = stored.milliseconds(int(times), cold=True)
        answer["stored_ms"] = stored.milliseconds(int(times), cold=False)
        if digest(stored.resolve()) != answer["digest"]:
            raise RuntimeError("from the database something else comes out")
    print(json.dumps(answer))


def digest(state: Mapping[tuple[str, str], str]) -> str:
    """The same for equal states, as `by_synapse` makes it."""
    lines = sorted("\n".join((*key, name)) for key, name in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
