"""Draws the plots of a run as one SVG, side by side."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from bench.results import Results
from bench.scenario import SYSTEMS, Plot, Scenario

WIDTH, HEIGHT = 470, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 46, 48
COLOURS: Final = {"nginx": "#767676", "natural": "#b45309", "sqlite": "#0e7490", "postgres": "#6d28d9"}
DASHES: Final = {"nginx": "2 3", "natural": "7 4", "sqlite": "", "postgres": ""}
LEGEND = 26


def svg(results: Results, scenarios: Sequence[Scenario]) -> str:
    """Each scenario that has a plot and was measured, as lines over logarithmic axes."""
    plots = [(each, each.plot) for each in scenarios if each.plot and each.name in results.values]
    width, height = WIDTH * max(len(plots), 1), HEIGHT + LEGEND
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="11" fill="#1f2328">'
    )
    lines = [head, f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for number, (scenario, plot) in enumerate(plots):
        lines += [f'<g transform="translate({number * WIDTH} 0)">', *_panel(results, scenario, plot), "</g>"]
    return "\n".join([*lines, *_legend(), "</svg>", ""])


def _panel(results: Results, scenario: Scenario, plot: Plot) -> Iterator[str]:
    lines = {system: _points(results, scenario, system) for system in SYSTEMS}
    xs = [float(name) for name in results.values[scenario.name]]
    ys = [y for points in lines.values() for _, y in points]
    x_axis = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    y_axis = _Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP, whole_decades=True)
    yield f'<text x="{LEFT}" y="22" font-size="13" font-weight="600">{escape(plot.y)}</text>'
    for value in y_axis.decades():
        y = y_axis.place(value)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d8dee4"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,g}</text>'
    for x in xs:
        yield f'<text x="{x_axis.place(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,g}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(plot.x)}</text>'
    for system, points in lines.items():
        placed = [(x_axis.place(x), y_axis.place(y)) for x, y in points]
        if placed:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            yield f'<path d="M{path}" fill="none" {_stroke(system)}/>'
            yield from (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[system]}"/>' for x, y in placed
            )


def _points(results: Results, scenario: Scenario, system: str) -> list[tuple[float, float]]:
    figures = [(float(name), results.figure(scenario.name, name, system)) for name in scenario.metrics]
    return [(x, y) for x, y in figures if y]


def _legend() -> Iterator[str]:
    for number, (system, title) in enumerate(SYSTEMS.items()):
        x, y = LEFT + number * 150, HEIGHT + LEGEND / 2
        yield f'<path d="M{x} {y}h26" {_stroke(system)}/>'
        yield f'<text x="{x + 32}" y="{y + 4}">{escape(title)}</text>'


def _stroke(system: str) -> str:
    return f'stroke="{COLOURS[system]}" stroke-width="2" stroke-dasharray="{DASHES[system]}"'


class _Axis:
    """Logarithmic: places a value between two pixels."""

    def __init__(
        self, low: float, high: float, first: float, last: float, *, whole_decades: bool = False
    ) -> None:
        self._low, self._high = math.log10(low), math.log10(high)
        if whole_decades:
            self._low, self._high = math.floor(self._low), math.ceil(self._high)
        self._high = max(self._high, self._low + 0.1)
        self._first, self._last = first, last

    def place(self, value: float) -> float:
        part = (math.log10(value) - self._low) / (self._high - self._low)
        return self._first + part * (self._last - self._first)

    def decades(self) -> Iterator[float]:
        for power in range(math.ceil(self._low), math.floor(self._high) + 1):
            yield 10.0**power
