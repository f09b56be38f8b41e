"""Pairs of sequences: numbers for their symbols, and batches of pairs of much the same length."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

PAD, END, BEGIN, UNKNOWN = range(4)


@dataclass(frozen=True)
class Vocabulary:
    """Numbers for symbols; the first four stand for padding, end, begin, and all others.

    Args:
        symbols: those that are known.

    Example:
        >>> letters = Vocabulary(("a", "b"))
        >>> letters.encode("abc"), letters.decode([5, 4, END, 4])
        ([4, 5, 3], ['b', 'a'])
    """

    symbols: tuple[str, ...]

    @classmethod
    def of(cls, sequences: Iterable[Sequence[str]], least: int = 1) -> "Vocabulary":
        """All symbols that occur so often at least, in alphabetical order."""
        counts = Counter(symbol for sequence in sequences for symbol in sequence)
        return cls(tuple(sorted(symbol for symbol, count in counts.items() if count >= least)))

    def __len__(self) -> int:
        return len(self.symbols) + UNKNOWN + 1

    def encode(self, sequence: Iterable[str]) -> list[int]:
        """The numbers of symbols."""
        return [self._numbers.get(symbol, UNKNOWN) for symbol in sequence]

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The symbols of numbers, up to the first end."""
        symbols = []
        for number in numbers:
            if number == END:
                break
            symbols.append(self.symbols[number - UNKNOWN - 1] if number > UNKNOWN else "<?>")
        return symbols

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {symbol: number for number, symbol in enumerate(self.symbols, UNKNOWN + 1)}


class Pairs(NamedTuple):
    """A batch: numbers `[time, rows]`, filled up with `PAD`.

    Sources end with `END`; targets begin with `BEGIN` and end with `END`.
    """

    source: np.ndarray
    target: np.ndarray


Numbers = Sequence[Sequence[int]]


class Size(NamedTuple):
    """The most symbols that a batch holds of a source, and of a target."""

    source: int
    target: int


def smallest(sizes: Sequence[Size], longest: Any, xp: Any = np) -> Any:
    """Which of `sizes` is the first that holds a source and a target of these lengths.

    Args:
        sizes: each holds all that those before it hold.
        longest: the two lengths, or arrays of them.
        xp: NumPy, or `jax.numpy` for lengths that are traced.
    """
    sides = zip(zip(*sizes, strict=True), longest, strict=True)
    return xp.maximum(*(xp.searchsorted(xp.asarray(most), own) for most, own in sides))


def pad(sources: Numbers, targets: Numbers, size: Size) -> Pairs:
    """Makes a batch of pairs, none of which is longer than `size` on either side."""
    source = np.full((size.source + 1, len(sources)), PAD, np.int32)
    target = np.full((size.target + 2, len(targets)), PAD, np.int32)
    for row, (x, y) in enumerate(zip(sources, targets, strict=True)):
        source[: len(x) + 1, row] = [*x, END]
        target[: len(y) + 2, row] = [BEGIN, *y, END]
    return Pairs(source, target)


@dataclass(frozen=True, eq=False)
class Plan:
    """Which pairs make a batch: always pairs that are alike in length.

    The order is drawn anew for every pass over the data.

    Args:
        lengths: those of both sides of each pair, `[pairs, 2]`.
        rows: pairs of a batch.
        seed: that of the order.
        shares: which part of the pairs each size covers, the last of which is all.
    """

    lengths: np.ndarray
    rows: int
    seed: int
    shares: tuple[float, ...] = (0.3, 0.6, 0.85, 0.97, 1.0)

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The longest source and target of each share, in order of the relatively longer side."""
        order = np.argsort((self.lengths / self.lengths.mean(0)).max(1), kind="stable")
        ends = [int(np.ceil(share * len(order))) for share in self.shares]
        most = [self.lengths[order[:end]].max(0).tolist() for end in ends]
        return tuple(dict.fromkeys(Size(*both) for both in most))

    @property
    def a_pass(self) -> int:
        """How many batches make one pass over the data."""
        return sum(-(-len(group) // self.rows) for group in self._groups)

    def chosen(self, step: int) -> np.ndarray:
        """The numbers of the pairs in the batch of a step; a group's last one has repeats."""
        number, place = divmod(step, self.a_pass)
        return self._order(number)[place]

    @cached_property
    def _groups(self) -> list[np.ndarray]:
        group = smallest(self.sizes, self.lengths.T)
        return [np.flatnonzero(group == number) for number in range(len(self.sizes))]

    @cached_property
    def _order(self) -> Callable[[int], list[np.ndarray]]:
        """The batches of a pass; those of the last few passes are remembered."""
        return lru_cache(maxsize=2)(self._draw)

    def _draw(self, number: int) -> list[np.ndarray]:
        random = np.random.default_rng((self.seed, number))
        batches = []
        for group in self._groups:
            count = -(-len(group) // self.rows)
            shuffled = np.resize(random.permutation(group), count * self.rows)
            batches += list(shuffled.reshape(-1, self.rows))
        random.shuffle(batches)
        return batches


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of training. All have one shape, that of the longest pairs.

    Args:
        sources: numbers of each source.
        targets: numbers of each target.
        rows, seed, shares: see `Plan`; a batch can be cut to one of its `sizes`.
    """

    sources: Numbers
    targets: Numbers
    rows: int
    seed: int
    shares: tuple[float, ...] = Plan.shares

    @cached_property
    def plan(self) -> Plan:
        """Which pairs make which batch."""
        lengths = _lengths(self.sources, self.targets)
        return Plan(lengths, self.rows, self.seed, self.shares)

    def __call__(self, step: int) -> Pairs:
        """The batch of a step."""
        chosen = self.plan.chosen(step)
        return pad(
            [self.sources[i] for i in chosen],
            [self.targets[i] for i in chosen],
            self.plan.sizes[-1],
        )


class Chunk(NamedTuple):
    """Some pairs in a batch of full size; what fills it up is not among `which`."""

    which: np.ndarray
    pairs: Pairs


def chunks(
    sources: Numbers, targets: Numbers, rows: int, sizes: Sequence[Size] = ()
) -> Iterator[Chunk]:
    """All pairs once, shortest first, each batch cut to the smallest of `sizes` that holds it."""
    for which, filled, own in by_length(_lengths(sources, targets), rows):
        size = (*sizes, own)[smallest(sizes, own) if sizes else 0]
        yield Chunk(which, pad([sources[i] for i in filled], [targets[i] for i in filled], size))


def by_length(lengths: np.ndarray, rows: int) -> Iterator[tuple[np.ndarray, list[int], Size]]:
    """All pairs once, shortest first, by their lengths `[pairs, 2]`.

    Yields the numbers of a batch's pairs, the same repeated until there are so many rows, and the
    size of the longest.
    """
    order = np.argsort(lengths.sum(1), kind="stable")
    for begin in range(0, len(order), rows):
        which = order[begin : begin + rows]
        yield which, np.resize(which, rows).tolist(), Size(*lengths[which].max(0).tolist())


def _lengths(sources: Numbers, targets: Numbers) -> np.ndarray:
    """Those of both sides of each pair: `[pairs, 2]`."""
    return np.array([(len(x), len(y)) for x, y in zip(sources, targets, strict=True)])
