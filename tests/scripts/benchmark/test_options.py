"""The command line of the benchmark."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.trial.unittest import TestCase

from scripts.benchmark.options import parse
from scripts.benchmark.sizes import FULL, QUICK, override
from scripts.benchmark.workloads import WORKLOADS
from scripts.benchmark.workloads.shape import Shape


class OptionsTests(TestCase):
    def test_without_any(self) -> None:
        options = parse([])
        self.assertEqual(options.sizes, QUICK)
        self.assertEqual(options.workloads, tuple(WORKLOADS))
        self.assertEqual((options.rounds, options.database, options.synapse), (1, "postgres", True))

    def test_all(self) -> None:
        options = parse(
            ["--full", "--only", "soak,send", "--out", "somewhere", "--scale", "0.5"]
            + ["--database", "sqlite", "--no-synapse"]
            + ["--set", "senders=3", "--set", "soak_rate=1.5"]
        )
        # The order is that of the workloads: later ones use what earlier ones made.
        self.assertEqual(options.workloads, ("send", "soak"))
        self.assertEqual((options.rounds, options.out), (3, Path("somewhere")))
        self.assertEqual((options.database, options.synapse), ("sqlite", False))
        sizes = options.sizes
        self.assertEqual((sizes.scale, sizes.senders, sizes.soak_rate), (0.5, 3, 1.5))
        self.assertEqual(sizes.rooms, FULL.rooms)
        self.assertEqual(parse(["--full", "--rounds", "5"]).rounds, 5)

    def test_report_of_files(self) -> None:
        options = parse(["--report", "one.json", "two.json"])
        self.assertEqual(options.report, (Path("one.json"), Path("two.json")))

    def test_mistakes(self) -> None:
        for arguments, told in (
            (["--only", "sned"], "no such workload: sned"),
            (["--scale", "2"], "--scale"),
            (["--scale", "0"], "--scale"),
            (["--rounds", "0"], "--rounds"),
            (["--set", "sender=3"], "no such size: sender"),
            (["--set", "senders=many"], "senders=many"),
            (["--quick", "--full"], "not allowed with"),
        ):
            said = io.StringIO()
            with contextlib.redirect_stderr(said), self.assertRaises(SystemExit):
                parse(arguments)
            self.assertIn(told, said.getvalue())

    def test_sizes_keep_their_types(self) -> None:
        self.assertEqual(override(FULL, ["room_version=12"]).room_version, "12")

    def test_scaled_shape(self) -> None:
        self.assertEqual(Shape.scaled(1), Shape(200, 300, 300))
        self.assertEqual(Shape.scaled(0.1), Shape(20, 30, 30))
        self.assertEqual(Shape.scaled(0.0001), Shape(2, 2, 2))
