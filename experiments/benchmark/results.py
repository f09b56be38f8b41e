"""The benchmark's measurements, and the summary computed from them."""

import dataclasses
import statistics
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.peers import GATES, PASSES, Pass, Workload
from experiments.benchmark.timing import paired_ratio

PEER_KINDS = ("jax", "torch", "jax spread")
OWN_KINDS = ("jaxrnn", "jaxrnn spread")


class Timing(NamedTuple):
    """One contender's pass over one workload."""

    samples: tuple[float, ...]  # seconds per call, one number per round
    share: float  # of the rate of a large matrix product, measured in the same rounds
    compile_seconds: float | None
    temporary_bytes: int | None  # in addition to arguments and results
    total_bytes: int | None  # including arguments and results

    @property
    def median(self) -> float:
        """Median seconds per call."""
        return statistics.median(self.samples)

    def as_json(self) -> dict[str, Any]:
        """Plain data; every sample is kept, in microseconds."""
        samples = {"samples_microseconds": [round(1e6 * sample, 2) for sample in self.samples]}
        fields = self._asdict() | {"median_seconds": self.median} | samples
        del fields["samples"]
        return fields


class Entry(NamedTuple):
    """One contender's times for one workload."""

    title: str
    kind: str
    timings: dict[Pass, Timing]


class Row(NamedTuple):
    """All measurements of one workload."""

    workload: Workload
    entries: tuple[Entry, ...]
    refused: dict[str, str]  # reasons by title
    matrix_rate: dict[Pass, float]  # operations per second of one large matrix product

    def engines(self) -> dict[str, Entry]:
        """This library's entries by title."""
        return {entry.title: entry for entry in self.entries if entry.kind in OWN_KINDS}

    def best(self, which: Pass, kinds: Collection[str]) -> Entry | None:
        """The fastest entry of these kinds."""
        found = [entry for entry in self.entries if entry.kind in kinds]
        return min(found, key=lambda entry: entry.timings[which].median, default=None)

    def ratio(self, entry: Entry, which: Pass, kinds: Collection[str]) -> float | None:
        """The median ratio of the time of the best of these kinds to that of an entry."""
        best = self.best(which, kinds)
        if best is None:
            return None
        return paired_ratio(best.timings[which].samples, entry.timings[which].samples)

    def as_json(self) -> dict[str, Any]:
        """The row as plain data."""
        entries = [
            {"title": entry.title, "kind": entry.kind}
            | {which: timing.as_json() for which, timing in entry.timings.items()}
            for entry in self.entries
        ]
        return {
            "work": dataclasses.asdict(self.workload),
            "name": self.workload.name,
            "matrix_rate": self.matrix_rate,
            "entries": entries,
            "refused": self.refused,
        }


class Line(NamedTuple):
    """One line of the summary."""

    engine: str
    which: Pass
    what: str
    where: str  # the workload with the minimum
    value: float  # the geometric mean over all rows
    least: float | None  # the minimum over all rows
    rows: int


_RATIOS: tuple[tuple[str, str, Collection[str]], ...] = (
    ("× best JAX peer", "jax", GATES),
    ("× best JAX peer, LSTM and GRU", "jax", ("lstm", "gru")),
    ("× best JAX peer, a device a core", "jax spread", GATES),
    ("× PyTorch LSTM", "torch", ("lstm",)),
    ("× PyTorch GRU and RNN", "torch", ("gru", "elman")),
    ("× hoisted by hand", "by hand", GATES),
)


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Geometric means and minima of the ratios of each engine to its peers.

    Also the share of the matrix rate in the row with the most operations; and, where the loss is on
    the final state, memory, time and compile time relative to `Sequential()`.
    """
    lines: list[Line] = []
    for title in dict.fromkeys(title for row in rows for title in row.engines()):
        own = [(row, row.engines()[title]) for row in rows if title in row.engines()]
        for which in PASSES:
            for what, kind, cells in _RATIOS:
                ratios = {
                    row.workload.name: ratio
                    for row, entry in own
                    if row.workload.cell in cells and (ratio := row.ratio(entry, which, (kind,)))
                }
                if ratios:
                    where = min(ratios, key=ratios.__getitem__)
                    mean = statistics.geometric_mean(ratios.values())
                    lines.append(Line(title, which, what, where, mean, ratios[where], len(ratios)))
            row, entry = max(own, key=lambda pair, which=which: pair[0].workload.operations(which))
            what, share = "of the matrix rate", entry.timings[which].share
            lines.append(Line(title, which, what, row.workload.name, share, None, 1))
        for what, where, value in _relative_to_sequential(own):
            lines.append(Line(title, "forward+backward", what, where, value, None, 1))
    return lines


def _relative_to_sequential(
    own: Sequence[tuple[Row, Entry]],
) -> Iterator[tuple[str, str, float]]:
    first = None
    for row, entry in own:
        plain, name = row.engines().get("Sequential"), row.workload.name
        if not row.workload.final_only or plain is None or plain is entry:
            continue
        mine, other = (e.timings["forward+backward"] for e in (entry, plain))
        yield "× the time of Sequential", name, paired_ratio(mine.samples, other.samples)
        if mine.temporary_bytes and other.temporary_bytes:
            yield "× less temporary memory", name, other.temporary_bytes / mine.temporary_bytes
        if mine.compile_seconds and other.compile_seconds:
            first = first or mine.compile_seconds
            ratio = mine.compile_seconds / other.compile_seconds
            yield "× the compile time of Sequential", name, ratio
            yield "× its compile time in the first row", name, mine.compile_seconds / first
