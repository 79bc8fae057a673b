"""Installing Synapse for the tests with it: bounded in time, and not twice."""

from __future__ import annotations

import venv
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from scripts import interop


class InstallTest(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.made = 0

    def _pip(self, script: str) -> None:
        """Virtual environments that are made have this in place of their Python."""

        def create(directory: Path, **_: Any) -> None:
            self.made += 1
            python = directory / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
            python.chmod(0o755)

        self.patch(venv, "create", create)

    def test_installed_once(self) -> None:
        self._pip("exit 0")
        python = self.directory / "bin" / "python"
        self.assertEqual(interop.install(self.directory), (python, "Installed Synapse."))
        self.assertEqual(interop.install(self.directory), (python, ""))
        self.assertEqual(self.made, 1)

    def test_refused(self) -> None:
        self._pip("echo no such index >&2; exit 1")
        python, said = interop.install(self.directory)
        self.assertIsNone(python)
        self.assertIn("no such index", said)
        # It is tried again the next time.
        self._pip("exit 0")
        self.assertIsNotNone(interop.install(self.directory)[0])

    def test_no_answer(self) -> None:
        self.patch(interop, "INDEX_TIMEOUT_S", 0.1)
        self._pip("exec sleep 100")
        python, said = interop.install(self.directory)
        self.assertIsNone(python)
        self.assertIn("within 0.1 seconds", said)
