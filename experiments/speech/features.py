"""Sound as features: the energy in bands that are as wide as the ear has them, in decibels' kin.

Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition",
1980 (the mel scale's bands); Park et al., "SpecAugment", 2019 (masks over time and frequency); Ko
et al., "Audio augmentation for speech recognition", 2015 (speed).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HOP, WINDOW = 0.010, 0.025  # seconds


def log_mel(samples: np.ndarray, rate: int, bands: int) -> np.ndarray:
    """The logarithm of the energy of each band, `[frames, bands]`, a frame every 10 milliseconds.

    Args:
        samples: of the sound.
        rate: how many a second.
        bands: how many bands, from 0 to half the rate.
    """
    hop, window = round(HOP * rate), round(WINDOW * rate)
    samples = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])  # what is high is faint
    samples = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    size = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1], size)) ** 2
    return np.log(power @ mel_filters(bands, size, rate) + 1e-6).astype(np.float32)


def mel_filters(bands: int, size: int, rate: int) -> np.ndarray:
    """Triangles `[size // 2 + 1, bands]`, evenly spaced on the mel scale, 2595 log10(1 + f/700)."""
    frequencies = np.arange(size // 2 + 1) * rate / size
    mel = 2595 * np.log10(1 + frequencies / 700)
    edges = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


def at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """The sound played faster or slower, its pitch with it, by linear interpolation."""
    if speed == 1:
        return samples
    places = np.arange(0, len(samples) - 1, speed)
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


def stack_frames(features: np.ndarray, count: int) -> np.ndarray:
    """Neighbouring frames side by side, `[frames / count, count * bands]`."""
    features = np.pad(features, ((0, -len(features) % count), (0, 0)), mode="edge")
    return features.reshape(len(features) // count, -1)


def standardise(features: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each feature over all frames."""
    frames = np.concatenate(features)
    return frames.mean(0), frames.std(0) + 1e-3


def mask_randomly(key: jax.Array, xs: jax.Array, bands: int, lengths: jax.Array) -> Any:
    """SpecAugment: sets two stretches of time and one of frequency to the mean, in every row.

    Args:
        key: randomness.
        xs: stacked frames `[time, rows, stacked * bands]`, of mean 0.
        bands: bands of one frame.
        lengths: of the rows; a stretch has at most an eighth of one.
    """
    time, rows, features = xs.shape
    keys = jax.random.split(key, 4)
    width = jax.random.uniform(keys[0], (2, rows)) * lengths / 8
    begin = jax.random.uniform(keys[1], (2, rows)) * (lengths - width)
    t = jnp.arange(time)[:, None, None]
    hidden = ((t >= begin) & (t < begin + width)).any(1)
    wide = jax.random.uniform(keys[2], (rows, 1)) * bands / 5
    low = jax.random.uniform(keys[3], (rows, 1)) * (bands - wide)
    band = jnp.arange(features) % bands
    silent = (band >= low) & (band < low + wide)
    return jnp.where(hidden[..., None] | silent, 0, xs)
