"""What the benchmark found, and what follows from it."""

import dataclasses
import statistics
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.peers import PASSES, Pass, Work
from experiments.benchmark.timing import geometric_mean, paired_ratio


class Timing(NamedTuple):
    """One contender's pass over one work."""

    samples: tuple[float, ...]
    """Seconds, a number a round."""
    share: float
    """Of the rate at which the machine multiplied two large matrices in the same rounds."""
    compile_seconds: float | None
    temporary_bytes: int | None
    total_bytes: int | None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.samples)


class Entry(NamedTuple):
    """One contender's times for one work."""

    title: str
    kind: str
    timings: dict[Pass, Timing]


class Row(NamedTuple):
    """All that was measured of one work."""

    work: Work
    entries: tuple[Entry, ...]
    refused: dict[str, str]
    """Who did not take part, and why."""
    matrix_rate: dict[Pass, float]
    """Operations a second of one large matrix product."""

    def engines(self) -> list[Entry]:
        """This library's entries."""
        return [entry for entry in self.entries if entry.kind == "jaxrnn"]

    def best(self, which: Pass, kinds: Collection[str]) -> Entry | None:
        """The fastest entry of these kinds."""
        found = [entry for entry in self.entries if entry.kind in kinds]
        return min(found, key=lambda entry: entry.timings[which].median, default=None)

    def ratio(self, entry: Entry, which: Pass, kinds: Collection[str]) -> float | None:
        """How many times as fast as the best of these kinds an entry is, round by round."""
        best = self.best(which, kinds)
        if best is None:
            return None
        return paired_ratio(best.timings[which].samples, entry.timings[which].samples)

    def as_json(self) -> dict[str, Any]:
        """The row as plain data: every sample is kept, in microseconds."""
        entries = [
            {"title": entry.title, "kind": entry.kind}
            | {which: _plain(timing) for which, timing in entry.timings.items()}
            for entry in self.entries
        ]
        return {
            "work": dataclasses.asdict(self.work),
            "name": self.work.name,
            "matrix_rate": self.matrix_rate,
            "entries": entries,
            "refused": self.refused,
        }


def _plain(timing: Timing) -> dict[str, Any]:
    fields = timing._asdict() | {"median_seconds": timing.median}
    del fields["samples"]
    return fields | {"samples_microseconds": [round(1e6 * sample, 2) for sample in timing.samples]}


PEERS = ("jax", "torch")


class Line(NamedTuple):
    """One line of the summary."""

    engine: str
    which: Pass
    what: str
    value: float
    """The geometric mean over all rows."""
    least: float | None
    """The lowest of them, and the row where it was found."""
    where: str
    rows: int


Claim = tuple[str, tuple[str, ...], Callable[[Work], bool]]
_CLAIMS: tuple[Claim, ...] = (
    ("× best JAX peer", ("jax",), lambda work: True),
    ("× best JAX peer, LSTM and GRU", ("jax",), lambda work: work.cell in ("lstm", "gru")),
    ("× PyTorch LSTM", ("torch",), lambda work: work.cell == "lstm"),
    ("× PyTorch GRU and RNN", ("torch",), lambda work: work.cell in ("gru", "elman")),
    ("× hoisted by hand", ("by hand",), lambda work: True),
)


def summarise(rows: Sequence[Row]) -> list[Line]:
    """Geometric means and least values of the ratios, engine by engine.

    Also the share of the machine's matrix rate in the row with the most work; and, where the loss
    is on the final state, memory, time and compile time beside those of `Sequential()`.
    """
    titles = dict.fromkeys(entry.title for row in rows for entry in row.engines())
    lines = []
    for title in titles:
        for which in PASSES:
            for what, kinds, fits in _CLAIMS:
                ratios = {
                    row.work.name: ratio
                    for row, entry in _entries(rows, title)
                    if fits(row.work) and (ratio := row.ratio(entry, which, kinds)) is not None
                }
                lines += _line(title, which, what, ratios)
            lines += _largest_share(rows, title, which)
        lines += _beside_sequential(rows, title)
    return lines


def _entries(rows: Sequence[Row], title: str) -> list[tuple[Row, Entry]]:
    return [(row, entry) for row in rows for entry in row.engines() if entry.title == title]


def _line(title: str, which: Pass, what: str, ratios: dict[str, float]) -> list[Line]:
    if not ratios:
        return []
    where = min(ratios, key=ratios.__getitem__)
    mean = geometric_mean(list(ratios.values()))
    return [Line(title, which, what, mean, ratios[where], where, len(ratios))]


def _largest_share(rows: Sequence[Row], title: str, which: Pass) -> list[Line]:
    row, entry = max(_entries(rows, title), key=lambda found: found[0].work.operations(which))
    share = entry.timings[which].share
    return [Line(title, which, "of the matrix rate", share, None, row.work.name, 1)]


def _beside_sequential(rows: Sequence[Row], title: str) -> list[Line]:
    which: Pass = "forward+backward"
    lines, first = [], None
    for row, entry in _entries(rows, title):
        plain = next((other for other in row.engines() if other.title == "Sequential"), None)
        if not row.work.final_only or plain is None or plain is entry:
            continue
        own, other = entry.timings[which], plain.timings[which]
        values = {"× the time of Sequential": paired_ratio(own.samples, other.samples)}
        if own.temporary_bytes and other.temporary_bytes:
            values["× less temporary memory"] = other.temporary_bytes / own.temporary_bytes
        if own.compile_seconds and other.compile_seconds:
            values["× the compile time of Sequential"] = own.compile_seconds / other.compile_seconds
            first = first or own.compile_seconds
            values["× its compile time in the first row"] = own.compile_seconds / first
        lines += [
            Line(title, which, what, value, None, row.work.name, 1)
            for what, value in values.items()
        ]
    return lines
