"""One step of training: the state that it changes, the precision, the EMA of the parameters."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from experiments.common.options import Options, make_optimizer
from experiments.common.random_bits import THREEFRY
from experiments.common.sharding import Layout

PyTree = Any
Loss = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, PyTree]]


class State(NamedTuple):
    """All that changes from step to step; `ema` is None without `--average`."""

    params: PyTree
    opt_state: optax.OptState
    carry: PyTree
    ema: PyTree = None

    @property
    def eval_params(self) -> PyTree:
        """The parameters to validate and to keep."""
        return self.params if self.ema is None else self.ema


def init_state(
    params: PyTree, carry: PyTree, options: Options, seeds: Sequence[int] | None = None
) -> State:
    """The state before the first step; with `seeds`, its leaves have a leading axis of seeds."""
    init = make_optimizer(options).init
    opt_state = init(params) if seeds is None else jax.vmap(init)(params)
    return State(params, opt_state, carry, params if options.average else None)


def make_step(
    loss: Loss,
    options: Options,
    seeds: Sequence[int] | None = None,
    replicated: NamedSharding | None = None,
) -> Callable[[State, PyTree, jax.Array], tuple[State, tuple[jax.Array, jax.Array]]]:
    """Returns `step(state, batch, number) -> (state, (loss, norm of its gradient))`.

    With `seeds`, states and results have a leading axis of seeds. `replicated` is needed for
    sharded parameters, which a step gathers once.
    """
    optimizer = make_optimizer(options)
    loss = in_precision(loss, options.precision)
    if replicated is not None and options.shard == "parameters":
        loss = _gather_params(loss, replicated)
    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def step(state, batch, number, key):
        key = jax.random.fold_in(key, number)
        (value, carry), gradient = value_and_grad(state.params, state.carry, batch, key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params, ema = optax.apply_updates(state.params, updates), state.ema
        if options.average:
            ema = update_ema(ema, params, options.average, number)
        return State(params, opt_state, carry, ema), (value, optax.tree.norm(gradient))

    if seeds is None:
        key = jax.random.key(options.seed, impl=THREEFRY)
    else:
        key = jnp.stack([jax.random.key(seed, impl=THREEFRY) for seed in seeds])
        step = jax.vmap(step, in_axes=(0, None, None, 0))
    return lambda state, batch, number: step(state, batch, number, key)


def jit_step(
    loss: Loss, options: Options, layout: Layout | None = None, seeds: Sequence[int] | None = None
) -> Any:
    """`make_step`, jitted for the shardings of a layout; it donates the state."""
    if layout is None:
        return jax.jit(make_step(loss, options, seeds), donate_argnums=0)
    shardings = {"in_shardings": tuple(layout), "out_shardings": (layout.state, layout.replicated)}
    step = make_step(loss, options, seeds, layout.replicated)
    return jax.jit(step, donate_argnums=0, **shardings)


def in_precision(loss: Loss, precision: str) -> Loss:
    """Casts the parameters and the batch of a loss to a precision.

    The gradient and the loss come back in float32, the carry in its own dtype. The loss should sum
    `in_32_bits`, and so should layers from Flax their gradients; those of `jaxrnn` do.
    """
    if precision == "float32":
        return loss

    def cast(leaf):
        floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
        return jnp.asarray(leaf, precision) if floating else leaf

    def low_precision_loss(params, carry, batch, key):
        value, after = loss(jax.tree.map(cast, params), carry, jax.tree.map(cast, batch), key)
        return value.astype("float32"), optax.tree.cast_like(after, carry)

    return low_precision_loss


def in_32_bits(tree: PyTree) -> PyTree:
    """Casts arrays of 16 bits to float32.

    A gradient is a sum over time, rows and devices. That of a layer with such parameters is rounded
    to 16 bits once, after the sum.
    """

    def widen(leaf):
        narrow = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
        return leaf.astype("float32") if narrow else leaf

    return jax.tree.map(widen, tree)


def update_ema(ema: PyTree, params: PyTree, decay: float, number: jax.Array) -> PyTree:
    """Updates the bias-corrected exponential moving average (EMA) after step `number`.

    ema_n = Σ_k decay^(n - k) params_k / Σ_k decay^(n - k),   k = 0, ..., n
    """
    # The weight of the newest, 1 / Σ_k decay^(n - k), accurate where decay is close to 1.
    weight = (1 - decay) / -jnp.expm1((number + 1) * math.log(decay))
    return optax.incremental_update(params, ema, weight)


def _gather_params(loss: Loss, replicated: NamedSharding) -> Loss:
    """Gathers sharded parameters before the loss; else each step of a recurrence might."""

    def gathered_loss(params, carry, batch, key):
        return loss(jax.lax.with_sharding_constraint(params, replicated), carry, batch, key)

    return gathered_loss
