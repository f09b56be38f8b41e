"""From sound to letters: a bidirectional stack, a dense read-out, and CTC."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from experiments import _audio
from experiments._buckets import switch_loss
from experiments._sequences import Size, smallest
from experiments._speech_data import BLANK, LETTERS, Batch
from jaxrnn.layers import Stack


class Params(NamedTuple):
    """Parameters of `Model`."""

    stack: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """A bidirectional stack, and a dense read-out to letters and the blank."""

    stack: Stack
    features: int
    bands: int
    dropout: float

    def init(self, key: jax.Array) -> Params:
        """Draws the parameters."""
        keys = jax.random.split(key)
        return Params(
            self.stack.init(keys[0], self.features),
            self._readout.init(keys[1], jnp.zeros(self.stack.output_size)),
        )

    def apply(
        self, params: Params, xs: jax.Array, lengths: jax.Array, key: jax.Array | None = None
    ) -> Any:
        """Logits `[time, rows, labels]`; with a key, dropout and masks over time and frequency."""
        keys: Any = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        if keys[0] is not None:
            xs = _audio.mask_randomly(keys[0], xs, self.bands, lengths)
        _, ys = self.stack.apply(params.stack, None, xs, lengths=lengths, key=keys[1])
        drop = nn.Dropout(self.dropout, deterministic=key is None)
        return self._readout.apply(params.readout, drop.apply({}, ys, rng=keys[2]))

    def loss(self, params: Params, batch: Batch, key: jax.Array | None = None) -> jax.Array:
        """The CTC losses of all rows, for each letter of all texts."""
        xs, (lengths,), labels = map(jnp.asarray, batch)
        logits = self.apply(params, xs, lengths, key)
        beyond = (jnp.arange(len(xs))[:, None] >= lengths).astype(logits.dtype)
        absent = (labels == BLANK).astype(logits.dtype)
        losses = optax.ctc_loss(
            jnp.swapaxes(logits, 0, 1), beyond.T, labels.T, absent.T, blank_id=BLANK
        )
        return losses.sum() / (1 - absent).sum()

    def bucketed_loss(
        self, params: Params, batch: Batch, key: jax.Array, sizes: tuple[Size, ...]
    ) -> jax.Array:
        """The loss of a batch, cut to the smallest of `sizes` that holds it."""

        def cut_to(size, params, batch, key):
            features, labels = batch.features[: size.source], batch.labels[: size.target]
            return self.loss(params, Batch(features, batch.lengths, labels), key)

        longest = batch.lengths.max(), (jnp.asarray(batch.labels) != BLANK).sum(0).max()
        index = smallest(sizes, longest, jnp)
        return switch_loss(index, [partial(cut_to, size) for size in sizes], params, batch, key)

    @property
    def _readout(self) -> nn.Dense:
        return nn.Dense(len(LETTERS) + 1)


@partial(jax.jit, static_argnums=0)
def losses(model: Model, params: Params, batch: Batch) -> jax.Array:
    """The loss of a batch for each letter."""
    return model.loss(params, batch)


@partial(jax.jit, static_argnums=0)
def log_probabilities(model: Model, params: Params, batch: Batch) -> jax.Array:
    """Those of the labels at every time step: `[time, rows, labels]`."""
    features: Any = batch.features
    return jax.nn.log_softmax(model.apply(params, features, batch.lengths[0]))
