"""Tasks that a network solves only by remembering: their data, generated from a seed.

Each task is a frozen dataclass whose `batch(random, rows)` draws fresh sequences. `length` counts
what the network has to bridge. Answers are either one number, scored by the squared error, or one
of several classes at each step that has a weight, scored by the cross-entropy.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

Random = np.random.Generator


class Batch(NamedTuple):
    """Sequences side by side, all arrays ``[time, rows, ...]``."""

    inputs: np.ndarray  # [time, rows, features]
    targets: np.ndarray  # [time, rows]: numbers, or classes
    weights: np.ndarray  # [time, rows]: 1 where an answer is asked for, else 0


Predict = Callable[[Batch], np.ndarray]  # the classes that a network answers


class _Task:
    """What a task has that is not asked for more than it was trained on."""

    def beyond(self, predict: Predict) -> dict[str, float]:
        """How well it does on sequences longer than those of training, where that is the point."""
        return {}


@dataclass(frozen=True)
class Adding(_Task):
    """The sum of the two marked numbers out of `length`, one in each half.

    Answering 1 always has a mean squared error of 1/6.

    S. Hochreiter and J. Schmidhuber, "Long short-term memory", 1997, experiment 4; in the form of
    M. Arjovsky, A. Shah and Y. Bengio, "Unitary evolution recurrent neural networks", 2016.
    """

    length: int = 500
    inputs = 2
    classes = None
    guess = 1 / 6

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws `rows` sequences."""
        numbers = random.random((self.length, rows))
        marks = np.zeros_like(numbers)
        half, row = self.length // 2, np.arange(rows)
        marks[random.integers(0, half, rows), row] = 1
        marks[random.integers(half, self.length, rows), row] = 1
        targets, weights = np.zeros_like(numbers), np.zeros_like(numbers)
        targets[-1], weights[-1] = (numbers * marks).sum(0), 1
        return Batch(*_float32(np.stack([numbers, marks], -1), targets, weights))


@dataclass(frozen=True)
class Copy(_Task):
    """Ten symbols out of eight, `length` blanks of which the last says "now", the ten again.

    Who knows all but the symbols loses 10 ln 8 / (length + 20) nats a step.

    M. Arjovsky, A. Shah and Y. Bengio, 2016, section 4.1 (after experiment 5 of 1997).
    """

    length: int = 200
    inputs = 10
    classes = 9  # the blank, and eight symbols

    @property
    def guess(self) -> float:
        """The loss of a network without memory."""
        return 10 * np.log(8) / (self.length + 20)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws `rows` sequences."""
        symbols = random.integers(1, 9, (10, rows))
        tokens = np.zeros((self.length + 20, rows), np.int32)
        targets = tokens.copy()
        tokens[:10], targets[-10:], tokens[-11] = symbols, symbols, 9
        return Batch(_one_hot(tokens, 10), targets, np.ones(targets.shape, np.float32))


@dataclass(frozen=True)
class SelectiveCopy(_Task):
    """Ten symbols out of eight, scattered among `length` steps; afterwards they are asked for.

    A. Gu and T. Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023,
    section 4.1.1.
    """

    length: int = 100
    inputs = 10
    classes = 9
    guess = np.log(8)

    def __post_init__(self):
        if self.length < 10:
            raise ValueError(f"length must be at least 10 for this task, got {self.length}")

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws `rows` sequences."""
        symbols = random.integers(1, 9, (10, rows))
        places = np.sort(random.random((self.length, rows)).argsort(0)[:10], 0)
        tokens = np.zeros((self.length + 10, rows), np.int32)
        targets, weights = tokens.copy(), np.zeros(tokens.shape, np.float32)
        tokens[places, np.arange(rows)] = symbols
        tokens[-10:], targets[-10:], weights[-10:] = 9, symbols, 1
        return Batch(_one_hot(tokens, 10), targets, weights)


@dataclass(frozen=True)
class TemporalOrder(_Task):
    """In which order two of {X, Y} came, far apart in `length` steps of four distractors.

    S. Hochreiter and J. Schmidhuber, 1997, experiment 6a.
    """

    length: int = 100
    inputs = 8  # begin, end, four distractors, X, Y
    classes = 4
    guess = np.log(4)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws `rows` sequences."""
        tokens = random.integers(2, 6, (self.length, rows))
        tokens[0], tokens[-1] = 0, 1
        symbols, row, tenth = random.integers(0, 2, (2, rows)), np.arange(rows), self.length / 10
        for symbol, begin in zip(symbols, (1, 5), strict=True):
            low = max(1, int(begin * tenth))
            high = max(low + 1, int((begin + 1) * tenth))
            tokens[random.integers(low, high, rows), row] = 6 + symbol
        targets, weights = np.zeros(tokens.shape), np.zeros(tokens.shape)
        targets[-1], weights[-1] = 2 * symbols[0] + symbols[1], 1
        return Batch(_one_hot(tokens, 8), targets.astype(np.int32), weights.astype(np.float32))


@dataclass(frozen=True)
class Parity(_Task):
    """Whether the ones so far are odd in number, after each of `length` bits.

    A finite automaton with two states: a cell must be able to flip its state. A state that is
    multiplied by numbers in [0, 1] cannot, whatever else it can do.

    R. Grazzi et al., "Unlocking state-tracking in linear RNNs through negative eigenvalues", 2024.
    """

    length: int = 40
    inputs = 2
    classes = 2
    guess = np.log(2)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws `rows` sequences."""
        bits = random.integers(0, 2, (self.length, rows))
        targets = (np.cumsum(bits, 0) % 2).astype(np.int32)
        return Batch(_one_hot(bits, 2), targets, np.ones(bits.shape, np.float32))

    def beyond(self, predict: Predict) -> dict[str, float]:
        """The share of right answers from the trained length to five times that."""
        longer = replace(self, length=5 * self.length)
        batch = longer.batch(np.random.default_rng(5), 200)
        right = predict(batch) == batch.targets
        return {"beyond": float(right[self.length :].mean())}


@dataclass(frozen=True)
class Counting(_Task):
    """aⁿbⁿ for n up to `length`: after each b, whether another b follows or the end.

    G. Weiss, Y. Goldberg and E. Yahav, "On the practical computational power of finite precision
    RNNs for language recognition", 2018 (and F. Gers and J. Schmidhuber, 2001).
    """

    length: int = 50
    inputs = 2
    classes = 2
    guess = np.log(2)

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws `rows` sequences, each with an n of its own."""
        return self.strings(random.integers(1, self.length + 1, rows))

    def strings(self, n: np.ndarray) -> Batch:
        """The strings with these n, one a row, with room for the longest."""
        t = np.arange(2 * self.length)[:, None]
        is_a, is_b = t < n, (t >= n) & (t < 2 * n)
        inputs = np.stack([is_a, is_b], -1).astype(np.float32)
        return Batch(inputs, (t == 2 * n - 1).astype(np.int32), is_b.astype(np.float32))

    def beyond(self, predict: Predict) -> dict[str, float]:
        """Up to which n every string is right, out of four times those trained on."""
        batch = replace(self, length=4 * self.length).strings(np.arange(1, 4 * self.length + 1))
        right = ((predict(batch) == batch.targets) | (batch.weights == 0)).all(0)
        return {"counts_to": float(len(right) if right.all() else right.argmin())}


@dataclass(frozen=True)
class AssociativeRecall(_Task):
    """`length` pairs of a letter and a digit, then one of the letters: which digit was its own?

    J. Ba et al., "Using fast weights to attend to the recent past", 2016, section 4.1.
    """

    length: int = 4
    inputs = 26 + 10 + 1  # letters, digits, "?"
    classes = 10
    guess = np.log(10)

    def __post_init__(self):
        if self.length > 26:
            raise ValueError(f"length must be at most 26 for this task, got {self.length}")

    def batch(self, random: Random, rows: int) -> Batch:
        """Draws `rows` sequences."""
        letters = random.random((26, rows)).argsort(0)[: self.length]
        digits = random.integers(0, 10, (self.length, rows))
        asked, row = random.integers(0, self.length, rows), np.arange(rows)
        pairs = np.stack([letters, 26 + digits], 1).reshape(2 * self.length, rows)
        question = np.stack([np.full(rows, 36), letters[asked, row]])
        tokens = np.concatenate([pairs, question])
        targets, weights = np.zeros(tokens.shape), np.zeros(tokens.shape)
        targets[-1], weights[-1] = digits[asked, row], 1
        return Batch(_one_hot(tokens, 37), targets.astype(np.int32), weights.astype(np.float32))


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


def _float32(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype(np.float32) for array in arrays]
