"""CPU of one trivial request: `python -m tests.measure.requests [--rounds N] [--tree DIRECTORY]`.

A real server process on SQLite, 16 kept-alive connections over loopback, each sending its next
request when the last is answered. Prints microseconds of the server's CPU (user and system) for
each request, the least of several rounds. With `--tree`, the server of another work tree has its
turns between, for a comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import select
import socket
import tempfile
import time
from pathlib import Path

from tests.measure import machine
from tests.measure.client import MeasuringClient
from tests.support import process
from tests.support.process import ServerProcess

CONNECTIONS = 16
TARGETS = {
    "GET /versions": ("GET", "/_matrix/client/versions"),
    "GET /account/whoami": ("GET", "/_matrix/client/v3/account/whoami"),
    "GET (not found)": ("GET", "/_matrix/client/v3/nothing"),
}


class Load:
    """Requests over connections that are kept."""

    def __init__(self, port: int, token: str) -> None:
        self._token = token
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        for _ in range(CONNECTIONS):
            opened = socket.create_connection(("127.0.0.1", port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[opened.fileno()] = opened
            self._epoll.register(opened.fileno(), select.EPOLLIN)

    def run(self, method: str, path: str, count: int) -> None:
        """Have `count` requests answered."""
        data = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost:8008\r\nUser-Agent: Element/1.11\r\n"
            f"Accept: application/json\r\nAccept-Encoding: gzip, deflate, br\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n"
        ).encode()
        started = answered = 0
        for each in self._sockets.values():
            each.sendall(data)
            started += 1
        while answered < count:
            for number, _ in self._epoll.poll():
                received = self._sockets[number].recv(65536)
                head, _, body = received.partition(b"\r\n\r\n")
                length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                assert received.startswith(b"HTTP/1.1 ") and len(body) == int(length), received
                answered += 1
                if started < count:
                    self._sockets[number].sendall(data)
                    started += 1

    def close(self) -> None:
        self._epoll.close()
        for each in self._sockets.values():
            each.close()


def start(directory: Path, tree: Path) -> ServerProcess:
    """A server of the code in `tree`."""
    # Limits that are never reached are counted all the same.
    plenty = {"per_second": 1_000_000, "burst": 1_000_000}
    limits = {"read": plenty, "write": plenty, "registration": plenty}
    options = {"rate_limits": limits, "log": {"level": "warning"}}
    server = ServerProcess(directory, options)
    process.ROOT = tree
    server.start()
    return server


async def measure(options: argparse.Namespace) -> None:
    least: dict[tuple[str, str], float] = {}
    running: dict[str, tuple[ServerProcess, Load]] = {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            for tree in [process.ROOT, *options.tree]:
                server = start(Path(directory) / str(len(running)), tree.absolute())
                user = await MeasuringClient.register(server.port, "alice")
                running[str(tree)] = server, Load(server.port, user.token)
            for _ in range(options.rounds):
                for name, (server, load) in running.items():
                    for what, (method, path) in TARGETS.items():
                        load.run(method, path, 200)
                        before = machine.cpu_seconds([server.pid])
                        load.run(method, path, options.requests)
                        spent = machine.cpu_seconds([server.pid]) - before
                        spent *= 1e6 / options.requests
                        least[name, what] = min(spent, least.get((name, what), spent))
            for (name, what), spent in least.items():
                print(f"{name}: {what}: {spent:.1f} µs", flush=True)
            if options.hold:
                server, load = next(iter(running.values()))
                print(f"process {server.pid} is kept busy", flush=True)
                until = time.monotonic() + options.hold
                while time.monotonic() < until:
                    load.run(*TARGETS["GET /account/whoami"], 5000)
        finally:
            for server, load in running.values():
                load.close()
                server.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--tree", action="append", default=[], type=Path)
    parser.add_argument("--hold", type=float, default=0, help="seconds of load for a profiler")
    asyncio.run(measure(parser.parse_args()))
