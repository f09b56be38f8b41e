"""Vocabularies, padding, and length bucketing for pairs of sequences.

Every training batch has the shape of the longest pairs, so that one step is compiled; inside it,
`bucketed_loss` cuts the batch to the smallest of a few sizes that holds it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

PAD, END, BEGIN, UNKNOWN = range(4)

Tokens = Sequence[Sequence[int]]
PyTree = Any


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of symbols. The first four are padding, end, begin and unknown.

    Args:
        symbols: the known symbols.

    Example:
        >>> letters = Vocabulary(("a", "b"))
        >>> letters.encode("abc"), letters.decode([5, 4, END, 4])
        ([4, 5, 3], ['b', 'a'])
    """

    symbols: tuple[str, ...]

    @classmethod
    def build(cls, sequences: Iterable[Sequence[str]]) -> "Vocabulary":
        """All symbols of some sequences, in alphabetical order."""
        return cls(tuple(sorted(set().union(*sequences))))

    def __len__(self) -> int:
        return len(self.symbols) + UNKNOWN + 1

    def encode(self, sequence: Iterable[str]) -> list[int]:
        """The token ids of symbols."""
        return [self._ids.get(symbol, UNKNOWN) for symbol in sequence]

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """The symbols of token ids, up to the first end."""
        known = itertools.takewhile(lambda token: token != END, tokens)
        return [self.symbols[i - UNKNOWN - 1] if i > UNKNOWN else "<?>" for i in known]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: token for token, symbol in enumerate(self.symbols, UNKNOWN + 1)}


class Pairs(NamedTuple):
    """A batch of token ids `[time, batch]`, padded with `PAD`.

    Sources end with `END`; targets begin with `BEGIN` and end with `END`.
    """

    source: np.ndarray
    target: np.ndarray


class Size(NamedTuple):
    """The longest source and the longest target that a batch holds."""

    source: int
    target: int


def bucket_index(sizes: Sequence[Size], lengths: Any, xp: Any = np) -> Any:
    """The index of the smallest size that holds a source and a target of the given lengths.

    Args:
        sizes: in ascending order.
        lengths: the two lengths, or arrays of them.
        xp: NumPy, or `jax.numpy` for traced lengths.
    """
    sides = zip(zip(*sizes, strict=True), lengths, strict=True)
    return xp.maximum(*(xp.searchsorted(xp.asarray(limits), side) for limits, side in sides))


def pad(sources: Tokens, targets: Tokens, size: Size) -> Pairs:
    """A batch of pairs, padded to `size`."""
    source = np.full((size.source + 1, len(sources)), PAD, np.int32)
    target = np.full((size.target + 2, len(targets)), PAD, np.int32)
    for row, (x, y) in enumerate(zip(sources, targets, strict=True)):
        source[: len(x) + 1, row] = [*x, END]
        target[: len(y) + 2, row] = [BEGIN, *y, END]
    return Pairs(source, target)


@dataclass(frozen=True, eq=False)
class Batches:
    """The training batch of every step: examples of similar length, reshuffled every epoch.

    All are padded to the longest examples; the loss can cut a batch to one of the `sizes`.

    Args:
        lengths: of both sides of each example, `[examples, 2]`.
        make: `(indices, rows, step, size) -> batch` of the examples at some rows, padded to a size.
        batch_size: examples of a batch.
        seed: seed of the order.
    """

    lengths: np.ndarray
    make: Callable[[np.ndarray, np.ndarray, int, Size], PyTree]
    batch_size: int
    seed: int

    def __call__(self, step: int, index: int = 0, count: int = 1) -> PyTree:
        """The batch of a step, or one of `count` equal parts of it."""
        rows = np.split(np.arange(self.batch_size), count)[index]
        return self.make(self.indices(step)[rows], rows, step, self.sizes[-1])

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes that hold these shares of all examples, in order of the longer side."""
        order = np.argsort((self.lengths / self.lengths.mean(0)).max(1), kind="stable")
        ends = [int(np.ceil(share * len(order))) for share in (0.3, 0.6, 0.85, 0.97, 1.0)]
        limits = [self.lengths[order[:end]].max(0).tolist() for end in ends]
        return tuple(dict.fromkeys(Size(*both) for both in limits))

    @property
    def epoch_steps(self) -> int:
        """How many batches make one epoch."""
        return sum(-(-len(bucket) // self.batch_size) for bucket in self._buckets)

    def indices(self, step: int) -> np.ndarray:
        """The examples in the batch of a step; the last batch of a bucket repeats some."""
        epoch, place = divmod(step, self.epoch_steps)
        return self._epoch(epoch)[place]

    @cached_property
    def _buckets(self) -> list[np.ndarray]:
        bucket = bucket_index(self.sizes, self.lengths.T)
        return [np.flatnonzero(bucket == index) for index in range(len(self.sizes))]

    @cached_property
    def _epoch(self) -> Callable[[int], list[np.ndarray]]:
        """The batches of an epoch, cached for the last few epochs."""
        return lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng((self.seed, epoch))
        batches = []
        for bucket in self._buckets:
            count = -(-len(bucket) // self.batch_size)
            shuffled = np.resize(random.permutation(bucket), count * self.batch_size)
            batches += list(shuffled.reshape(-1, self.batch_size))
        random.shuffle(batches)
        return batches


def pair_batches(sources: Tokens, targets: Tokens, batch_size: int, seed: int) -> Batches:
    """The training batches of pairs of token ids."""

    def make(indices: np.ndarray, rows: np.ndarray, step: int, size: Size) -> Pairs:
        return pad([sources[i] for i in indices], [targets[i] for i in indices], size)

    return Batches(_lengths(sources, targets), make, batch_size, seed)


def chunks(
    sources: Tokens, targets: Tokens, batch_size: int, sizes: Sequence[Size] = ()
) -> Iterator[tuple[np.ndarray, Pairs]]:
    """All pairs once, shortest first, each batch cut to the smallest of `sizes` that holds it.

    Yields the indices of the pairs, and a full batch, which repeats some.
    """
    for indices, filled, longest in by_length(_lengths(sources, targets), batch_size):
        size = (*sizes, longest)[bucket_index(sizes, longest) if sizes else 0]
        yield indices, pad([sources[i] for i in filled], [targets[i] for i in filled], size)


def by_length(lengths: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, list[int], Size]]:
    """All examples once, shortest first, by their lengths `[examples, 2]`.

    Yields the indices of a batch's examples, the same repeated to `batch_size`, and the longest
    lengths of the batch.
    """
    order = np.argsort(lengths.sum(1), kind="stable")
    for begin in range(0, len(order), batch_size):
        indices = order[begin : begin + batch_size]
        filled = np.resize(indices, batch_size).tolist()
        yield indices, filled, Size(*lengths[indices].max(0).tolist())


def bucketed_loss(
    index: jax.Array, losses: Sequence[Callable[..., jax.Array]], params: PyTree, *operands: PyTree
) -> jax.Array:
    """`losses[index](params, *operands)`, chosen at run time and differentiable by `params`.

    The gradient of a plain `lax.switch` keeps the residuals of every branch, with zeros for those
    not taken, so each step costs the memory traffic of the longest batch. Here a branch returns its
    loss and its gradient together, and no residuals leave it.
    """

    @jax.custom_vjp
    def loss(params, index, operands):
        return jax.lax.switch(index, losses, params, *operands)

    def forward(params, index, operands):
        return jax.lax.switch(index, list(map(jax.value_and_grad, losses)), params, *operands)

    def backward(gradient, cotangent):
        return (
            jax.tree.map(lambda leaf: (cotangent * leaf).astype(leaf.dtype), gradient),
            None,
            None,
        )

    loss.defvjp(forward, backward)
    return loss(params, index, operands)


def _lengths(sources: Tokens, targets: Tokens) -> np.ndarray:
    """The lengths of both sides of each pair, `[pairs, 2]`."""
    return np.array([(len(x), len(y)) for x, y in zip(sources, targets, strict=True)])
