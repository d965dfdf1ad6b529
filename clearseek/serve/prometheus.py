"""Counters, gauges and histograms as Prometheus reads them (text format 0.0.4)."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

Labels = Mapping[str, str]


class Histogram:
    """How many values were at most each of `bounds`, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` times the same value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count


class Page:
    """The text that one scrape is answered with; every name begins with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix, self._lines, self._known = prefix, list[str](), set[str]()

    def value(self, name: str, kind: str, what: str, value: float, labels: Labels) -> None:
        """A counter (its name ends in `_total`) or a gauge."""
        self._head(name, kind, what)
        self._lines.append(f"{self._prefix}{name}{_written(labels)} {value:g}" if value != int(value) else
                           f"{self._prefix}{name}{_written(labels)} {int(value)}")  # fmt: skip

    def histogram(self, name: str, what: str, histogram: Histogram, labels: Labels) -> None:
        """A histogram with its buckets, sum and count."""
        self._head(name, "histogram", what)
        count = 0
        for bound, number in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            count += number
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            self._lines.append(f"{self._prefix}{name}_bucket{_written({**labels, 'le': edge})} {count}")
        self._lines.append(f"{self._prefix}{name}_sum{_written(labels)} {histogram.total:.9g}")
        self._lines.append(f"{self._prefix}{name}_count{_written(labels)} {count}")

    @property
    def text(self) -> str:
        """All of it. Lines of one name stand together, as the format wants."""
        return "\n".join([*self._lines, ""])

    def _head(self, name: str, kind: str, what: str) -> None:
        if name not in self._known:
            self._known.add(name)
            self._lines += [f"# HELP {self._prefix}{name} {what}", f"# TYPE {self._prefix}{name} {kind}"]


def _written(labels: Labels) -> str:
    pairs: Iterable[str] = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
