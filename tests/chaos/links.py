"""The link to a server: TCP connections to its processes in turn, which go wrong as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from random import Random

from tests.support.federated_process import FederatedProcess
from tests.support.services import free_port

KINDS = ("cut", "silent", "deaf", "slow", "resets")
_SIZE = 16_384


class Link:
    """The port of a server's name. `state` is None while it is whole, or one of:

    - cut: open connections end, new ones are refused;
    - silent: nothing comes through, in either direction, and nobody is told;
    - deaf: requests come through, and their answers do not: half of a broken link;
    - slow: each piece waits;
    - resets: connections end in the middle of what they carry.
    """

    def __init__(self, chance: Random) -> None:
        self.port = free_port()
        self.name = f"localhost:{self.port}"
        self.state: str | None = None
        self._chance = chance
        self._processes: Sequence[FederatedProcess] = ()
        self._turn = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def serve(self, processes: Sequence[FederatedProcess]) -> None:
        """Let others in, to these processes."""
        self._processes = processes
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    def spoil(self, kind: str) -> None:
        """Go wrong from now on."""
        self.state = kind
        if kind in ("cut", "resets"):
            self._abort_all()

    def heal(self) -> None:
        """Be whole again; what was stuck on the way is lost."""
        if self.state in ("silent", "deaf"):
            self._abort_all()
        self.state = None

    async def close(self) -> None:
        """End."""
        if self._server is not None:
            self._server.close()
        self._abort_all()

    def _abort_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = None if self.state == "cut" else await self._next()
        if far is None:
            writer.transport.abort()
            return
        far_reader, far_writer = far
        self._open |= {writer, far_writer}
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, "silent"),
                self._pass(far_reader, writer, "silent", "deaf"),
            )
        finally:
            for each in (writer, far_writer):
                each.transport.abort()
                self._open.discard(each)

    async def _next(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._processes:
            self._turn += 1
            process = self._processes[self._turn % len(self._processes)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", process.federation_port)
        return None

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *stuck: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_SIZE):
                if self.state in stuck:
                    continue
                if self.state == "slow":
                    await asyncio.sleep(self._chance.uniform(0.05, 1.5))
                if self.state == "resets" and self._chance.random() < 0.15:
                    break
                sink.write(data)
                await sink.drain()
        sink.transport.abort() if self.state == "resets" else sink.close()
