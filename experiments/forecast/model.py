"""A network whose outputs are a mean and quantiles of many steps ahead, and what it learns by."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.forecast.report import LEVELS
from jaxrnn.layers import Stack


class Params(NamedTuple):
    """Parameters of `Model`."""

    stack: Any
    readout: Any
    skip: Any


@dataclass(frozen=True)
class Model:
    """Recurrent layers and a dense read-out, which sees the inputs, too.

    Args:
        stack: the recurrent layers.
        horizon: how many steps to look ahead.
        dropout: that of what the last layer gives to the read-out.
    """

    stack: Stack
    horizon: int
    dropout: float

    def init(self, key: jax.Array, features: int) -> Params:
        """Draws the parameters."""
        keys = jax.random.split(key, 3)
        return Params(
            self.stack.init(keys[0], features),
            self._readout.init(keys[1], jnp.zeros(self.stack.output_size)),
            self._skip.init(keys[2], jnp.zeros(features)),
        )

    def apply(
        self, params: Params, xs: jax.Array, at: slice, key: jax.Array | None = None
    ) -> jax.Array:
        """Reads `xs [time, rows, features]`; gives `[time, rows, horizon, 1 + levels]` at some.

        The first is the mean, then come the quantiles, which cannot cross: each is so much above
        the one before it.
        """
        stack_key, dropout_key = (None, None) if key is None else jax.random.split(key)
        _, ys = self.stack.apply(params.stack, None, xs, key=stack_key)
        xs, ys = xs[at], ys[at]  # a forecast is many numbers: more work than the recurrence
        ys = nn.Dropout(self.dropout, deterministic=key is None).apply({}, ys, rng=dropout_key)
        raw: Any = self._readout.apply(params.readout, ys)
        centre: Any = self._skip.apply(params.skip, xs)
        raw = raw.reshape(*raw.shape[:-1], self.horizon, 1 + len(LEVELS)).astype("float32")
        centre = centre[..., None].astype("float32")
        middle = 1 + len(LEVELS) // 2
        mean, median = raw[..., :1], raw[..., middle : middle + 1]
        steps = jax.nn.softplus(raw)
        below = median - jnp.cumsum(steps[..., 1:middle][..., ::-1], -1)[..., ::-1]
        above = median + jnp.cumsum(steps[..., middle + 1 :], -1)
        return centre + jnp.concatenate([mean, below, median, above], -1)

    @property
    def _readout(self) -> nn.Dense:
        return nn.Dense(self.horizon * (1 + len(LEVELS)), kernel_init=nn.initializers.zeros)

    @property
    def _skip(self) -> nn.Dense:
        return nn.Dense(self.horizon, use_bias=False, kernel_init=nn.initializers.zeros)


@dataclass(frozen=True)
class Ensemble:
    """Several networks side by side, whose forecasts are averaged, quantile by quantile.

    Each has learnt alone: what one got wrong by chance, the others did not.

    Args:
        model: each of them.
        members: how many there are; their parameters are stacked.
    """

    model: Model
    members: int

    def init(self, key: jax.Array, features: int) -> Params:
        """Draws the parameters of all."""
        keys = jax.random.split(key, self.members)
        return jax.vmap(lambda key: self.model.init(key, features))(keys)

    def each(self, params: Params, xs: jax.Array, at: slice, key: jax.Array) -> jax.Array:
        """What each gives in training, `[members, time, rows, horizon, 1 + levels]`."""
        one = lambda params, key: self.model.apply(params, xs, at, key)  # noqa: E731
        return jax.vmap(one)(params, jax.random.split(key, self.members))

    def apply(self, params: Params, xs: jax.Array, at: slice) -> jax.Array:
        """What they give together, `[time, rows, horizon, 1 + levels]`."""
        return jax.vmap(lambda params: self.model.apply(params, xs, at))(params).mean(0)


def losses(forecast: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared error of the mean and the pinball losses, summed; as `targets` are shaped.

    Where the target is NaN, nothing came, and the loss is 0.
    """
    came = ~jnp.isnan(targets)
    error = jnp.where(came, targets, 0.0)[..., None] - forecast
    levels = jnp.array(LEVELS)
    pinball = jnp.maximum(levels * error[..., 1:], (levels - 1) * error[..., 1:])
    return jnp.where(came, 0.5 * error[..., 0] ** 2 + pinball.sum(-1), 0.0)
