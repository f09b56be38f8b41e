"""From sound to letters: a bidirectional stack, dense read-outs, and CTC.

Letters are read from the last layer and phonemes from the one below it, as in Fernandez, Graves and
Schmidhuber, "Sequence labelling in structured domains with hierarchical recurrent neural networks",
2007, and Krishna, Toshniwal and Livescu, "Hierarchical multitask learning for CTC-based speech
recognition", 2018: sounds do not need to be spelled to be told apart, so that less speech teaches
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from experiments.common.data.batching import Size, smallest
from experiments.common.data.buckets import switch_loss
from experiments.speech import features as _audio
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
    """A bidirectional stack, with a read-out of phonemes in it and one of letters on top.

    Args:
        lower: the layers below the read-out of phonemes.
        upper: those above it, or None where there are none.
        features: of one step's input.
        bands: of one frame.
        dropout: before each read-out, and between the two parts of the stack.
        weight: of the loss of the phonemes.
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
            _readout(PHONEMES).init(keys[2], jnp.zeros(self.lower.output_size)),
            _readout(LETTERS).init(keys[3], jnp.zeros(width)),
        )

    def apply(
        self, params: Params, xs: jax.Array, lengths: jax.Array, key: jax.Array | None = None
    ) -> tuple[Any, Any]:
        """Logits `[time, rows, labels]` of letters and of phonemes.

        With a key, dropout and masks over time and frequency.
        """
        keys: Any = (None,) * 5 if key is None else tuple(jax.random.split(key, 5))
        if keys[0] is not None:
            xs = _audio.mask_randomly(keys[0], xs, self.bands, lengths)
        drop = nn.Dropout(self.dropout, deterministic=key is None)
        _, ys = self.lower.apply(params.lower, None, xs, lengths=lengths, key=keys[1])
        ys = drop.apply({}, ys, rng=keys[2])
        phonemes = _readout(PHONEMES).apply(params.phonemes, ys)
        if self.upper is not None:
            _, ys = self.upper.apply(params.upper, None, ys, lengths=lengths, key=keys[3])
            ys = drop.apply({}, ys, rng=keys[4])
        return _readout(LETTERS).apply(params.letters, ys), phonemes

    def loss(self, params: Params, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """The CTC losses of all rows, for each letter of all texts.

        With a key, as in training, those of the phonemes besides, by their weight; a row without
        phonemes has none.
        """
        xs, (lengths,), letters, phonemes = map(jnp.asarray, batch)
        logits = self.apply(params, xs, lengths, key)
        beyond = (jnp.arange(len(xs))[:, None] >= lengths).astype(logits[0].dtype)
        total = _ctc(logits[0], beyond, letters).sum()
        if key is not None and self.weight:
            known = (phonemes != BLANK).any(0)
            losses = _ctc(logits[1], beyond, phonemes)
            total += self.weight * jnp.where(known, losses, 0.0).sum()
        return total / (letters != BLANK).sum()

    def bucketed_loss(
        self, params: Params, batch: Batch, key: jax.Array, sizes: tuple[Size, ...]
    ) -> jax.Array:
        """The loss of a batch, cut to the smallest of `sizes` that holds it."""

        def cut_to(size, params, batch, key):
            letters, phonemes = (labels[: size.target] for labels in batch[2:])
            cut = Batch(batch.features[: size.source], batch.lengths, letters, phonemes)
            return self.loss(params, cut, key)

        labels = jnp.stack([jnp.asarray(batch.letters), jnp.asarray(batch.phonemes)])
        longest = batch.lengths.max(), (labels != BLANK).sum(1).max()
        index = smallest(sizes, longest, jnp)
        return switch_loss(index, [partial(cut_to, size) for size in sizes], params, batch, key)


def _readout(labels: Sequence[str]) -> nn.Dense:
    return nn.Dense(len(labels) + 1)


def _ctc(logits: jax.Array, beyond: jax.Array, labels: jax.Array) -> jax.Array:
    absent = (labels == BLANK).astype(logits.dtype)
    rows_first = jnp.swapaxes(logits, 0, 1)
    return optax.ctc_loss(rows_first, beyond.T, labels.T, absent.T, blank_id=BLANK)


@partial(jax.jit, static_argnums=0)
def losses(model: Model, params: Params, batch: Batch) -> jax.Array:
    """The loss of a batch for each letter."""
    return model.loss(params, batch)


@partial(jax.jit, static_argnums=0)
def log_probabilities(model: Model, params: Params, batch: Batch) -> jax.Array:
    """Those of the letters at every time step: `[time, rows, labels]`."""
    features: Any = batch.features
    return jax.nn.log_softmax(model.apply(params, features, batch.lengths[0])[0])
