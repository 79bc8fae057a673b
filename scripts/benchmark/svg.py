"""Drawing SVG that can be read on light and on dark pages; the same data give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"
_STYLE = """
.page { fill: #ffffff; }
text { fill: #1f2328; font: 12px FONT; }
.title { font-size: 14px; font-weight: 600; }
.muted { fill: #59636e; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #d8dee4; stroke-width: 1; }
.mark { stroke: #59636e; stroke-width: 1; stroke-dasharray: 4 3; }
.whisker { stroke: #1f2328; stroke-width: 1; }
.fill-hearth { fill: #c2410c; }
.fill-synapse { fill: #2563eb; }
.line-hearth { stroke: #c2410c; stroke-width: 2; fill: none; }
.line-synapse { stroke: #2563eb; stroke-width: 2; fill: none; }
.wide { stroke-width: 7; }
.dashed { stroke-dasharray: 5 4; }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; }
text { fill: #e6edf3; }
.muted { fill: #9198a1; }
.grid { stroke: #30363d; }
.mark { stroke: #9198a1; }
.whisker { stroke: #e6edf3; }
.fill-hearth { fill: #fb923c; }
.fill-synapse { fill: #7aa2ff; }
.line-hearth { stroke: #fb923c; }
.line-synapse { stroke: #7aa2ff; }
}
""".replace("FONT", _FONT)


def number(value: float) -> str:
    """A number of at most three significant digits, as people write it."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class Drawing:
    """Shapes on a page of so many pixels, described by `title` to those who do not see it."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._size = (width, height)
        self._title = title
        self._shapes: list[str] = []
        self.text(16, 24, title, "title")

    def text(self, x: float, y: float, text: str, classes: str = "") -> None:
        self._shapes.append(f'<text x="{x:.1f}" y="{y:.1f}"{_class(classes)}>{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, classes: str) -> None:
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self._shapes.append(f"<line {ends}{_class(classes)}/>")

    def box(self, x: float, y: float, width: float, height: float, classes: str) -> None:
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}"'
        self._shapes.append(f"<rect {place}{_class(classes)}/>")

    def dot(self, x: float, y: float, radius: float, classes: str) -> None:
        self._shapes.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"{_class(classes)}/>'
        )

    def path(self, points: Sequence[tuple[float, float]], classes: str) -> None:
        """A line through points."""
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polyline points="{text}"{_class(classes)}/>')

    def legend(self, x: float, y: float, kinds: Sequence[tuple[str, str]]) -> None:
        """Which colour is whose: (kind, what it is called)."""
        for kind, title in kinds:
            self.box(x, y - 9, 10, 10, f"fill-{kind}")
            self.text(x + 15, y, title)
            x += 30 + 7 * len(title)

    def render(self) -> str:
        """The whole file."""
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-label={quoteattr(self._title)}>'
        )
        page = f'<rect class="page" width="{width}" height="{height}"/>'
        parts = [head, f"<style>{_STYLE}</style>", page, *self._shapes, "</svg>"]
        return "\n".join(parts) + "\n"


class Scale:
    """From values to pixels along one axis, linear or, with `log`, by decades."""

    def __init__(
        self, low: float, high: float, start: float, end: float, *, log: bool = False
    ) -> None:
        self._log = log
        self.low, self.high = low, high if high > low else low + 1
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self._log:
            value, low, high = (math.log10(max(each, 1e-9)) for each in (value, low, high))
        share = (value - low) / (high - low)
        return self._start + min(1.0, max(0.0, share)) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round values along the axis, so far apart that their numbers have room."""
        if self._log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            decades = math.log10(self.high / self.low)
            apart = abs(self._end - self._start) / decades
            steps = (1, 2, 5) if apart > 235 else (1, 3) if apart > 150 else (1,)
            found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            return [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 2))
        while (self.high - self.low) / step > 6:
            step *= 2 if step * 2 >= (self.high - self.low) / 6 else 5
        first_tick = math.ceil(self.low / step)
        return [step * at for at in range(first_tick, math.floor(self.high / step) + 1)]


def _class(classes: str) -> str:
    return f' class="{classes}"' if classes else ""
