"""Tests leave no server running, whatever they forget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.network import eventually

_ROOT = Path(__file__).resolve().parents[2]
_FORGETFUL = """
import sys
from pathlib import Path
from tests.support.process import ServerProcess
server = ServerProcess(Path(sys.argv[1]))
server.start()
print(server.pid)
"""


class LeftRunningTest(TestCase):
    async def test_a_server_that_nobody_stopped(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", _FORGETFUL, str(Path(self.mktemp()).resolve())],
            capture_output=True,
            text=True,
            cwd=_ROOT,
            timeout=100,
            check=True,
        )
        pid = int(done.stdout)

        await eventually(lambda: not _is_server(pid))


def _is_server(pid: int) -> bool:
    try:
        return "fork_server" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
