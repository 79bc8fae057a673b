"""State resolution: both resolvers, each in its own interpreter, come to the same state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from scripts.benchmark.resolving import by_hearth, by_synapse_file, fork
from tests.interop.case import VERSIONS
from tests.interop.servers import INTEROP
from tests.support.process import ROOT


class ResolutionTests(TestCase):
    skip = None if os.environ.get(INTEROP) else "run by scripts/test --interop"

    def _ask(self, *command: str) -> Any:
        # Trial's workers have a path of modules that are none of the other interpreter's.
        environment = {name: os.environ[name] for name in os.environ.keys() - {"PYTHONPATH"}}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_they_agree(self) -> None:
        for version in VERSIONS[1:]:
            file = Path(self.mktemp()).absolute()
            fork.write(file, fork.branches(version, members=60, conflicts=20))
            ours = self._ask(sys.executable, "-m", by_hearth.__name__, str(file), "1")
            theirs = self._ask(os.environ[INTEROP], str(by_synapse_file()), str(file), "1")
            self.assertEqual(ours["digest"], theirs["digest"], version)
