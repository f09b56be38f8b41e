"""Utterances as batches: features, labels, a split that keeps near-duplicates together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from experiments import _audio
from experiments._digest import digest
from experiments._near_duplicates import groups
from experiments._prompts import Utterance
from experiments._sequences import draw_batches

BLANK = 0
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"


def encode(text: str) -> list[int]:
    """The labels of a text; 0 is CTC's blank."""
    return [LETTERS.index(letter) + 1 for letter in text]


def decode(labels: Iterable[int]) -> str:
    """The text of labels."""
    return "".join(LETTERS[label - 1] for label in labels)


class Parts(NamedTuple):
    """Utterances to train on, to choose by, and to test on."""

    train: list[Utterance]
    valid: list[Utterance]
    test: list[Utterance]


def split(utterances: Sequence[Utterance]) -> Parts:
    """Splits by a hash of each group of near-duplicates: 8 % to choose by, 15 % to test on."""
    parts = Parts([], [], [])
    ordered = sorted(utterances, key=lambda utterance: (utterance.text, utterance.name))
    texts = [utterance.text for utterance in ordered]
    group = groups(texts) if texts else []
    first: dict[int, str] = {}
    for utterance, number in zip(ordered, group, strict=True):
        hundredth = digest(first.setdefault(number, utterance.text)) % 100
        which = parts.test if hundredth < 15 else parts.valid if hundredth < 23 else parts.train
        which.append(utterance)
    return parts


def some(utterances: Sequence[Utterance], amount: float) -> list[Utterance]:
    """A part of the utterances, by their duration; a larger part holds a smaller one."""
    ordered = sorted(utterances, key=lambda utterance: digest(utterance.name))
    seconds = np.cumsum([utterance.seconds for utterance in ordered])
    chosen = [u for u, end in zip(ordered, seconds, strict=True) if end <= amount * seconds[-1]]
    return chosen or ordered[:1]


# Features -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frontend:
    """From sound to the inputs of the network.

    Args:
        bands: of the spectrum.
        stacked: frames of 10 milliseconds in one time step.
    """

    bands: int
    stacked: int

    def features(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Inputs `[time, features]`, not yet standardised."""
        samples = _audio.at_speed(utterance.samples, speed)
        frames = _audio.log_mel(samples, utterance.rate, self.bands)
        return _audio.stack_frames(frames, self.stacked)


class Batch(NamedTuple):
    """Features `[time, rows, features]`, their lengths `[1, rows]`, labels `[letters, rows]`."""

    features: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray


class Size(NamedTuple):
    """The time and the letters of a batch."""

    time: int
    letters: int


def pad(features: Sequence[np.ndarray], labels: Sequence[Sequence[int]], size: Size) -> Batch:
    """Makes a batch of utterances, filled up with zeros."""
    rows = len(features)
    xs = np.zeros((size.time, rows, features[0].shape[1]), np.float32)
    letters = np.full((size.letters, rows), BLANK, np.int32)
    for row, (frames, text) in enumerate(zip(features, labels, strict=True)):
        xs[: len(frames), row] = frames
        letters[: len(text), row] = text
    return Batch(xs, np.array([[len(frames) for frames in features]], np.int32), letters)


class Inputs(NamedTuple):
    """From utterances to the network's inputs: what is subtracted, and what it is divided by."""

    frontend: Frontend
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, frontend: Frontend, utterances: Sequence[Utterance]) -> "Inputs":
        """Standardised by what is trained on."""
        return cls(frontend, *_audio.standardise([frontend.features(u) for u in utterances]))

    def features(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Inputs `[time, features]`."""
        return (self.frontend.features(utterance, speed) - self.mean) / self.deviation

    def batches(self, utterances: Sequence[Utterance], rows: int) -> list[tuple[Any, Batch]]:
        """All utterances once, shortest first: their numbers, and a batch filled up by repeats."""
        features = [self.features(utterance) for utterance in utterances]
        labels = [encode(utterance.text) for utterance in utterances]
        order = np.argsort([len(frames) for frames in features], kind="stable")
        result = []
        for begin in range(0, len(order), rows):
            which = order[begin : begin + rows]
            filled = np.resize(which, rows)
            # Few sizes, for each is compiled.
            longest, letters = len(features[which[-1]]), max(len(labels[i]) for i in which)
            size = Size(*(1 << (number - 1).bit_length() for number in (longest, letters)))
            chosen = [features[i] for i in filled]
            result.append((which, pad(chosen, [labels[i] for i in filled], size)))
        return result


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of training, each of utterances that are alike in duration.

    The order, and the speed at which each utterance is heard, are drawn anew for every pass.

    Args:
        features: of each utterance, at each speed.
        labels: of each utterance.
        rows: utterances of a batch.
        seed: that of the order.
        shares: which part of the utterances each size covers, the last of which is all.
    """

    features: Sequence[Sequence[np.ndarray]]
    labels: Sequence[Sequence[int]]
    rows: int
    seed: int
    shares: tuple[float, ...] = (0.4, 0.7, 0.9, 0.97, 1.0)

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The largest of each share, by duration."""
        ends = np.unique([int(np.ceil(share * len(self.labels))) for share in self.shares])
        order = np.argsort(self._times, kind="stable")
        letters = np.array([len(text) for text in self.labels])
        return tuple(
            Size(int(self._times[order[:end]].max()), int(letters[order[:end]].max()))
            for end in ends
        )

    @property
    def a_pass(self) -> int:
        """How many batches make one pass over the data."""
        return sum(-(-len(group) // self.rows) for group in self._groups)

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        number, place = divmod(step, self.a_pass)
        chosen = self._order(number)[place]
        speeds = np.random.default_rng((self.seed, step, 1)).integers(
            0, len(self.features[0]), self.rows
        )
        features = [self.features[i][speed] for i, speed in zip(chosen, speeds, strict=True)]
        return pad(features, [self.labels[i] for i in chosen], self.sizes[-1])

    @cached_property
    def _times(self) -> np.ndarray:
        return np.array([max(map(len, speeds)) for speeds in self.features])

    @cached_property
    def _groups(self) -> list[np.ndarray]:
        ends = [size.time for size in self.sizes]
        group = np.searchsorted(ends, self._times)
        groups = [np.flatnonzero(group == number) for number in range(len(ends))]
        return [group for group in groups if len(group)]

    @cached_property
    def _order(self) -> Callable[[int], list[np.ndarray]]:
        """The batches of a pass; those of the last few passes are remembered."""
        return lru_cache(maxsize=2)(self._draw)

    def _draw(self, number: int) -> list[np.ndarray]:
        """The batches of a pass, each as numbers of utterances; a last one has repeats."""
        return draw_batches(self._groups, self.rows, (self.seed, number))
