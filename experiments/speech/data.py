"""Utterances as batches: features, labels, a split that keeps near-duplicates together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from experiments.common.data.batching import Plan, Size, by_length
from experiments.common.data.near_duplicates import groups
from experiments.common.data.splits import digest
from experiments.speech import features as _audio
from experiments.speech.corpora import Utterance

BLANK = 0
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
PHONEMES = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W "
    "Y Z ZH".split()
)


def encode(text: str) -> list[int]:
    """The labels of a text; 0 is CTC's blank."""
    return [LETTERS.index(letter) + 1 for letter in text]


def pronounce(text: str, dictionary: Mapping[str, Sequence[Sequence[str]]]) -> list[int]:
    """The labels of a text's phonemes; none if one of its words is not listed.

    Example:
        >>> pronounce("a b", {"a": [["AH"], ["EY"]], "b": [["B", "IY"]]})
        [3, 7, 18]
    """
    words = text.split()
    if not all(word in dictionary for word in words):
        return []
    return [PHONEMES.index(phoneme) + 1 for word in words for phoneme in dictionary[word][0]]


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
    """Features `[time, rows, features]`, their lengths `[1, rows]`, labels `[labels, rows]`."""

    features: np.ndarray
    lengths: np.ndarray
    letters: np.ndarray
    phonemes: np.ndarray


class Labels(NamedTuple):
    """What is said in an utterance; no phonemes where they are not known."""

    letters: Sequence[int]
    phonemes: Sequence[int] = ()


def pad(features: Sequence[np.ndarray], labels: Sequence[Labels], size: Size) -> Batch:
    """Makes a batch of utterances, filled up with zeros; `size` is of features and of labels."""
    rows = len(features)
    xs = np.zeros((size.source, rows, features[0].shape[1]), np.float32)
    said = np.full((2, size.target, rows), BLANK, np.int32)
    for row, (frames, both) in enumerate(zip(features, labels, strict=True)):
        xs[: len(frames), row] = frames
        for place, text in zip(said, both, strict=True):
            place[: len(text), row] = text
    return Batch(xs, np.array([[len(frames) for frames in features]], np.int32), *said)


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
        labels = [Labels(encode(utterance.text)) for utterance in utterances]
        pairs = zip(features, labels, strict=True)
        lengths = np.array([(len(frames), len(both.letters)) for frames, both in pairs])
        result = []
        for which, filled, own in by_length(lengths, rows):
            size = Size(*(1 << (number - 1).bit_length() for number in own))  # each is compiled
            padded = pad([features[i] for i in filled], [labels[i] for i in filled], size)
            result.append((which, padded))
        return result


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of training. All have one shape, that of the longest utterances.

    The speed at which an utterance is heard is drawn anew every time.

    Args:
        features: of each utterance, at each speed.
        labels: of each utterance.
        rows, seed: see `Plan`; a batch can be cut to one of its `sizes`.
    """

    features: Sequence[Sequence[np.ndarray]]
    labels: Sequence[Labels]
    rows: int
    seed: int

    @cached_property
    def plan(self) -> Plan:
        """Which utterances make which batch."""
        times = [max(map(len, speeds)) for speeds in self.features]
        longest = [max(map(len, both)) for both in self.labels]
        lengths = np.stack([times, longest], axis=1)
        return Plan(lengths, self.rows, self.seed)

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        chosen = self.plan.chosen(step)
        random = np.random.default_rng((self.seed, step, 1))
        speeds = random.integers(0, len(self.features[0]), self.rows)
        features = [self.features[i][speed] for i, speed in zip(chosen, speeds, strict=True)]
        return pad(features, [self.labels[i] for i in chosen], self.plan.sizes[-1])
