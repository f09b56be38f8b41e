"""From utterances to batches: the split, labels, log-mel features, padding.

Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition",
1980 (the mel filter bank); Ko et al., "Audio augmentation for speech recognition", 2015 (speed
perturbation).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.common.data.batching import Batches, Size, by_length
from experiments.common.data.splits import digest, group_near_duplicates
from experiments.speech.corpora import Utterance

HOP, WINDOW = 0.010, 0.025  # seconds
BLANK = 0
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
PHONEMES = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W "
    "Y Z ZH".split()
)

# Split --------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """Utterances to train, validate and test."""

    train: list[Utterance]
    valid: list[Utterance]
    test: list[Utterance]


def split(utterances: Sequence[Utterance]) -> Parts:
    """Splits by a hash of each group of near-duplicates: 8 % for validation, 15 % for the test."""
    parts = Parts([], [], [])
    ordered = sorted(utterances, key=lambda utterance: (utterance.text, utterance.name))
    groups = group_near_duplicates([utterance.text for utterance in ordered])
    first: dict[int, str] = {}
    for utterance, group in zip(ordered, groups, strict=True):
        hundredth = digest(first.setdefault(group, utterance.text)) % 100
        part = parts.test if hundredth < 15 else parts.valid if hundredth < 23 else parts.train
        part.append(utterance)
    return parts


def subset(utterances: Sequence[Utterance], amount: float) -> list[Utterance]:
    """A pseudo-random share of the total duration; a larger share includes a smaller one."""
    ordered = sorted(utterances, key=lambda utterance: digest(utterance.name))
    seconds = np.cumsum([utterance.seconds for utterance in ordered])
    chosen = [u for u, end in zip(ordered, seconds, strict=True) if end <= amount * seconds[-1]]
    return chosen or ordered[:1]


# Labels -------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """Labels of an utterance; no phonemes where they are unknown."""

    letters: Sequence[int]
    phonemes: Sequence[int] = ()


def encode_letters(text: str) -> list[int]:
    """The labels of a text; 0 is the blank of CTC."""
    return [LETTERS.index(letter) + 1 for letter in text]


def decode_letters(labels: Iterable[int]) -> str:
    """The text of labels."""
    return "".join(LETTERS[label - 1] for label in labels)


def encode_phonemes(text: str, dictionary: Mapping[str, Sequence[Sequence[str]]]) -> list[int]:
    """The labels of the first listed phonemes of a text; empty if it has an unlisted word.

    Example:
        >>> encode_phonemes("a b", {"a": [["AH"], ["EY"]], "b": [["B", "IY"]]})
        [3, 7, 18]
    """
    words = text.split()
    if not all(word in dictionary for word in words):
        return []
    return [PHONEMES.index(phoneme) + 1 for word in words for phoneme in dictionary[word][0]]


# Features -----------------------------------------------------------------------------------------


def log_mel(samples: np.ndarray, rate: int, bands: int) -> np.ndarray:
    """Log-mel features `[frames, bands]` with pre-emphasis, a frame every 10 milliseconds.

    Args:
        samples: the signal.
        rate: sampling rate in Hz.
        bands: number of mel bands between 0 and rate / 2.
    """
    hop, window = round(HOP * rate), round(WINDOW * rate)
    samples = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    size = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1], size)) ** 2
    return np.log(power @ mel_filters(bands, size, rate) + 1e-6).astype(np.float32)


def mel_filters(bands: int, size: int, rate: int) -> np.ndarray:
    """Triangular filters `[size // 2 + 1, bands]`, evenly spaced in 2595 log10(1 + f / 700)."""
    frequencies = np.arange(size // 2 + 1) * rate / size
    mel = 2595 * np.log10(1 + frequencies / 700)
    edges = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Resamples by linear interpolation, which changes duration and pitch."""
    if speed == 1:
        return samples
    places = np.arange(0, len(samples) - 1, speed)
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


def stack_frames(features: np.ndarray, count: int) -> np.ndarray:
    """Concatenates `count` neighboring frames: `[frames / count, count * bands]`."""
    features = np.pad(features, ((0, -len(features) % count), (0, 0)), mode="edge")
    return features.reshape(len(features) // count, -1)


class Frontend(NamedTuple):
    """The inputs of the network: stacked log-mel frames, standardized.

    Args:
        bands: number of mel bands.
        stacked: frames per time step.
        mean, deviation: of each feature over the training data.
    """

    bands: int
    stacked: int
    mean: Any = 0.0
    deviation: Any = 1.0

    @classmethod
    def fit(cls, bands: int, stacked: int, utterances: Sequence[Utterance]) -> "Frontend":
        """Standardizes by the mean and the standard deviation over all frames of utterances."""
        raw = cls(bands, stacked)
        frames = np.concatenate([raw.features(utterance) for utterance in utterances])
        return cls(bands, stacked, frames.mean(0), frames.std(0) + 1e-3)

    def features(self, utterance: Utterance, speed: float = 1.0) -> np.ndarray:
        """Inputs `[time, features]`."""
        samples = change_speed(utterance.samples, speed)
        frames = log_mel(samples, utterance.rate, self.bands)
        return (stack_frames(frames, self.stacked) - self.mean) / self.deviation


# Batches ------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Features `[time, batch, features]`, lengths `[1, batch]`, labels `[labels, batch]`."""

    features: np.ndarray
    lengths: np.ndarray
    letters: np.ndarray
    phonemes: np.ndarray


def pad(features: Sequence[np.ndarray], labels: Sequence[Labels], size: Size) -> Batch:
    """A batch of utterances, padded with zeros; `size` is that of features and of labels."""
    rows = len(features)
    xs = np.zeros((size.source, rows, features[0].shape[1]), np.float32)
    padded = np.full((2, size.target, rows), BLANK, np.int32)
    for row, (frames, both) in enumerate(zip(features, labels, strict=True)):
        xs[: len(frames), row] = frames
        for target, own in zip(padded, both, strict=True):
            target[: len(own), row] = own
    return Batch(xs, np.array([[len(frames) for frames in features]], np.int32), *padded)


def evaluation_batches(
    frontend: Frontend, utterances: Sequence[Utterance], batch_size: int
) -> list[tuple[np.ndarray, Batch]]:
    """All utterances once, shortest first: their indices, and a batch filled by repetition."""
    features = [frontend.features(utterance) for utterance in utterances]
    labels = [Labels(encode_letters(utterance.text)) for utterance in utterances]
    pairs = zip(features, labels, strict=True)
    lengths = np.array([(len(frames), len(both.letters)) for frames, both in pairs])
    batches = []
    for indices, filled, longest in by_length(lengths, batch_size):
        size = Size(*(1 << (length - 1).bit_length() for length in longest))  # few compilations
        batch = pad([features[i] for i in filled], [labels[i] for i in filled], size)
        batches.append((indices, batch))
    return batches


def training_batches(
    features: Sequence[Sequence[np.ndarray]], labels: Sequence[Labels], batch_size: int, seed: int
) -> Batches:
    """Batches of utterances, from their features at each speed; a batch draws the speeds."""

    def make(indices: np.ndarray, rows: np.ndarray, step: int, size: Size) -> Batch:
        speeds = np.random.default_rng((seed, step, 1)).integers(0, len(features[0]), batch_size)
        chosen = [features[i][speed] for i, speed in zip(indices, speeds[rows], strict=True)]
        return pad(chosen, [labels[i] for i in indices], size)

    frames = [max(map(len, speeds)) for speeds in features]
    lengths = np.stack([frames, [max(map(len, both)) for both in labels]], axis=1)
    return Batches(lengths, make, batch_size, seed)
