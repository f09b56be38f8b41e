"""Synthetic tasks that need memory, generated from a seed.

Each task is a frozen dataclass whose `batch(random, rows)` draws sequences with `inputs` features.
`length` is what the network has to bridge. The targets are numbers, with the squared error, or one
of `classes`, with the cross-entropy, at the steps whose weight is 1. `chance` is the loss of the
best network without memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

Random = np.random.Generator


class Batch(NamedTuple):
    """A batch of sequences; the weights are 1 at the steps with a target, else 0."""

    inputs: np.ndarray  # [time, rows, features]
    targets: np.ndarray  # [time, rows], numbers or classes
    weights: np.ndarray  # [time, rows]


Predict = Callable[[Batch], np.ndarray]
"""Predicts the classes of a batch, `[time, rows]`."""


class MemoryTask:
    """The base of all tasks."""

    def longer_metrics(self, predict: Predict) -> dict[str, float]:
        """Metrics on longer sequences than those of training, for tasks about generalization."""
        return {}


@dataclass(frozen=True)
class Adding(MemoryTask):
    """The sum of two marked numbers out of `length`, one in each half.

    S. Hochreiter and J. Schmidhuber, "Long short-term memory", 1997, experiment 4; in the form of
    M. Arjovsky, A. Shah and Y. Bengio, "Unitary evolution recurrent neural networks", 2016.
    """

    length: int = 500
    inputs = 2
    classes = None
    chance = 1 / 6  # of the constant prediction 1

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws a batch of `rows` sequences."""
        numbers = random.random((self.length, rows))
        marks = np.zeros_like(numbers)
        half, row = self.length // 2, np.arange(rows)
        marks[random.integers(0, half, rows), row] = 1
        marks[random.integers(half, self.length, rows), row] = 1
        inputs = np.stack([numbers, marks], -1).astype(np.float32)
        return _with_last_target(inputs, (numbers * marks).sum(0))


@dataclass(frozen=True)
class Copy(MemoryTask):
    """Ten symbols out of eight, `length` blanks of which the last is a cue, and the ten again.

    M. Arjovsky, A. Shah and Y. Bengio, 2016, section 4.1 (after experiment 5 of 1997).
    """

    length: int = 200
    inputs = 10
    classes = 9  # the blank, and eight symbols

    @property
    def chance(self) -> float:
        """The loss of a network that predicts the blanks and guesses the symbols."""
        return 10 * np.log(8) / (self.length + 20)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws a batch of `rows` sequences."""
        symbols = random.integers(1, 9, (10, rows))
        tokens = np.zeros((self.length + 20, rows), np.int32)
        targets = tokens.copy()
        tokens[:10], targets[-10:], tokens[-11] = symbols, symbols, 9
        return Batch(_one_hot(tokens, 10), targets, np.ones(targets.shape, np.float32))


@dataclass(frozen=True)
class SelectiveCopy(MemoryTask):
    """Ten symbols out of eight at random places of `length` steps, then the ten in order.

    A. Gu and T. Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023,
    section 4.1.1.
    """

    length: int = 100
    inputs = 10
    classes = 9
    chance = np.log(8)

    def __post_init__(self):
        if self.length < 10:
            raise ValueError(f"length must be at least 10 for this task, got {self.length}")

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws a batch of `rows` sequences."""
        symbols = random.integers(1, 9, (10, rows))
        places = np.sort(random.random((self.length, rows)).argsort(0)[:10], 0)
        tokens = np.zeros((self.length + 10, rows), np.int32)
        targets, weights = tokens.copy(), np.zeros(tokens.shape, np.float32)
        tokens[places, np.arange(rows)] = symbols
        tokens[-10:], targets[-10:], weights[-10:] = 9, symbols, 1
        return Batch(_one_hot(tokens, 10), targets, weights)


@dataclass(frozen=True)
class TemporalOrder(MemoryTask):
    """The order of two symbols X or Y, far apart among `length` steps of four distractors.

    S. Hochreiter and J. Schmidhuber, 1997, experiment 6a.
    """

    length: int = 100
    inputs = 8  # begin, end, four distractors, X, Y
    classes = 4
    chance = np.log(4)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws a batch of `rows` sequences."""
        tokens = random.integers(2, 6, (self.length, rows))
        tokens[0], tokens[-1] = 0, 1
        symbols, row, tenth = random.integers(0, 2, (2, rows)), np.arange(rows), self.length / 10
        for symbol, begin in zip(symbols, (1, 5), strict=True):
            low = max(1, int(begin * tenth))
            high = max(low + 1, int((begin + 1) * tenth))
            tokens[random.integers(low, high, rows), row] = 6 + symbol
        return _with_last_target(_one_hot(tokens, 8), 2 * symbols[0] + symbols[1])


@dataclass(frozen=True)
class Parity(MemoryTask):
    """The parity of the bits so far, after each of `length` bits.

    It needs a finite automaton with two states: a cell must be able to flip its state, which a
    multiplication with numbers in [0, 1] cannot.

    R. Grazzi et al., "Unlocking state-tracking in linear RNNs through negative eigenvalues", 2024.
    """

    length: int = 40
    inputs = 2
    classes = 2
    chance = np.log(2)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws a batch of `rows` sequences."""
        bits = random.integers(0, 2, (self.length, rows))
        targets = (np.cumsum(bits, 0) % 2).astype(np.int32)
        return Batch(_one_hot(bits, 2), targets, np.ones(bits.shape, np.float32))

    def longer_metrics(self, predict: Predict) -> dict[str, float]:
        """The accuracy from the trained length to five times that length."""
        longer = replace(self, length=5 * self.length)
        batch = longer.batch(np.random.default_rng(5), 200)
        correct = predict(batch) == batch.targets
        return {"accuracy_longer": float(correct[self.length :].mean())}


@dataclass(frozen=True)
class Counting(MemoryTask):
    """aⁿbⁿ for n up to `length`: after each b, whether another b follows or the string ends.

    G. Weiss, Y. Goldberg and E. Yahav, "On the practical computational power of finite precision
    RNNs for language recognition", 2018 (and F. Gers and J. Schmidhuber, 2001).
    """

    length: int = 50
    inputs = 2
    classes = 2
    chance = np.log(2)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws a batch of `rows` sequences, each with its own n."""
        return self.strings(random.integers(1, self.length + 1, rows))

    def strings(self, n: np.ndarray) -> Batch:
        """The strings of each n `[rows]`, in as many steps as the longest possible one."""
        t = np.arange(2 * self.length)[:, None]
        is_a, is_b = t < n, (t >= n) & (t < 2 * n)
        inputs = np.stack([is_a, is_b], -1).astype(np.float32)
        return Batch(inputs, (t == 2 * n - 1).astype(np.int32), is_b.astype(np.float32))

    def longer_metrics(self, predict: Predict) -> dict[str, float]:
        """The largest n up to which every string is correct, of four times the trained length."""
        batch = replace(self, length=4 * self.length).strings(np.arange(1, 4 * self.length + 1))
        correct = ((predict(batch) == batch.targets) | (batch.weights == 0)).all(0)
        return {"counts_to": float(len(correct) if correct.all() else correct.argmin())}


@dataclass(frozen=True)
class AssociativeRecall(MemoryTask):
    """`length` pairs of a letter and a digit, then one of the letters: which digit belongs to it?

    J. Ba et al., "Using fast weights to attend to the recent past", 2016, section 4.1.
    """

    length: int = 4
    inputs = 26 + 10 + 1  # letters, digits, "?"
    classes = 10
    chance = np.log(10)

    def __post_init__(self):
        if self.length > 26:
            raise ValueError(f"length must be at most 26 for this task, got {self.length}")

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws a batch of `rows` sequences."""
        letters = random.random((26, rows)).argsort(0)[: self.length]
        digits = random.integers(0, 10, (self.length, rows))
        asked, row = random.integers(0, self.length, rows), np.arange(rows)
        pairs = np.stack([letters, 26 + digits], 1).reshape(2 * self.length, rows)
        question = np.stack([np.full(rows, 36), letters[asked, row]])
        tokens = np.concatenate([pairs, question])
        return _with_last_target(_one_hot(tokens, 37), digits[asked, row])


TASKS: dict[str, Any] = {
    "adding": Adding,
    "copy": Copy,
    "selective-copy": SelectiveCopy,
    "temporal-order": TemporalOrder,
    "parity": Parity,
    "anbn": Counting,
    "associative-recall": AssociativeRecall,
}


def _one_hot(tokens: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[tokens]


def _with_last_target(inputs: np.ndarray, last: np.ndarray) -> Batch:
    """A batch with a target at the last step only; integers are classes."""
    dtype = np.int32 if last.dtype.kind == "i" else np.float32
    targets, weights = np.zeros(inputs.shape[:2], dtype), np.zeros(inputs.shape[:2], np.float32)
    targets[-1], weights[-1] = last, 1
    return Batch(inputs, targets, weights)
