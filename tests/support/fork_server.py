"""Processes of Hearth that begin with everything imported, which else is most of their work.

One process for each process of tests imports what `hearth` is made of, and nothing more: no
reactor, no thread, no connection. It forks for each command, and the child goes on as the command
does: a process with its own pid, signals, files and exit status. `python -m homeserver` itself is
run where `tests.support.process` is told to (`imported=False`).
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_MOST = 1 << 20
"""Bytes of a request."""
_SHORT = 64


class ForkedProcess:
    """As much of `subprocess.Popen` as tests use."""

    def __init__(self, pid: int, told: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        _learn(self, 0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; raises subprocess.TimeoutExpired."""
        _learn(self, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("hearth", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _learn(process: ForkedProcess, timeout: float | None) -> None:
    """Learn the exit status of a process, if there is one within `timeout` seconds."""
    if process.returncode is not None:
        return
    process._told.settimeout(timeout)
    try:
        text = process._told.recv(_SHORT)
    except (TimeoutError, BlockingIOError):
        return
    process._told.close()
    if not text:
        raise RuntimeError("The process that forks has ended.")
    process.returncode = int(text)


def spawn(
    arguments: Sequence[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    files: Sequence[int],
) -> ForkedProcess:
    """Run `hearth` with arguments. `files`: the descriptors of stdin, stdout and stderr."""
    request = {"arguments": list(arguments), "cwd": str(cwd or Path.cwd()), "env": dict(env)}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(_server(), [json.dumps(request).encode()], [*files, theirs.fileno()])
    text = ours.recv(_SHORT)
    if not text:
        raise RuntimeError("The process that forks has ended.")
    return ForkedProcess(int(text), ours)


@functools.cache
def _server() -> socket.socket:
    """A connection to the process that forks, which ends when this one does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"},
            pass_fds=[theirs.fileno()],
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


class _Server:
    """The process that forks."""

    def __init__(self, asked: socket.socket) -> None:
        self._asked = asked
        self._running: dict[int, socket.socket] = {}
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wakes, False)

    def serve(self) -> list[str] | None:
        """In each child the arguments of its command; None when nobody asks any more."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakes)
        waiter = select.poll()
        waiter.register(self._asked, select.POLLIN)
        waiter.register(self._woken, select.POLLIN)
        while True:
            for descriptor, _ in waiter.poll():
                if descriptor == self._woken:
                    os.read(self._woken, _MOST)
                    self._tell_who_ended()
                    continue
                text, files, _, _ = socket.recv_fds(self._asked, _MOST, 4)
                if not text:
                    self._end_all()
                    return None
                request = json.loads(text)
                told = socket.socket(fileno=files.pop())
                if (pid := os.fork()) == 0:
                    told.close()
                    self._become(request, files)
                    arguments: list[str] = request["arguments"]
                    return arguments
                for file in files:
                    os.close(file)
                self._running[pid] = told
                told.send(str(pid).encode())

    def _end_all(self) -> None:
        """Whoever asked has ended: nobody else would end what was left running."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)  # not waited for yet, so that it is ours

    def _tell_who_ended(self) -> None:
        for pid, told in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._running[pid]
                with told:
                    try:
                        told.send(str(os.waitstatus_to_exitcode(status)).encode())
                    except BrokenPipeError:
                        pass  # nobody wants to know

    def _become(self, request: dict[str, Any], files: list[int]) -> None:
        """Leave behind what is not the child's own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._asked.close()
        os.close(self._woken)
        os.close(self._wakes)
        for told in self._running.values():
            told.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        command = ["-m", "homeserver", *request["arguments"]]
        sys.orig_argv[:] = [sys.executable, *command]
        sys.argv[:] = [str(_ROOT / "homeserver" / "__main__.py"), *command[2:]]


def _prepare() -> None:
    """Import what commands and servers need."""
    for name in (
        "homeserver.app",
        "homeserver.cli",
        "homeserver.listening",
        "homeserver.server",
        "twisted.internet.default",
    ):
        import_module(name)
    assert "twisted.internet.reactor" not in sys.modules, "each process has its own"
    gc.collect()
    gc.freeze()


def _main() -> None:
    _prepare()
    arguments = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if arguments is not None:
        from homeserver.cli import main

        main(arguments)


if __name__ == "__main__":
    _main()
