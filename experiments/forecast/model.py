"""The forecasting network, which predicts a mean and quantiles for every step ahead."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.common.step import in_32_bits
from jaxrnn.layers import Stack

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
"""The levels of the predicted quantiles: two intervals and the median."""
MEDIAN = len(LEVELS) // 2


class Forecast(NamedTuple):
    """Forecasts from every origin, in the series' unit; NaN where there is none."""

    point: np.ndarray  # [time, horizon]
    quantiles: np.ndarray | None = None  # [time, horizon, levels]


class Params(NamedTuple):
    """Parameters of `Model`."""

    stack: Any
    readout: Any
    skip: Any


@dataclass(frozen=True)
class Model:
    """Recurrent layers and a dense output layer, with a linear skip connection from the inputs.

    Args:
        stack: the recurrent layers.
        horizon: the number of steps ahead.
        dropout: dropout rate of the last layer's outputs.
    """

    stack: Stack
    horizon: int
    dropout: float

    def init(self, key: jax.Array, features: int) -> Params:
        """Initializes the parameters."""
        keys = jax.random.split(key, 3)
        return Params(
            self.stack.init(keys[0], features),
            self._readout.init(keys[1], jnp.zeros(self.stack.output_size)),
            self._skip.init(keys[2], jnp.zeros(features)),
        )

    def apply(
        self, params: Params, xs: jax.Array, at: slice, key: jax.Array | None = None
    ) -> jax.Array:
        """Predicts the mean and the quantiles, `[steps, rows, horizon, 1 + levels]`.

        It reads features `[time, rows, features]`, and predicts only at some steps: a forecast
        costs more than a step of the recurrence. The quantiles cannot cross: each is a positive
        distance above the one before it.
        """
        stack_key, dropout_key = (None, None) if key is None else jax.random.split(key)
        _, ys = self.stack.apply(params.stack, None, xs, key=stack_key)
        xs, ys = xs[at], ys[at]
        ys = nn.Dropout(self.dropout, deterministic=key is None).apply({}, ys, rng=dropout_key)
        raw: Any = self._readout.apply(in_32_bits(params.readout), in_32_bits(ys))
        center: Any = self._skip.apply(in_32_bits(params.skip), in_32_bits(xs))
        raw = raw.reshape(*raw.shape[:-1], self.horizon, 1 + len(LEVELS))
        mean, quantiles = raw[..., :1], raw[..., 1:]
        median, distances = quantiles[..., MEDIAN, None], jax.nn.softplus(quantiles)
        below = median - jnp.cumsum(distances[..., :MEDIAN][..., ::-1], -1)[..., ::-1]
        above = median + jnp.cumsum(distances[..., MEDIAN + 1 :], -1)
        predicted = jnp.concatenate([mean, below, median, above], -1)
        return center[..., None] + predicted

    @property
    def _readout(self) -> nn.Dense:
        return nn.Dense(self.horizon * (1 + len(LEVELS)), kernel_init=nn.initializers.zeros)

    @property
    def _skip(self) -> nn.Dense:
        return nn.Dense(self.horizon, use_bias=False, kernel_init=nn.initializers.zeros)


def losses(forecast: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared error of the mean plus the pinball losses of the quantiles.

    The pinball loss is that of R. Koenker and G. Bassett, "Regression quantiles", 1978.

    Args:
        forecast: the output of the model, `[..., 1 + levels]`.
        targets: the targets, `[...]`; a NaN is missing, and its loss is 0.
    """
    observed = ~jnp.isnan(targets)
    error = jnp.where(observed, targets, 0.0)[..., None] - forecast
    levels = jnp.array(LEVELS)
    pinball = jnp.maximum(levels * error[..., 1:], (levels - 1) * error[..., 1:])
    return jnp.where(observed, 0.5 * error[..., 0] ** 2 + pinball.sum(-1), 0.0)
