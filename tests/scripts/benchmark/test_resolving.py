"""The fork that both resolvers get."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from twisted.trial.unittest import TestCase

from scripts.benchmark.resolving import by_hearth, fork


class ForkTests(TestCase):
    def test_branches_differ_in_as_much_as_was_asked_for(self) -> None:
        file = Path(self.mktemp())
        for version in ("11", "12"):
            fork.write(file, fork.branches(version, members=30, conflicts=10))
            states = json.loads(file.read_text("utf-8"))["states"]
            one, other = ({(kind, key): name for kind, key, name in each} for each in states)
            self.assertEqual(one.keys(), other.keys())
            differ = {key for key in one if one[key] != other[key]}
            self.assertEqual(len(differ), 10)
            self.assertIn(("m.room.power_levels", ""), differ)

    def test_hearth_resolves_it(self) -> None:
        file = Path(self.mktemp())
        fork.write(file, fork.branches("11", members=30, conflicts=10))
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            by_hearth.main(str(file), "2")
        answer = json.loads(said.getvalue())
        for name in ("ms", "stored_ms", "cold_ms", "first_ms"):
            self.assertEqual(len(answer[name]), 2)
        self.assertEqual(len(answer["digest"]), 64)
