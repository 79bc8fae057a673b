"""The report and its plots, of recorded data."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import TestCase

from scripts.benchmark import figures, plots, readings, report
from scripts.benchmark.figures import Spread
from scripts.benchmark.svg import Drawing, Scale, number
from tests.scripts.benchmark.documents import document, phase, run

_SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """What a plot says."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{_SVG}text")]


class ReportTests(TestCase):
    def setUp(self) -> None:
        slow = [phase(server_cpu_s=6.0, database_cpu_s=2.0, wall_s=20.0)]
        self.document = document(run("hearth"), run("synapse", phases=slow))

    def _markdown(self) -> str:
        return report.render(self.document)["postgres.md"]

    def test_table(self) -> None:
        text = self._markdown()
        self.assertIn("| one sender | CPU, ms/message | 4 | 80 | 1/20 |", text)
        self.assertIn("|  | rate, message/s | 50 | 5 | 10 |", text)
        self.assertIn("|  | latency, 99th percentile, ms | 14 | 14 | 1 |", text)
        self.assertIn("Hearth 0.1.0, Synapse 1.2.3", text)
        self.assertIn("| send: one sender | 4 | 80 | 1/20 | 50 | 5 | 10 |", text)
        self.assertIn("Of 1 operations, Hearth did 1 with at most a tenth", text)

    def test_ranges_of_rounds(self) -> None:
        runs = self.document["runs"]
        slower = [phase(server_cpu_s=0.6, database_cpu_s=0.2)]
        runs += [run("hearth", 2, phases=slower), {**runs[1], "round": 2}]
        self.assertIn(
            "| CPU, ms/message | 6 (4 – 8) | 80 (80 – 80) | 1/13.3 (1/10 – 1/20) |",
            self._markdown(),
        )

    def test_the_same_data_give_the_same_bytes(self) -> None:
        self.assertEqual(report.render(self.document), report.render(self.document))

    def test_plots_are_there(self) -> None:
        files = report.render(self.document)
        text = files.pop("postgres.md")
        self.assertEqual(sorted(files), ["postgres-cpu.svg", "postgres-send-latency.svg"])
        for name, svg in files.items():
            self.assertIn(f"]({name})", text)
            self.assertTrue(ElementTree.fromstring(svg).tag.endswith("svg"))
            self.assertIn("prefers-color-scheme: dark", svg)
        self.assertIn("20×", texts(files["postgres-cpu.svg"]))
        self.assertIn("send: one sender", texts(files["postgres-cpu.svg"]))

    def test_failures_are_told(self) -> None:
        self.document["runs"].append(run("hearth", 2, phases=[], status="failed: a | reason"))
        text = self._markdown()
        self.assertIn("**Not everything could be measured:**", text)
        self.assertIn("- send with hearth, round 2: failed: a | reason", text)

    def test_busy_load_generator_is_told(self) -> None:
        self.document["runs"][0]["phases"] = [phase(loadgen_cpu_s=1.9)]
        self.assertIn("the load generator used 0.95 of a core with Hearth", self._markdown())

    def test_busy_machine_is_told(self) -> None:
        self.document["runs"][1]["phases"] = [phase(others_cores=1.2, stolen_cores=0.1)]
        self.assertIn("at most: Synapse 1.30.", self._markdown())

    def test_the_speed_of_the_interpreters_is_told(self) -> None:
        self.assertNotIn("A fixed loop", self._markdown())
        self.document["loop_ms"] = {"hearth": 0.31, "synapse": 0.64}
        self.assertIn("0.31 ms with Hearth's Python and 0.64 ms with Synapse's", self._markdown())
        self.assertGreater(readings.loop_ms(sys.executable), 0)

    def test_hearth_alone(self) -> None:
        alone = document(run("hearth"), servers={"hearth": "0.1.0"}, database="sqlite")
        text = report.render(alone)["sqlite.md"]
        self.assertIn("# Hearth on SQLite", text)
        self.assertIn("| one sender | CPU, ms/message | 4 | – | – |", text)
        self.assertNotIn("In short", text)

    def test_values_and_soak(self) -> None:
        value = {"name": "x", "title": "at | the end", "unit": "MB", "comparable": True}
        series = {"soak": [[1000, 80.0, 20.0, 5.0, 9.0], [2000, 84.0, 20.0, 5.0, 10.0]]}
        runs = [
            run(server, workload="soak", phases=[], values=[{**value, "value": at}], series=series)
            for server, at in (("hearth", 80.0), ("synapse", 160.0))
        ]
        files = report.render(document(*runs))
        self.assertIn("| at \\| the end | MB | 80 | 160 | 1/2 |", files["postgres.md"])
        for each, at in zip(runs, (80.0, 160.0), strict=True):
            each["values"] = [{**value, "value": at, "comparable": False}]
        files = report.render(document(*runs))
        self.assertIn("| at \\| the end | MB | 80 | 160 | – |", files["postgres.md"])
        for name, last in (("memory", "84"), ("p99", "10")):
            svg = files[f"postgres-soak-{name}.svg"]
            self.assertIn(last, texts(svg))

    def test_written_files(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        report.write(self.document, directory)
        self.assertEqual((directory / "postgres.md").read_text("utf-8"), self._markdown())

    def test_fractions(self) -> None:
        for spread, text in (
            (Spread(0.05, 0.04, 0.1, 3), "1/20 (1/10 – 1/25)"),
            (Spread(0.8, 0.8, 0.8, 1), "0.8"),
            (Spread(0.0, 0.0, 0.0, 1), "0"),
            (None, "–"),
        ):
            self.assertEqual(report.times(spread), text)


class PlotTests(TestCase):
    def test_bars_are_as_long_as_the_logarithm(self) -> None:
        svg = plots.ratios(
            "Title", [("ten", Spread(10, 10, 10, 1)), ("100", Spread(100, 9, 99, 2))]
        )
        bars = [
            float(element.attrib["width"])
            for element in ElementTree.fromstring(svg).iter(f"{_SVG}rect")
            if element.attrib["class"].startswith("fill-")
        ]
        self.assertAlmostEqual(bars[1] / bars[0], 2, places=2)

    def test_what_synapse_does_with_less_goes_the_other_way(self) -> None:
        svg = plots.ratios("Title", [("half", Spread(0.5, 0.5, 0.5, 1))])
        self.assertIn('class="fill-synapse"', svg)

    def test_latencies_name_each_operation_once(self) -> None:
        (workload,) = figures.workloads(document(run("hearth"), run("synapse")))
        said = texts(plots.latencies("Latencies", workload.operations))
        self.assertEqual(said.count("one sender"), 1)
        self.assertEqual(said.count("8"), 2)

    def test_texts_are_escaped(self) -> None:
        drawing = Drawing(100, 100, 'a < b & "c"')
        self.assertEqual(texts(drawing.render()), ['a < b & "c"'])

    def test_scales(self) -> None:
        linear = Scale(0, 10, 100, 0)
        self.assertEqual([linear(0), linear(5), linear(20)], [100, 50, 0])
        for pixels, ticks in (
            (500, [1, 2, 5, 10, 20, 50, 100]),
            (320, [1, 3, 10, 30, 100]),
            (100, [1, 10, 100]),
        ):
            log = Scale(1, 100, 0, pixels, log=True)
            self.assertAlmostEqual(log(10), pixels / 2)
            self.assertEqual(log.ticks(), ticks)

    def test_ticks_are_few_and_round(self) -> None:
        for low, high in itertools.product((0,), (0.7, 3, 97, 250, 200_000)):
            ticks = Scale(low, high, 0, 1).ticks()
            self.assertTrue(2 <= len(ticks) <= 8, ticks)

    def test_numbers(self) -> None:
        for value, text in (
            (0, "0"),
            (0.01234, "0.0123"),
            (4.0, "4"),
            (12.345, "12.3"),
            (1234.5, "1,234"),
            (200_000, "200,000"),
        ):
            self.assertEqual(number(value), text)
