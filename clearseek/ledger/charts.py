"""Line charts as inline SVG: fixed geometry, colours from the style sheet, points kept for the pointer."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

_WIDTH, _HEIGHT = 440, 196
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 28
_MOST_POINTS = 160


@dataclass(frozen=True)
class Series:
    """One line; `color` is a number from 1 that the style sheet knows, `marks` are single points on it."""

    name: str
    color: int
    points: Sequence[Point]
    marks: Sequence[Point] = ()


@dataclass(frozen=True)
class Chart:
    """A drawn chart with its title, a sentence on how to read it, and what its legend lists."""

    title: str
    note: str
    svg: str
    series: list[Series]


def line_chart(
    title: str,
    note: str,
    series: Sequence[Series],
    share: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Chart | None:
    """Draws the series over steps; None without points.

    `share` writes values from 0 to 1 as per cent; `floor` and `ceiling` widen the range that is shown.
    """
    kept = [clean for each in series if (clean := _finite(each)).points or clean.marks]
    everything = [point for each in kept for point in (*each.points, *each.marks)]
    if len(everything) < 2:
        return None
    frame = _Frame.around(everything, floor, ceiling)
    parts = [_grid(frame, share), *(_line(each, frame) for each in kept)]
    label = html.escape(f"{title}: " + "; ".join(_in_words(each, share) for each in kept))
    data = html.escape(json.dumps([_data(each, frame, share) for each in kept], ensure_ascii=False))
    svg = (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}" '
        f'data-series="{data}">{"".join(parts)}</svg>'
    )
    return Chart(title, note, svg, kept)


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    bottom: float
    top: float
    ticks: list[float]

    @classmethod
    def around(cls, points: Sequence[Point], floor: float | None, ceiling: float | None) -> "_Frame":
        xs, ys = [x for x, _ in points], [y for _, y in points]
        low = min(ys) if floor is None else min(floor, *ys)
        high = max(ys) if ceiling is None else max(ceiling, *ys)
        ticks = nice_ticks(low, high)
        left, right = min(xs), max(xs)
        return cls(left, right if right > left else left + 1, ticks[0], ticks[-1], ticks)

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers in even steps from at most `low` to at least `high`."""
    if not high > low:
        low, high = low - abs(low) * 0.5 - 1e-9, high + abs(high) * 0.5 + 1e-9
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def smooth(points: Sequence[Point]) -> list[Point]:
    """The mean around every point, over about a twelfth of them; fewer towards the ends, so nothing lags."""
    out = []
    for place, (x, _) in enumerate(points):
        reach = min(len(points) // 24, place, len(points) - 1 - place)
        around = [y for _, y in points[place - reach : place + reach + 1]]
        out.append((x, sum(around) / len(around)))
    return out


def thin(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most `most` points, each the mean of its neighbours; the last point stays itself."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most - 1))
    buckets = [points[start : start + size] for start in range(0, len(points) - 1, size)]
    means = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in buckets]
    return [*means, points[-1]]


def _finite(series: Series) -> Series:
    points = [point for point in series.points if math.isfinite(point[1])]
    marks = [point for point in series.marks if math.isfinite(point[1])]
    return Series(series.name, series.color, points, marks)


def _grid(frame: _Frame, share: bool) -> str:
    parts = []
    for value in frame.ticks:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        label = _tick(value, frame, share)
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 3.5}" text-anchor="end">{label}</text>')
    bottom = _HEIGHT - 8
    parts.append(f'<text class="tick" x="{_LEFT}" y="{bottom}">step {frame.left:g}</text>')
    parts.append(
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{bottom}" text-anchor="end">{frame.right:g}</text>'
    )
    return "".join(parts)


def _line(series: Series, frame: _Frame) -> str:
    smoothed = thin(smooth(series.points))
    parts = []
    if len(series.points) > 20:
        parts.append(f'<path class="raw c{series.color}" d="{_path(thin(series.points), frame)}"/>')
        parts.append(f'<path class="line c{series.color}" d="{_path(smoothed, frame)}"/>')
    elif series.points:
        parts.append(f'<path class="line c{series.color}" d="{_path(series.points, frame)}"/>')
    for x, y in series.marks:
        parts.append(f'<circle class="mark c{series.color}" cx="{frame.x(x)}" cy="{frame.y(y)}" r="3.5"/>')
    return "".join(parts)


def _path(points: Sequence[Point], frame: _Frame) -> str:
    return "M" + "L".join(f"{frame.x(x)} {frame.y(y)}" for x, y in points)


def _data(series: Series, frame: _Frame, share: bool) -> dict[str, object]:
    """What the pointer shows: place in the drawing, step and value in words."""
    shown = thin(series.points) or list(series.marks)
    points = [[frame.x(x), frame.y(y), f"step {x:.0f}", precise(y, share)] for x, y in shown]
    return {"name": series.name, "color": series.color, "points": points}


def _tick(value: float, frame: _Frame, share: bool) -> str:
    if not share:
        return f"{value:.4g}"
    step = 100 * (frame.ticks[1] - frame.ticks[0])
    return f"{100 * value:.{0 if step >= 1 else 1 if step >= 0.1 else 2}f}\u00a0%"


def precise(value: float, share: bool) -> str:
    """A value with more digits than the axis has."""
    return f"{100 * value:.1f}\u00a0%" if share else f"{value:.4g}"


def _in_words(series: Series, share: bool) -> str:
    points = smooth(series.points) or list(series.marks)
    return f"{series.name} from {precise(points[0][1], share)} to {precise(points[-1][1], share)}"
