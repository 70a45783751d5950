"""Line charts as SVG that takes its colours from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 28, 36
NUM_COLOURS = 10


@dataclass(frozen=True)
class Series:
    """A line: points (x, y) in order, None for a gap; ``deviations`` (one a point, or none) become a band.

    ``colour`` is a number; colours repeat, dashed, after `NUM_COLOURS`. ``reference``: a dashed line without markers.
    """

    name: str
    colour: int
    points: Sequence[tuple[float, float | None]]
    deviations: Sequence[float | None] = ()
    reference: bool = False
    markers: bool = True


def colour_class(number: int) -> str:
    """The style's class for a line's colour."""
    return f"c{number % NUM_COLOURS}" + (" dashed" if number >= NUM_COLOURS else "")


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str = "",
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    marks: Sequence[float] = (),
    logarithmic: bool = False,
) -> str:
    """An SVG element. ``marks``: places on the x axis with a vertical line. ``y_range``: default from the data.

    ``logarithmic``: values of 0 or less are left out.
    """
    lines = [_positive(line) for line in series] if logarithmic else list(series)
    values = [y for line in lines for _, y in line.points if y is not None]
    places = [x for line in lines for x, _ in line.points]
    if not values:
        values, places = [0.0, 1.0] if not logarithmic else [0.1, 1.0], places or [0.0, 1.0]
    forward: Callable[[float], float] = math.log10 if logarithmic else float
    low, high = y_range or (min(values), max(values))
    if low == high:
        low, high = (low / 2, high * 2) if logarithmic else (low - 0.5, high + 0.5)
    x_low, x_high = min(places), max(places)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5

    def at_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        part = (forward(y) - forward(low)) / (forward(high) - forward(low))
        return HEIGHT - BOTTOM - min(1.05, max(-0.05, part)) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>']
    for tick in _decades(low, high) if logarithmic else _ticks(low, high):
        y = at_y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" text-anchor="end" x="{LEFT - 5}" y="{y + 3.5:.1f}">{tick:.3g}</text>')
    for mark in marks:
        x = at_x(mark)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for tick in _thinned(x_ticks) if x_ticks is not None else _ticks(x_low, x_high):
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{at_x(tick):.1f}" y="{HEIGHT - BOTTOM + 14}">{tick:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" text-anchor="middle" x="{middle}" y="{HEIGHT - 5}">{escape(x_label)}</text>')
    parts.append(f'<text class="label" text-anchor="end" x="{WIDTH - RIGHT}" y="16">{escape(y_label)}</text>')
    for line in lines:
        parts.append(_draw(line, at_x, at_y))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _draw(line: Series, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> str:
    colour, parts = colour_class(line.colour), []
    runs: list[list[int]] = [[]]
    for i, (_, y) in enumerate(line.points):
        if y is None:
            runs.append([])
        else:
            runs[-1].append(i)
    for run in filter(None, runs):
        points = [line.points[i] for i in run]
        spread = [line.deviations[i] if line.deviations else None for i in run]
        if any(spread):
            upper = [(x, y + (d or 0)) for (x, y), d in zip(points, spread, strict=True)]
            lower = [(x, y - (d or 0)) for (x, y), d in zip(points, spread, strict=True)]
            outline = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in [*upper, *reversed(lower)])
            parts.append(f'<polygon class="band {colour}" points="{outline}"/>')
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line {colour}{" reference" if line.reference else ""}" points="{path}"/>')
        if line.markers or len(points) == 1:
            for (x, y), deviation in zip(points, spread, strict=True):
                text = f"{line.name}: {y:.4g}" + (f" ± {deviation:.2g}" if deviation is not None else "")
                parts.append(
                    f'<circle class="dot {colour}" cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3">'
                    f"<title>{escape(text)}</title></circle>"
                )
    return "".join(parts)


def _positive(line: Series) -> Series:
    points = [(x, y if y is not None and y > 0 else None) for x, y in line.points]
    return Series(line.name, line.colour, points, (), line.reference, line.markers)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between ``low`` and ``high``."""
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between ``low`` and ``high``; where they are few, 2 and 5 times them too, or else both ends."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high) + 1e-9) + 1)
    for factors in ((1,), (1, 2, 5)):
        ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) > 2:
            return ticks
    return ticks if len(ticks) == 2 else [low, high]


def _thinned(ticks: Sequence[float]) -> Sequence[float]:
    """Few enough to stand side by side."""
    return ticks[:: max(1, math.ceil(len(ticks) / 12))]
