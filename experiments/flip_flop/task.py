"""The flip-flop task: remember the sign of the last pulse of each of several channels."""

import itertools
from typing import Any, NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Pulses and the memories to report, both ``[time, rows, bits]``."""

    inputs: np.ndarray
    targets: np.ndarray


def make_batch(
    random: np.random.Generator,
    time: int,
    rows: int,
    bits: int,
    rate: float,
    memory: np.ndarray | None = None,
) -> Batch:
    """Draws pulses of ±1, and the last pulse so far of each channel.

    A channel has a pulse with probability `rate` at each step, and surely at the first one unless
    the stream continues from a `memory` ``[rows, bits]``.
    """
    shape = (time, rows, bits)
    has_pulse = random.random(shape) < rate
    if memory is None:
        has_pulse[:1] = True
    pulses = np.where(has_pulse, random.choice([-1, 1], shape), 0)
    last = np.maximum.accumulate(np.where(has_pulse, np.arange(time)[:, None, None], 0), axis=0)
    targets = np.take_along_axis(pulses, last, axis=0)
    if memory is not None:
        targets = np.where(np.logical_or.accumulate(has_pulse, axis=0), targets, memory)
    return Batch(pulses.astype("f4"), targets.astype("f4"))


def corners(bits: int) -> np.ndarray:
    """All memories ``[2^bits, bits]``: the corners of a cube."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=bits)))


def covered_corners(outputs: Any, bits: int, margin: float = 0.5) -> int:
    """How many corners have exactly one of the outputs ``[points, bits]`` within a margin."""
    distance = np.abs(np.asarray(outputs)[:, None] - corners(bits)).max(axis=-1)
    return int(((distance < margin).sum(axis=0) == 1).sum()) if len(distance) else 0
