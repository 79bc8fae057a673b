"""What a change of presence costs a user in many large rooms.

`python -m tests.measure.presence [ROOMS] [MEMBERS] [CHANGES]` prints milliseconds of CPU of the
whole process for each change: of the request that makes it, and of all that follows from it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.trial.unittest import TestCase

from storage.database import sleep
from tests.support.server import TestServer, make_server

reactor: Any = installed_reactor


def _fill(txn: Any, user_id: str, rooms: int, members: int) -> None:
    txn.many(
        "INSERT INTO rooms (room_nid, room_id, version, head_version, depth, extremities,"
        " state_version, notify_total, highlight_total, last_pos, created_ts)"
        " VALUES (?, ?, '12', 1, 1, '[]', 1, 0, 0, 0, 0)",
        ((10**6 + room, f"!r{room}") for room in range(rooms)),
    )
    txn.many(
        "INSERT INTO memberships (room_nid, user_id, membership, event_id, event_nid, sender,"
        " pos, is_local, forgotten) VALUES (?, ?, 'join', '$x', 1, '@x:y', 1, ?, ?)",
        (
            (10**6 + room, user_id if n == 0 else f"@u{n}:hearth.test", True, False)
            for room in range(rooms)
            for n in range(members)
        ),
    )


async def measure(rooms: int, members: int, changes: int) -> None:
    """Print the figures."""
    test = TestCase()
    server: TestServer = await make_server(test)
    alice = await server.register("alice")
    await server.homeserver.db.write(_fill, alice.user_id, rooms, members)
    path = f"/presence/{alice.user_id}/status"

    async def change(n: int) -> None:
        await alice.ok("PUT", path, {"presence": "online", "status_msg": f"at {n}"})

    await change(-1)
    await sleep(reactor, 2.5)
    idle = time.process_time()
    await sleep(reactor, 3.0)
    idle = (time.process_time() - idle) / 3.0
    begin, cpu = time.monotonic(), time.process_time()
    for n in range(changes):
        await change(n)
        await sleep(reactor, 1.05)  # each is followed by a waking of its own
    used = time.process_time() - cpu - idle * (time.monotonic() - begin)
    print(f"{rooms} rooms of {members}: {used / changes * 1000:.2f} ms of CPU for each change")
    await server.homeserver.stop()


def main(_: Any, *arguments: str) -> Deferred[None]:
    numbers = [int(each) for each in arguments] + [500, 1000, 20][len(arguments) :]
    return Deferred.fromCoroutine(measure(*numbers))


if __name__ == "__main__":
    react(main, sys.argv[1:])
