"""One training step: gradient, update and average, for one seed or for several side by side."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.common.options import Options, Precision, make_optimizer

PyTree = Any
Loss = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, PyTree]]


class State(NamedTuple):
    """All that changes from step to step.

    Fields:
        params: what the next gradient is taken at.
        optimizer: its moments and counts.
        carry: what the last batch leaves to the next.
        average: the mean of the parameters after every step, None where there is none.
    """

    params: PyTree
    optimizer: optax.OptState
    carry: PyTree
    average: PyTree = None

    @property
    def judged(self) -> PyTree:
        """The parameters to validate and to keep: their average, where there is one."""
        return self.params if self.average is None else self.average


class Trainer(NamedTuple):
    """What a run repeats.

    Fields:
        init: `(params, carry) -> state`.
        step: `(state, batch, number of the step) -> (state, (loss, norm of its gradient))`.
    """

    init: Callable[[PyTree, PyTree], State]
    step: Callable[[State, PyTree, jax.Array], tuple[State, tuple[jax.Array, jax.Array]]]


def make_trainer(loss: Loss, options: Options) -> Trainer:
    """Trains from one seed, that of the options."""
    init, step = _init_and_step(loss, options)
    key = jax.random.key(options.seed)
    return Trainer(init, lambda state, batch, number: step(state, batch, number, key))


def make_seeds_trainer(loss: Loss, options: Options, seeds: Sequence[int]) -> Trainer:
    """Trains from several seeds at once: states, losses and norms have a leading axis for them.

    Each seed has its randomness, clipping and moments for itself, as if it were alone.
    """
    init, step = _init_and_step(loss, options)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    mapped = jax.vmap(step, in_axes=(0, None, None, 0))
    return Trainer(jax.vmap(init), lambda state, batch, number: mapped(state, batch, number, keys))


def in_precision(loss: Loss, precision: Precision) -> Loss:
    """The loss computed in another precision, from the same parameters and to the same carry.

    Parameters and the batch's floating-point leaves are rounded on the way in, so gradients come
    back in the dtype of the parameters. The carry is left as it is: recurrent states are float32
    for bfloat16 parameters, too. A loss should turn the model's outputs to float32 before it sums
    over them.
    """
    if precision == "float32":
        return loss

    def rounded(tree: PyTree) -> PyTree:
        floating = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating)  # noqa: E731
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaf, precision) if floating(leaf) else leaf, tree
        )

    def lower(params, carry, batch, key):
        value, after = loss(rounded(params), carry, rounded(batch), key)
        after = jax.tree.map(lambda new, old: new.astype(jnp.result_type(old)), after, carry)
        return value.astype("float32"), after

    return lower


def average(mean: PyTree, params: PyTree, decay: float, number: jax.Array) -> PyTree:
    """The mean of the parameters after each of the steps 0, ..., number.

        mean_n = Σ_k decay^(n - k) params_k / Σ_k decay^(n - k),   k = 0, ..., n

    So the parameters that were drawn at first have no part in it, and it needs no correction.

    Args:
        mean: the one before; it has no weight at step 0.
        params: those after step `number`.
        decay: the weight of each step's parameters by that of the next one's; in (0, 1).
        number: the step, from 0 on.
    """
    # The newest one's share, 1 / Σ_k decay^(n - k), without rounding where decay is close to 1.
    share = (1 - decay) / -jnp.expm1((number + 1) * math.log(decay))
    return optax.incremental_update(params, mean, share)


def _init_and_step(loss: Loss, options: Options) -> tuple[Callable, Callable]:
    optimizer = make_optimizer(options)
    differentiate = jax.value_and_grad(in_precision(loss, options.precision), has_aux=True)

    def init(params, carry):
        mean = params if options.average else None
        return State(params, optimizer.init(params), carry, mean)

    def step(state, batch, number, key):
        key = jax.random.fold_in(key, number)
        (value, carry), gradient = differentiate(state.params, state.carry, batch, key)
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        mean = state.average
        if options.average:
            mean = average(mean, params, options.average, number)
        return State(params, moments, carry, mean), (value, optax.tree.norm(gradient))

    return init, step
