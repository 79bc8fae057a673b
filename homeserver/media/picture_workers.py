"""Processes that make pictures smaller: see `homeserver.media.picture_worker`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import structlog

from homeserver.core.errors import limit_exceeded
from homeserver.core.types import JsonObject
from homeserver.media.threads import FileThreads
from homeserver.semaphore import Semaphore

IDLE_S = 120.0
"""Seconds after which a process that has nothing to do is ended."""
WAITING = 100
"""Pictures that may wait for a process."""

_PROGRAM = Path(__file__).with_name("picture_worker.py")
_RETRY_MS = 2000
_log = structlog.get_logger(__name__)


class PictureWorkers:
    """Up to `count` processes, begun when needed; a job may take `timeout_s`."""

    def __init__(self, reactor: Any, count: int, timeout_s: float) -> None:
        self._reactor = reactor
        self._turns = Semaphore(count)
        self._timeout_s = timeout_s
        self._waiting = 0
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._threads = FileThreads(reactor, count)
        self._stopped = False

    async def run(self, job: JsonObject) -> JsonObject:
        """The answer to a job; `{"error": "timeout"}` if there is none in time, and
        `{"error": "crashed"}` if the process ended. Raises MatrixError (429) if too many wait.

        Not to be cancelled.
        """
        if self._waiting >= WAITING:
            raise limit_exceeded(_RETRY_MS)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._answered(job)
        finally:
            self._turns.release()

    async def _answered(self, job: JsonObject) -> JsonObject:
        worker = self._idle.pop() if self._idle else _Worker()
        self._busy.add(worker)
        worker.unwatch()
        timer = self._reactor.callLater(self._timeout_s, worker.expire)
        try:
            answer = await self._threads.run(worker.ask, job)
        finally:
            self._busy.discard(worker)
            if timer.active():
                timer.cancel()
        if answer is not None and worker.is_expired:
            await self._threads.run(worker.end)  # its time was up as it answered
            return answer
        if answer is None:
            await self._threads.run(worker.end)
            error = "timeout" if worker.is_expired else "crashed"
            _log.warning("A picture could not be made smaller", reason=error)
            return {"error": error}
        if self._stopped:
            await self._threads.run(worker.end)
            return answer
        self._idle.append(worker)
        worker.watch(self._reactor.callLater(IDLE_S, self._retire, worker))
        return answer

    def _retire(self, worker: _Worker) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
            self._threads.begin(worker.end)

    async def stop(self) -> None:
        """End all processes, those at work too."""
        self._stopped = True
        for worker in self._busy:
            worker.expire()
        while self._idle:
            worker = self._idle.pop()
            worker.unwatch()
            await self._threads.run(worker.end)
        self._threads.stop()


class _Worker:
    """A process; all but `expire`, `watch` and `unwatch` are called in a thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: Any = None
        self.is_expired = False

    def watch(self, timer: Any) -> None:
        self._timer = timer

    def unwatch(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def expire(self) -> None:
        """End the process at once: its job gets no answer."""
        self.is_expired = True
        if self._process is not None:
            self._process.kill()

    def ask(self, job: JsonObject) -> JsonObject | None:
        """The answer to a job; None if the process has ended."""
        if self.is_expired:
            return None
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
            )
            if self.is_expired:
                self._process.kill()
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            answer = json.loads(line) if line else None
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) else None

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        pass
            self._process.wait()
