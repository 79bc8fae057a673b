"""What requests cost that carry nothing of ours: `python -m tests.measure.bare CA BYTES NAME …`.

Sends a body to each server twice, the second time over the connections that the first time left,
with the agent that the homeserver has. Prints milliseconds of CPU for a request of each time.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults

from config import from_dict
from federation.client.agent import Agent
from federation.sender.schedule import MAX_HEALTHY
from homeserver.core.ids import ServerName

reactor: Any = installed_reactor


async def main(ca: str, size: int, names: list[str]) -> None:
    options = {"ca_files": [ca], "allowed_ip_ranges": ["127.0.0.0/8"]}
    config = from_dict({"server_name": "bare.example", "federation": options})
    agent = Agent(reactor, config.federation)
    limit = DeferredSemaphore(MAX_HEALTHY)
    body = b'{"pdus":[],"x":"%b"}' % (b"x" * size)
    headers = {"Content-Type": "application/json", "Authorization": "X-Matrix " + "x" * 200}

    async def send(name: str) -> None:
        await limit.acquire()
        try:
            await agent.request(
                "PUT",
                ServerName.parse(name),
                f"/_matrix/federation/v1/send/{time.time_ns()}",
                headers,
                body,
                max_bytes=100_000,
                max_error_bytes=100_000,
            )
        finally:
            limit.release()

    await send(names[0])
    for _ in range(2):
        began = time.process_time()
        await gatherResults([Deferred.fromCoroutine(send(name)) for name in names])
        print((time.process_time() - began) * 1000 / len(names), flush=True)
    # Closing is of no interest.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    task.react(lambda _: Deferred.fromCoroutine(main(*arguments)))
