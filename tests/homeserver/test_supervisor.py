"""Several processes under one parent: start, restart, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.process import ROOT, environment

_PARENT = """
import sys
from config.model import Log
from homeserver.supervisor import Supervisor
from homeserver.telemetry.logs import LogOutput, make_logger
commands = [[sys.executable, "-c", sys.argv[2], sys.argv[1], str(n)] for n in range(2)]
sys.exit(Supervisor(commands, make_logger(LogOutput(None), Log()), stop_seconds=5).run())
"""

# A child notes its start and its signals in a directory.
_CHILD = """
import os, pathlib, signal, socket, sys
directory = pathlib.Path(sys.argv[1])
channel = socket.socket(fileno=int(os.environ["HEARTH_PARENT_FD"]))
def end(number, frame):
    (directory / f"{os.getpid()}.ended").write_text(signal.Signals(number).name)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
channel.send(b"r")
(directory / f"{os.getpid()}.{sys.argv[2]}").write_text("")
try:
    channel.recv(1)  # returns when the parent is gone
except ConnectionResetError:
    pass  # it had not read the byte yet
(directory / f"{os.getpid()}.orphan").write_text("")
"""


class SupervisorTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def start(self, child: str = _CHILD) -> subprocess.Popen[str]:
        parent = subprocess.Popen(
            [sys.executable, "-c", _PARENT, str(self.directory), child],
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )

        def clean_up() -> None:
            if parent.poll() is None:
                parent.kill()
            parent.communicate()

        self.addCleanup(clean_up)
        return parent

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} did not happen: {sorted(os.listdir(self.directory))}")
            time.sleep(0.02)

    def pids(self, suffix: str) -> list[int]:
        return sorted(int(path.stem) for path in self.directory.glob(f"*.{suffix}"))

    def both_run(self) -> bool:
        return bool(self.pids("0") and self.pids("1"))

    def test_stop_reaches_the_children(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            parent = self.start()
            self.until(self.both_run, "the start")
            parent.send_signal(number)
            self.assertEqual(parent.wait(60), 0)
            self.assertEqual(self.pids("ended"), sorted(self.pids("0") + self.pids("1")))
            for path in self.directory.iterdir():
                path.unlink()

    def test_a_killed_child_is_started_again(self) -> None:
        parent = self.start()
        self.until(self.both_run, "the start")
        (victim,) = self.pids("0")
        (other,) = self.pids("1")
        os.kill(victim, signal.SIGKILL)
        self.until(lambda: len(self.pids("0")) == 2, "the new start")
        self.assertEqual(self.pids("1"), [other])
        parent.terminate()
        _, said = parent.communicate(timeout=60)
        self.assertEqual(parent.returncode, 0)
        self.assertIn("a process died; starting another", said)
        self.assertIn("SIGKILL", said)

    def test_children_that_cannot_start_end_it_all(self) -> None:
        parent = self.start("import sys; sys.exit(3)")
        self.assertEqual(parent.wait(60), 3)

    def test_children_notice_that_the_parent_is_gone(self) -> None:
        parent = self.start()
        self.until(self.both_run, "the start")
        parent.kill()
        self.until(lambda: len(self.pids("orphan")) == 2, "the end of the children")
