"""Plots of a report as inline SVG; colours come from the page's style (classes ``s0``, ``s1``, ...)."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["Line", "Mark", "axes", "curve_plot", "svg", "usage_plot"]

_WIDTH, _HEIGHT = 520.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 16.0, 26.0, 44.0
_BARS = 128


@dataclass(frozen=True, slots=True)
class Line:
    """A curve: points (x, y), x ascending; ``style`` chooses the colour."""

    points: Sequence[tuple[float, float]]
    style: int


@dataclass(frozen=True, slots=True)
class Mark:
    """One point that the plot is about; ``y`` None draws a line at its x."""

    name: str
    x: float
    y: float | None


def curve_plot(lines: Sequence[Line], mark: Mark, *, x_title: str, y_title: str, y_most: float = math.inf) -> str:
    """Curves over a logarithmic x, and one mark; the page names the curves. No y is above ``y_most``."""
    points = [point for line in lines for point in line.points]
    xs = [x for x, _ in points] + [mark.x]
    ys = [y for _, y in points] + ([mark.y] if mark.y is not None else [])
    x_low, x_high = _padded(math.log10(min(xs)), math.log10(max(xs)), 0.05)
    y_least, y_top = _padded(min(ys, default=0.0), max(ys, default=1.0), 0.04)
    ticks_y = _linear_ticks(y_least, min(y_top, y_most))
    y_low, y_high = ticks_y[0], ticks_y[-1]

    def to_x(value: float) -> float:
        return _LEFT + (math.log10(value) - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)

    def to_y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [axes(to_x, to_y, _log_ticks(x_low, x_high), ticks_y, x_title, y_title)]
    for line in lines:
        path = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="line s{line.style}" points="{path}"/>')
        parts += [
            f'<circle class="dot s{line.style}" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="2.8"/>' for x, y in line.points
        ]
    parts.append(_mark(mark, to_x, to_y))
    return svg(parts, f"{y_title} over {x_title}")


def usage_plot(counts_K: npt.NDArray[np.int64]) -> str:
    """How often each code was used, from the most used on, on a logarithmic scale; unused codes are a gap."""
    ranked = np.sort(counts_K)[::-1].astype(np.float64)
    num_bars = min(_BARS, len(ranked))
    edges = np.linspace(0, len(ranked), num_bars + 1).round().astype(int)
    heights = np.array([ranked[a:b].mean() for a, b in pairwise(edges)])
    top = math.log10(1 + max(1.0, heights.max()))
    width, right = 2 * _WIDTH + 24, _RIGHT

    def to_x(value: float) -> float:
        return _LEFT + value / len(ranked) * (width - _LEFT - right)

    def to_y(value: float) -> float:
        return 220 - _BOTTOM - math.log10(1 + value) / top * (220 - _TOP - _BOTTOM)

    powers = [float(10**power) for power in range(12) if math.log10(1 + 10**power) <= top]
    ticks_x = [round(len(ranked) * part / 4) for part in range(5)]
    parts = [axes(to_x, to_y, ticks_x, powers, "codes, the most used first", "times used", width=width, height=220)]
    gap = 0.8 if num_bars > 40 else 2
    for a, b, height in zip(edges, edges[1:], heights):
        if height > 0:
            x, y = to_x(float(a)), to_y(float(height))
            parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{max(0.5, to_x(float(b)) - x - gap):.1f}" '
                         f'height="{220 - _BOTTOM - y:.1f}"/>')  # fmt: skip
    even = float(ranked.sum() / len(ranked))
    if even > 0:
        y = to_y(even)
        parts.append(f'<line class="even" x1="{_LEFT}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{width - right}" y="{y - 6:.1f}" text-anchor="end">if all were used alike</text>'
        )
    return svg(parts, "use of the codebook", width=width, height=220)


def _mark(mark: Mark, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    x, name = to_x(mark.x), html.escape(mark.name)
    if mark.y is None:
        anchor = "end" if x > _WIDTH - 150 else "start"
        shift = -7 if anchor == "end" else 7
        return (
            f'<line class="even" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text class="here" x="{x + shift:.1f}" y="{_TOP + 12}" text-anchor="{anchor}">{name}</text>'
        )
    y = to_y(mark.y)
    is_left = x < _WIDTH - 150
    return (
        f'<circle class="halo" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
        f'<text class="here" x="{x + (13 if is_left else -13):.1f}" y="{y + 5:.1f}" '
        f'text-anchor="{"start" if is_left else "end"}">{name}</text>'
    )


def axes(
    to_x: Callable[[float], float],
    to_y: Callable[[float], float],
    ticks_x: Sequence[float],
    ticks_y: Sequence[float],
    x_title: str,
    y_title: str,
    *,
    width: float = _WIDTH,
    height: float = _HEIGHT,
) -> str:
    """Rules, ticks and titles of both axes; ``to_x`` and ``to_y`` place values on the page."""
    right = width - _RIGHT
    parts = []
    for value in ticks_y:
        y = to_y(value)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in ticks_x:
        x = to_x(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - _BOTTOM + 17}" text-anchor="{_anchor(x, right)}">'
            f"{_short(value)}</text>"
        )
    parts.append(
        f'<text class="title" x="{(_LEFT + right) / 2:.1f}" y="{height - 6}" text-anchor="middle">{x_title}</text>'
    )
    parts.append(f'<text class="title" x="{_LEFT - 38}" y="14">{y_title}</text>')
    return "".join(parts)


def svg(parts: Sequence[str], label: str, *, width: float = _WIDTH, height: float = _HEIGHT) -> str:
    """The parts as one picture; ``label`` is read aloud."""
    return (
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    span = (high - low) or max(abs(high), 1.0) * 0.2
    return low - share * span, high + share * span


def _linear_ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover [low, high], about six of them."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between 10^low and 10^high; fewer where there are many decades."""
    factors = (1, 2, 5) if high - low < 3.2 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    return [
        factor * 10.0**power
        for power in powers
        for factor in factors
        if low <= math.log10(factor * 10.0**power) <= high
    ]


def _anchor(x: float, right: float) -> str:
    """Labels at the right end must not stand over the edge."""
    return "end" if x > right - 12 else "middle"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
