"""Statistics over the rounds of result files."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from scripts.benchmark import figures, wording
from scripts.benchmark.figures import Spread, Workload, ratio
from scripts.benchmark.phases import quantile
from scripts.benchmark.workloads.memory import slope
from tests.scripts.benchmark.documents import document, phase, run


class StatisticsTests(TestCase):
    def test_spread(self) -> None:
        self.assertEqual(Spread.of([3.0, 1.0, 2.0]), Spread(2.0, 1.0, 3.0, 3))
        self.assertEqual(Spread.of([1.0, 2.0]).median, 1.5)

    def test_ratio_is_of_the_turns_of_one_round(self) -> None:
        # The machine was ten times slower in the second round: for both.
        self.assertEqual(ratio([1.0, 10.0], [4.0, 40.0]), Spread(0.25, 0.25, 0.25, 2))
        self.assertEqual(ratio([1.0], [0.0]), None)
        self.assertEqual(ratio([], [2.0]), None)

    def test_quantile_is_the_nearest_rank(self) -> None:
        ordered = [float(value) for value in range(1, 101)]
        self.assertEqual([quantile(ordered, at) for at in (0, 0.5, 0.99, 1)], [1, 50, 99, 100])
        self.assertEqual(quantile([7.0], 0.99), 7)

    def test_slope(self) -> None:
        self.assertAlmostEqual(slope([(0, 100), (1000, 102), (2000, 104)]), 0.002)
        self.assertEqual(slope([(1, 5)]), 0)


class ResultTests(TestCase):
    def test_figures_of_an_operation(self) -> None:
        slow = [phase(server_cpu_s=3.0, database_cpu_s=1.0, wall_s=20.0)]
        workload = Workload("send", [run("hearth"), run("synapse", phases=slow)])
        (operation,) = workload.operations
        self.assertEqual(operation.cpu.values, {"hearth": [4.0], "synapse": [40.0]})
        assert operation.cpu.ratio is not None and operation.rate is not None
        self.assertAlmostEqual(operation.cpu.ratio.median, 0.1)
        self.assertEqual(operation.rate.values, {"hearth": [50.0], "synapse": [5.0]})
        self.assertEqual(operation.latencies[0.5].values["hearth"], [8.0])
        self.assertEqual(operation.loadgen, {"hearth": 0.1, "synapse": 0.01})

    def test_rounds(self) -> None:
        runs = [
            run("hearth", number, phases=[phase(server_cpu_s=cpu, database_cpu_s=0.0)])
            for number, cpu in enumerate((0.1, 0.3, 0.2), 1)
        ]
        (operation,) = Workload("send", runs).operations
        spread = operation.cpu.spread("hearth")
        assert spread is not None
        self.assertEqual((round(spread.median, 9), spread.low, spread.high), (2.0, 1.0, 3.0))

    def test_failures(self) -> None:
        found = figures.failures(document(run("hearth"), run("synapse", status="failed: why")))
        self.assertEqual(found, ["send with synapse, round 1: failed: why"])

    def test_of_a_workload_in_several_files_the_last_counts(self) -> None:
        first = document(run("hearth", notes=["first"]), run("hearth", workload="joins"))
        second = document(run("hearth", notes=["second"]))
        merged = figures.merge([first, second])
        self.assertEqual(
            [(each["workload"], each["notes"]) for each in merged["runs"]],
            [("send", ["second"]), ("joins", [])],
        )

    def test_of_a_workload_measured_apart_its_sizes_are_told(self) -> None:
        first = document(run("hearth", workload="soak"), sizes={"senders": 50, "soak_rate": 300.0})
        second = document(run("hearth"), sizes={"senders": 50, "soak_rate": 250.0})
        merged = figures.merge([first, second])
        self.assertEqual(merged["other_sizes"], {"soak": {"soak_rate": 300.0}})
        self.assertEqual(
            figures.merge([second, first])["other_sizes"], {"send": {"soak_rate": 250.0}}
        )
        text = "\n".join(wording.method(merged))
        self.assertIn("Of soak, which was measured apart: `soak_rate 300.0`", text)
        again = figures.merge([merged, document(sizes={"senders": 50, "soak_rate": 200.0})])
        self.assertEqual(
            again["other_sizes"], {"send": {"soak_rate": 250.0}, "soak": {"soak_rate": 300.0}}
        )
