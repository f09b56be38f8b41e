"""The acoustic model: a bidirectional stack, linear outputs of letters and phonemes, CTC.

The last layer predicts letters and the one below it phonemes, as in Fernandez, Graves and
Schmidhuber, "Sequence labelling in structured domains with hierarchical recurrent neural networks",
2007, and Krishna, Toshniwal and Livescu, "Hierarchical multitask learning for CTC-based speech
recognition", 2018: phonemes depend less on spelling, so they take less speech to learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from experiments.common.data.batching import Size, bucket_index, bucketed_loss
from experiments.common.step import in_32_bits
from experiments.speech.data import BLANK, LETTERS, PHONEMES, Batch
from jaxrnn.layers import Stack


class Params(NamedTuple):
    """Parameters of `Model`."""

    lower: Any
    upper: Any
    phonemes: Any
    letters: Any


@dataclass(frozen=True)
class Model:
    """A bidirectional stack with an intermediate output of phonemes and a final one of letters.

    Args:
        lower: layers below the output of phonemes.
        upper: layers above it; None if there are none.
        features: input features of a time step.
        bands: mel bands of a frame.
        dropout: dropout rate before each output, and between the two parts of the stack.
        weight: weight of the loss of the phonemes.
    """

    lower: Stack
    upper: Stack | None
    features: int
    bands: int
    dropout: float
    weight: float

    def init(self, key: jax.Array) -> Params:
        """Draws the parameters."""
        keys = jax.random.split(key, 4)
        upper, width = None, self.lower.output_size
        if self.upper is not None:
            upper = self.upper.init(keys[1], self.lower.output_size or 1)
            width = self.upper.output_size
        return Params(
            self.lower.init(keys[0], self.features),
            upper,
            _output(PHONEMES).init(keys[2], jnp.zeros(self.lower.output_size)),
            _output(LETTERS).init(keys[3], jnp.zeros(width)),
        )

    def apply(
        self, params: Params, xs: jax.Array, lengths: jax.Array, key: jax.Array | None = None
    ) -> tuple[Any, Any]:
        """Logits `[time, batch, labels]` of letters and phonemes.

        A key turns on dropout and SpecAugment.
        """
        keys: Any = (None,) * 5 if key is None else tuple(jax.random.split(key, 5))
        if keys[0] is not None:
            xs = spec_augment(keys[0], xs, self.bands, lengths)
        drop = nn.Dropout(self.dropout, deterministic=key is None)
        _, ys = self.lower.apply(params.lower, None, xs, lengths=lengths, key=keys[1])
        ys = drop.apply({}, ys, rng=keys[2])
        phonemes = _output(PHONEMES).apply(in_32_bits(params.phonemes), in_32_bits(ys))
        if self.upper is not None:
            _, ys = self.upper.apply(params.upper, None, ys, lengths=lengths, key=keys[3])
            ys = drop.apply({}, ys, rng=keys[4])
        letters = _output(LETTERS).apply(in_32_bits(params.letters), in_32_bits(ys))
        return letters, phonemes

    def loss(self, params: Params, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """The summed CTC loss of a batch, per letter.

        A key turns on training: the weighted loss of the phonemes is added, for the utterances
        whose phonemes are known.
        """
        xs, (lengths,), letters, phonemes = map(jnp.asarray, batch)
        logits = self.apply(params, xs, lengths, key)
        padding = (jnp.arange(len(xs))[:, None] >= lengths).astype(logits[0].dtype)
        total = _ctc_loss(logits[0], padding, letters).sum()
        if key is not None and self.weight:
            known = (phonemes != BLANK).any(0)
            losses = _ctc_loss(logits[1], padding, phonemes)
            total += self.weight * jnp.where(known, losses, 0.0).sum()
        return total / (letters != BLANK).sum()

    def bucketed_loss(
        self, params: Params, batch: Batch, key: jax.Array, sizes: tuple[Size, ...]
    ) -> jax.Array:
        """The loss of a batch, cut to the smallest of `sizes` that holds it."""

        def cut_loss(size, params, batch, key):
            letters, phonemes = (labels[: size.target] for labels in batch[2:])
            cut = Batch(batch.features[: size.source], batch.lengths, letters, phonemes)
            return self.loss(params, cut, key)

        labels = jnp.stack([jnp.asarray(batch.letters), jnp.asarray(batch.phonemes)])
        lengths = batch.lengths.max(), (labels != BLANK).sum(1).max()
        index = bucket_index(sizes, lengths, jnp)
        return bucketed_loss(index, [partial(cut_loss, size) for size in sizes], params, batch, key)


def _output(labels: Sequence[str]) -> nn.Dense:
    return nn.Dense(len(labels) + 1)


def _ctc_loss(logits: jax.Array, padding: jax.Array, labels: jax.Array) -> jax.Array:
    label_padding = (labels == BLANK).astype(logits.dtype)
    batch_first = jnp.swapaxes(logits, 0, 1)
    return optax.ctc_loss(batch_first, padding.T, labels.T, label_padding.T, blank_id=BLANK)


def spec_augment(key: jax.Array, xs: jax.Array, bands: int, lengths: jax.Array) -> jax.Array:
    """SpecAugment: sets two intervals of time and one of frequency to the mean in every utterance.

    Park et al., "SpecAugment", 2019.

    Args:
        key: randomness.
        xs: stacked frames of mean 0, `[time, batch, stacked * bands]`.
        bands: mel bands of one frame.
        lengths: of the utterances; an interval of time covers at most an eighth of one.
    """
    time, rows, features = xs.shape
    keys = jax.random.split(key, 4)
    width = jax.random.uniform(keys[0], (2, rows)) * lengths / 8
    begin = jax.random.uniform(keys[1], (2, rows)) * (lengths - width)
    t = jnp.arange(time)[:, None, None]
    time_mask = ((t >= begin) & (t < begin + width)).any(1)
    height = jax.random.uniform(keys[2], (rows, 1)) * bands / 5
    low = jax.random.uniform(keys[3], (rows, 1)) * (bands - height)
    band = jnp.arange(features) % bands
    band_mask = (band >= low) & (band < low + height)
    return jnp.where(time_mask[..., None] | band_mask, 0, xs)


@partial(jax.jit, static_argnums=0)
def log_probabilities(model: Model, params: Params, batch: Batch) -> jax.Array:
    """Log-probabilities of the letters at every time step, `[time, batch, labels]`."""
    features: Any = batch.features
    return jax.nn.log_softmax(model.apply(params, features, batch.lengths[0])[0])
