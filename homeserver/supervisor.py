"""`hearth run --processes N`: start N identical processes and keep them running.

The parent does nothing else: it serves no requests and holds no data. Each child has one end of
a socket pair, number `PARENT_FD` in its environment:

- the child writes a byte when it is ready;
- the child stops cleanly when it reads end of file, which means that the parent is gone.

A child that dies is started again, later each time it dies young. If a child ends before any
was ever ready, the configuration or the surroundings are at fault: all stop, with its status.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.telemetry.logs import Logger

PARENT_FD = "HEARTH_PARENT_FD"

_FIRST_DELAY = 0.25
_LONGEST_DELAY = 30.0
_OLD_ENOUGH = 60.0
"""A child that lived this many seconds is started again without delay when it dies."""
_KILL_AFTER = 20.0


@dataclass(slots=True)
class _Child:
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    channel: socket.socket | None = None
    started_at: float = 0.0
    start_again_at: float = 0.0
    deaths: int = 0
    is_ready: bool = False


@dataclass(slots=True)
class Supervisor:
    """Runs `commands`, one child each, until SIGTERM or SIGINT.

    `stop_seconds`: how long children may take to stop before they are killed.
    """

    commands: Sequence[Sequence[str]]
    log: Logger
    stop_seconds: float = 10.0
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _children: list[_Child] = field(default_factory=list, init=False)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector, init=False)
    _received: list[int] = field(default_factory=list, init=False)
    _ever_ready: bool = field(default=False, init=False)
    _kill_at: float | None = field(default=None, init=False)
    _status: int = field(default=0, init=False)

    def run(self) -> int:
        """Returns the exit status: 0 after a clean stop."""
        awake, wake = socket.socketpair()
        for end in (awake, wake):
            end.setblocking(False)
        self._selector.register(awake, selectors.EVENT_READ)
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, self._note_signal) for number in signals}
        old_wake = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        try:
            for command in self.commands:
                child = _Child(list(command))
                self._children.append(child)
                self._start(child)
            while self._kill_at is None or any(child.process for child in self._children):
                self._turn(awake)
        finally:
            signal.set_wakeup_fd(old_wake)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            awake.close()
            wake.close()
        return self._status

    def _note_signal(self, number: int, _frame: object) -> None:
        self._received.append(number)

    def _turn(self, awake: socket.socket) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is awake:
                _drain(awake)
            else:
                self._hear(key.data)
        received, self._received = self._received, []
        for number in received:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(number)
            elif number == signal.SIGHUP:
                self._tell_all(number)
        for child in self._children:
            self._look_after(child)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = float("inf")
            self.log.error("killing processes that do not stop")
            self._tell_all(signal.SIGKILL)

    def _patience(self) -> float | None:
        """Seconds until something has to be done unasked."""
        if self._kill_at is not None:
            return max(0.0, min(self._kill_at - time.monotonic(), 3600.0))
        due = [child.start_again_at for child in self._children if child.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start(self, child: _Child) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        child.process = subprocess.Popen(
            child.command,
            pass_fds=(theirs.fileno(),),
            env={**self.environment, PARENT_FD: str(theirs.fileno())},
            # Control-C reaches the parent only, which passes it on once.
            process_group=0,
        )
        theirs.close()
        child.channel = ours
        child.is_ready = False
        child.started_at = time.monotonic()
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _hear(self, child: _Child) -> None:
        """A child is ready, or has closed its end."""
        channel = child.channel
        if channel is None:
            return
        if channel.recv(16):
            child.is_ready = self._ever_ready = True
        else:
            self._selector.unregister(channel)
            channel.close()
            child.channel = None

    def _look_after(self, child: _Child) -> None:
        if child.process is None:
            if self._kill_at is None and time.monotonic() >= child.start_again_at:
                self._start(child)
            return
        status = child.process.poll()
        if status is None:
            return
        pid, child.process = child.process.pid, None
        if child.channel is not None:
            self._selector.unregister(child.channel)
            child.channel.close()
            child.channel = None
        if self._kill_at is not None:
            self._status = self._status or (0 if status == 0 else 1)
            return
        if not self._ever_ready and not child.is_ready:
            # The child has said why.
            self._status = status if status > 0 else 1
            self._stop(signal.SIGTERM)
            return
        lived = time.monotonic() - child.started_at
        child.deaths = 0 if lived >= _OLD_ENOUGH else child.deaths + 1
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (child.deaths - 1)) if child.deaths else 0
        child.start_again_at = time.monotonic() + delay
        self.log.error(
            "a process died; starting another", pid=pid, status=_status_text(status), in_s=delay
        )

    def _stop(self, number: int) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self.stop_seconds + _KILL_AFTER
        self._tell_all(number)

    def _tell_all(self, number: int) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(number)


def _drain(end: socket.socket) -> None:
    try:
        while end.recv(4096):
            pass
    except BlockingIOError:
        pass


def _status_text(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else str(status)
