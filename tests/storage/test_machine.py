"""What the system tells of processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from storage.machine import Machine


class MachineTest(TestCase):
    def test_a_process_that_ended_is_gone(self) -> None:
        now = int(time.time() * 1000)
        machine = Machine()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            self.assertFalse(machine.is_gone(other.pid, now))
            self.assertFalse(machine.is_gone(machine.pid, now))
            other.kill()
        self.assertTrue(machine.is_gone(other.pid, now))

    def test_a_pid_that_belongs_to_a_later_process(self) -> None:
        machine = Machine()
        self.assertTrue(machine.is_gone(machine.pid, int((time.time() - 86_400) * 1000)))

    def test_absurd_pids(self) -> None:
        machine = Machine()
        self.assertFalse(machine.is_gone(2**70, 0))

    def test_a_system_that_tells_nothing(self) -> None:
        directory = self.mktemp()
        Path(directory).mkdir()
        machine = Machine(directory)
        self.assertNotIn(" ", machine.name)
        self.assertFalse(machine.is_gone(2**22 + 1, 0))

    def test_machines_are_told_apart(self) -> None:
        names = []
        for boot in ("one", "two"):
            proc = Path(self.mktemp())
            (proc / "sys/kernel/random").mkdir(parents=True)
            (proc / "sys/kernel/random/boot_id").write_text(boot)
            (proc / "self/ns").mkdir(parents=True)
            (proc / "self/ns/pid").symlink_to("pid:[1]")
            names.append(Machine(str(proc)).name)
        self.assertNotEqual(names[0], names[1])
