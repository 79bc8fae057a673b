"""The report: Markdown, and the plots that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.benchmark import figures, plots, wording
from scripts.benchmark.figures import HEARTH, SYNAPSE, Metric, Operation, Spread, Workload
from scripts.benchmark.svg import number
from scripts.benchmark.workloads import WORKLOADS

_BUSY_LOADGEN = 0.9
"""Of a core, from which on the load generator may have held up the servers."""
_BUSY_OTHERS = 0.3
"""Cores busy with other things, from which on wall times are not to be trusted."""


def file_name(document: dict[str, Any]) -> str:
    """Of the Markdown file."""
    return f"{document['database']}.md"


def write(document: dict[str, Any], directory: Path) -> None:
    """Write report and plots into a directory that there is."""
    for name, content in render(document).items():
        (directory / name).write_text(content, "utf-8")


def render(document: dict[str, Any]) -> dict[str, str]:
    """The files by name; the same document gives the same bytes."""
    found = figures.workloads(document)
    files: dict[str, str] = {}
    parts = [wording.head(document), *_failures(document)]
    parts += _summary(document, found, files)
    for workload in found:
        parts += _section(document, workload, files)
    parts += wording.method(document)
    files[file_name(document)] = "\n\n".join(parts) + "\n"
    return files


def _failures(document: dict[str, Any]) -> list[str]:
    failed = figures.failures(document)
    if not failed:
        return []
    return ["**Not everything could be measured:**", "\n".join(f"- {each}" for each in failed)]


def times(spread: Spread | None) -> str:
    """Hearth's part of Synapse's, below 1/2 as a fraction."""
    if spread is None:
        return "–"
    if 0 < spread.median <= 0.5:
        text = f"1/{number(1 / spread.median)}"
        if spread.count > 1:
            text += f" (1/{number(1 / spread.high)} – 1/{number(1 / max(spread.low, 1e-9))})"
        return text
    return cell(spread)


def cell(spread: Spread | None) -> str:
    """The median, and the extremes if there were rounds."""
    if spread is None:
        return "–"
    if spread.count == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)} – {number(spread.high)})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of Markdown; the first `left` columns are texts."""
    rule = ["---" if at < left else "---:" for at in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(each.replace("|", "\\|") for each in line) + " |"
                     for line in lines)  # fmt: skip


def _inverse(spread: Spread) -> Spread:
    return Spread(1 / spread.median, 1 / spread.high, 1 / spread.low, spread.count)


def _plot(files: dict[str, str], document: dict[str, Any], name: str, alt: str, svg: str) -> str:
    file = f"{document['database']}-{name}.svg"
    files[file] = svg
    return f"![{alt}]({file})"


def _summary(
    document: dict[str, Any], found: Sequence[Workload], files: dict[str, str]
) -> list[str]:
    operations = [operation for workload in found for operation in workload.operations]
    if SYNAPSE not in document["servers"]:
        return []
    compared = [
        (f"{operation.group}: {operation.title}", operation.cpu.ratio) for operation in operations
    ]
    rows = [(name, _inverse(spread)) for name, spread in compared if spread and spread.low > 0]
    if not rows:
        return []
    tenth = [name for name, spread in rows if spread.median >= 10]
    text = (
        f"Of {len(rows)} operations, Hearth did {len(tenth)} with at most a tenth of the CPU time "
        "that Synapse took, server and database together: for what keeps one core busy under "
        "Hearth, Synapse needs so many cores as the bars below tell. Rates are what this machine "
        "gave, load generator and all."
    )
    title = "CPU time that Synapse took, in times of Hearth's"
    plot = _plot(files, document, "cpu", title, plots.ratios(title, rows))
    header = ["operation", "CPU, ms, Hearth", "Synapse", "Hearth / Synapse"]
    header += ["rate, 1/s, Hearth", "Synapse", "Hearth / Synapse"]
    lines = []
    for operation in operations:
        cells = [f"{operation.group}: {operation.title}"]
        for metric in (operation.cpu, operation.rate):
            if metric is None:
                cells += ["", "", ""]
            else:
                cells += [cell(metric.spread(kind)) for kind in (HEARTH, SYNAPSE)]
                cells.append(times(metric.ratio))
        lines.append(cells)
    return ["## In short", text, plot, table(header, lines)]


def _section(document: dict[str, Any], workload: Workload, files: dict[str, str]) -> list[str]:
    known = WORKLOADS.get(workload.name)
    parts = [f"## {known.title if known else workload.name}"]
    parts += [f"{wording.ABOUT[workload.name]}"] if workload.name in wording.ABOUT else []
    if workload.notes:
        parts.append("\n".join(f"- {note}" for note in workload.notes))
    rows = [row for operation in workload.operations for row in _rows(operation)]
    rows += [_row(value.title, replace(value, title="")) for value in workload.values]
    if rows:
        header = ["operation", "figure", "Hearth", "Synapse", "Hearth / Synapse"]
        parts.append(table(header, rows, left=2))
    timed = [operation for operation in workload.operations if operation.latency_ms]
    if timed:
        title = f"{parts[0][3:]}: latencies"
        plot = plots.latencies(title, timed)
        parts.append(_plot(files, document, f"{workload.name}-latency", title, plot))
    parts += _series(document, workload, files)
    parts += _doubts(workload)
    return parts


def _rows(operation: Operation) -> list[list[str]]:
    rows = [_row(operation.title, operation.cpu)]
    if operation.rate is not None:
        rows.append(_row("", operation.rate))
    for fraction, title in ((0.5, "latency, median"), (0.99, "latency, 99th percentile")):
        if fraction in operation.latencies:
            metric = operation.latencies[fraction]
            rows.append(_row("", Metric(title, "ms", metric.values)))
    return rows


def _row(name: str, metric: Metric) -> list[str]:
    figure = ", ".join(part for part in (metric.title, metric.unit) if part)
    spreads = [cell(metric.spread(kind)) for kind in (HEARTH, SYNAPSE)]
    return [name, figure, *spreads, times(metric.ratio)]


def _series(document: dict[str, Any], workload: Workload, files: dict[str, str]) -> list[str]:
    """Plots of a soak: its points are (messages, MB, MB of the database, p50, p99)."""
    found = {kind: points for kind, points in workload.series("soak").items() if points}
    if not found:
        return []
    parts = []
    for name, title, y_title, at in (
        ("memory", "Memory of the server (PSS) over the soak", "MB", 1),
        ("p99", "99th percentile of latencies over the soak", "ms", 4),
    ):
        chosen = {kind: [(p[0], p[at]) for p in points] for kind, points in found.items()}
        svg = plots.lines(title, "messages sent", y_title, chosen)
        parts.append(_plot(files, document, f"soak-{name}", title, svg))
    return parts


def _doubts(workload: Workload) -> list[str]:
    """What weakens the figures of this workload."""
    lines = []
    for operation in workload.operations:
        for kind, share in operation.loadgen.items():
            if share >= _BUSY_LOADGEN:
                lines.append(
                    f"- {operation.title}: the load generator used {share:.2f} of a core with "
                    f"{plots.TITLES[kind]}, so the rate may be its own."
                )
    shares = [
        (kind, max(operation.others.get(kind, 0.0) for operation in workload.operations))
        for kind in workload.kinds
        if workload.operations
    ]
    busy = [f"{plots.TITLES[kind]} {share:.2f}" for kind, share in shares if share >= _BUSY_OTHERS]
    if busy:
        lines.append(
            "- Cores that were busy with other things meanwhile, at most: "
            f"{', '.join(busy)}. Rates and latencies are worse for it."
        )
    return ["\n".join(lines)] if lines else []
