"""Figures out of the rounds of result files: medians, ranges, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from scripts.benchmark.phases import QUANTILES
from scripts.benchmark.workloads import WORKLOADS

HEARTH, SYNAPSE = "hearth", "synapse"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of what the rounds gave, and the extremes."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread | None:
    """What the first have in parts of the second, by round: their turns were close in time.

    None where there is nothing to divide by.
    """
    pairs = [one / other for one, other in zip(ours, theirs) if other]  # noqa: B905
    return Spread.of(pairs) if pairs else None


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of all rounds, by kind of server."""

    title: str
    unit: str
    values: dict[str, list[float]]
    comparable: bool = True

    def spread(self, kind: str) -> Spread | None:
        values = self.values.get(kind)
        return Spread.of(values) if values else None

    @property
    def ratio(self) -> Spread | None:
        """Hearth in parts of Synapse."""
        if not self.comparable:
            return None
        return ratio(self.values.get(HEARTH, []), self.values.get(SYNAPSE, []))


@dataclass(frozen=True, slots=True)
class Operation:
    """A phase of all rounds. `latency_ms`: the median of each of `QUANTILES`, by kind."""

    group: str
    """The workload's name."""
    name: str
    title: str
    unit: str
    cpu: Metric
    """Milliseconds for one operation: of the server, and of its database."""
    rate: Metric | None
    latencies: dict[float, Metric]
    latency_ms: dict[str, list[float]]
    loadgen: dict[str, float]
    """The largest share of a core that the load generator used, by kind."""
    others: dict[str, float]
    """Cores that were busy with other things or kept by the host, by kind."""


class Workload:
    """All rounds of one workload: `runs` of a result file with its name."""

    def __init__(self, name: str, runs: Sequence[dict[str, Any]]) -> None:
        self.name = name
        self.runs = runs
        self.kinds = list(dict.fromkeys(run["server"] for run in runs))
        self.operations = [self._operation(name) for name in self._names("phases")]
        self.values = [self._value(name) for name in self._names("values")]

    def _names(self, what: str) -> list[str]:
        return list(dict.fromkeys(each["name"] for run in self.runs for each in run[what]))

    def _of(self, what: str, name: str) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for run in self.runs:
            mine = [each for each in run[what] if each["name"] == name]
            if mine:
                found.setdefault(run["server"], []).extend(mine)
        return found

    def _operation(self, name: str) -> Operation:
        phases = self._of("phases", name)
        first = next(iter(phases.values()))[0]
        unit = first["unit"]

        def metric(title: str, unit: str, of: Callable[[Any], float]) -> Metric:
            values = {kind: [of(phase) for phase in each] for kind, each in phases.items()}
            return Metric(title, unit, values)

        def cpu(phase: dict[str, Any]) -> float:
            used = float(phase["server_cpu_s"] + phase["database_cpu_s"])
            return 1000 * used / max(1, int(phase["operations"]))

        timed = all(phase["latency_ms"] for each in phases.values() for phase in each)
        latencies: dict[float, Metric] = {}
        curves: dict[str, list[float]] = {}
        if timed:
            for at, fraction in enumerate(QUANTILES):
                found = metric("", "ms", partial(_latency, at))
                latencies[fraction] = found
                for kind, values in found.values.items():
                    curves.setdefault(kind, []).append(statistics.median(values))
        rate = None
        if first["rate"]:
            rate = metric("rate", f"{unit}/s", lambda phase: phase["operations"] / phase["wall_s"])
        return Operation(
            group=self.name,
            name=name,
            title=first["title"],
            unit=unit,
            cpu=metric("CPU", f"ms/{unit}", cpu),
            rate=rate,
            latencies=latencies,
            latency_ms=curves,
            loadgen={
                kind: max(phase["loadgen_cpu_s"] / (phase["wall_s"] or 1) for phase in each)
                for kind, each in phases.items()
            },
            others={
                kind: statistics.mean(
                    phase["others_cores"] + phase["stolen_cores"] for phase in each
                )
                for kind, each in phases.items()
            },
        )

    def _value(self, name: str) -> Metric:
        values = self._of("values", name)
        first = next(iter(values.values()))[0]
        found = {kind: [each["value"] for each in rounds] for kind, rounds in values.items()}
        return Metric(first["title"], first["unit"], found, first["comparable"])

    @property
    def notes(self) -> list[str]:
        """What the workload did, each told once."""
        return list(dict.fromkeys(note for run in self.runs for note in run["notes"]))

    def series(self, name: str) -> dict[str, list[list[float]]]:
        """Points of the last round, by kind."""
        return {run["server"]: run["series"][name] for run in self.runs if name in run["series"]}


def _latency(at: int, phase: dict[str, Any]) -> float:
    return float(phase["latency_ms"][at])


def workloads(document: dict[str, Any]) -> list[Workload]:
    """Those of a result file, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in document["runs"]:
        found.setdefault(run["workload"], []).append(run)
    return [Workload(name, runs) for name, runs in found.items()]


def failures(document: dict[str, Any]) -> list[str]:
    """What failed, and why."""
    return list(
        dict.fromkeys(
            f"{run['workload']} with {run['server']}, round {run['round']}: {run['status']}"
            for run in document["runs"]
            if run["status"] != "ok"
        )
    )


def merge(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One result out of several: the last one, with those workloads of the others it lacks.

    Its `other_sizes` has, by workload, the sizes that were other than those of the last.
    """
    *earlier, last = documents
    runs = list(last["runs"])
    other: dict[str, dict[str, Any]] = dict(last.get("other_sizes", {}))
    for document in reversed(earlier):
        there = {run["workload"] for run in runs}
        new = [run for run in document["runs"] if run["workload"] not in there]
        runs += new
        for name in dict.fromkeys(run["workload"] for run in new):
            sizes = document["sizes"] | document.get("other_sizes", {}).get(name, {})
            if changed := dict(sizes.items() - last["sizes"].items()):
                other[name] = changed
    order = {name: at for at, name in enumerate(WORKLOADS)}
    runs.sort(key=lambda run: order.get(run["workload"], len(order)))
    return {**last, "runs": runs, "other_sizes": other}
