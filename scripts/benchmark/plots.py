"""The plots of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scripts.benchmark.figures import HEARTH, SYNAPSE, Operation, Spread
from scripts.benchmark.phases import QUANTILES
from scripts.benchmark.svg import Drawing, Scale, number

WIDTH = 900
_LEFT, _RIGHT = 350, 70
TITLES = {HEARTH: "Hearth", SYNAPSE: "Synapse"}


def ratios(title: str, rows: Sequence[tuple[str, Spread]]) -> str:
    """Bars on a logarithmic scale. Each row: what was done, and how many times Hearth's CPU
    Synapse used; above 1 is to the right."""
    top, step = 66, 26
    height = top + step * len(rows) + 16
    drawing = Drawing(WIDTH, height, title)
    low = min([1.0, *(spread.low for _, spread in rows)])
    high = max([10.0, *(spread.high for _, spread in rows)])
    scale = Scale(low, high * 1.05, _LEFT, WIDTH - _RIGHT, log=True)
    for tick in scale.ticks():
        x = scale(tick)
        drawing.line(x, top - 8, x, height - 14, "mark" if tick in (1.0, 10.0) else "grid")
        drawing.text(x, top - 14, f"{number(tick)}×", "muted middle")
    for at, (name, spread) in enumerate(rows):
        y = top + step * at
        one, end = scale(1), scale(spread.median)
        kind = HEARTH if spread.median >= 1 else SYNAPSE
        drawing.box(min(one, end), y, abs(end - one), 16, f"fill-{kind}")
        drawing.text(_LEFT - 12, y + 12, name, "end")
        if spread.count > 1:
            drawing.line(scale(spread.low), y + 8, scale(spread.high), y + 8, "whisker")
        label = max(end, scale(spread.high) if spread.count > 1 else end, one)
        drawing.text(label + 6, y + 12, f"{number(spread.median)}×")
    return drawing.render()


def latencies(title: str, operations: Sequence[Operation]) -> str:
    """How latencies are spread: from the 1st percentile to the 99th, the 10th to the 90th thick,
    a dot at the median; on a logarithmic scale."""
    rows = [
        (operation, kind, curve)
        for operation in operations
        for kind, curve in operation.latency_ms.items()
    ]
    top, step = 66, 20
    height = top + step * len(rows) + 10 * len(operations) + 10
    drawing = Drawing(WIDTH, height, title)
    drawing.legend(WIDTH - 200, 24, list(TITLES.items()))
    at = {fraction: index for index, fraction in enumerate(QUANTILES)}
    low = min(max(curve[at[0.01]], 0.01) for _, _, curve in rows)
    high = max(curve[at[0.99]] for _, _, curve in rows)
    scale = Scale(10.0 ** math.floor(math.log10(low)), high * 1.1, _LEFT, WIDTH - _RIGHT, log=True)
    for tick in scale.ticks():
        x = scale(tick)
        drawing.line(x, top - 8, x, height - 10, "grid")
        drawing.text(x, top - 14, f"{number(tick)} ms", "muted middle")
    y, previous = float(top), ""
    for operation, kind, curve in rows:
        if operation.name != previous:
            y += 10 if previous else 0
            drawing.text(_LEFT - 12, y + 12, operation.title, "end")
            previous = operation.name
        thin = (curve[at[0.01]], curve[at[0.99]])
        thick = (curve[at[0.1]], curve[at[0.9]])
        drawing.line(scale(thin[0]), y + 8, scale(thin[1]), y + 8, f"line-{kind}")
        drawing.line(scale(thick[0]), y + 8, scale(thick[1]), y + 8, f"line-{kind} wide")
        middle = curve[at[0.5]]
        drawing.dot(scale(middle), y + 8, 4.5, "page")
        drawing.dot(scale(middle), y + 8, 3, f"fill-{kind}")
        drawing.text(scale(thin[1]) + 8, y + 12, number(middle), "muted")
        y += step
    return drawing.render()


def lines(
    title: str, x_title: str, y_title: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """Lines of each kind of server over the same axis."""
    left, right, top, bottom, height = 70, 90, 50, 44, 340
    drawing = Drawing(WIDTH, height, title)
    drawing.legend(WIDTH - 200, 24, [(kind, TITLES[kind]) for kind in series])
    points = [point for each in series.values() for point in each]
    x_scale = Scale(0, max(x for x, _ in points), left, WIDTH - right)
    y_scale = Scale(0, max(y for _, y in points) * 1.08, height - bottom, top)
    for tick in y_scale.ticks():
        y = y_scale(tick)
        drawing.line(left, y, WIDTH - right, y, "grid")
        drawing.text(left - 8, y + 4, number(tick), "muted end")
    for tick in x_scale.ticks():
        drawing.text(x_scale(tick), height - bottom + 18, number(tick), "muted middle")
    drawing.text(left - 8, top - 10, y_title, "muted end")
    drawing.text((left + WIDTH - right) / 2, height - 8, x_title, "muted middle")
    for kind, each in series.items():
        drawing.path([(x_scale(x), y_scale(y)) for x, y in each], f"line-{kind}")
        last_x, last_y = each[-1]
        drawing.text(x_scale(last_x) + 6, y_scale(last_y) + 4, number(last_y))
    return drawing.render()
