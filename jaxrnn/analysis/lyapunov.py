"""Lyapunov exponents: how fast nearby trajectories of a cell diverge."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_key, check_size
from jaxrnn._cell import Cell
from jaxrnn._schedule.flat_state import flatten_state, is_inexact
from jaxrnn._typing import Array, PyTree
from jaxrnn._validation import prepare


def lyapunov_exponents(
    cell: Cell,
    params: PyTree,
    xs: PyTree,
    state: PyTree = None,
    *,
    count: int = 1,
    burn_in: int = 0,
    key: Array | None = None,
) -> Array:
    """The largest Lyapunov exponents of a cell along the trajectory of its inputs.

        Q[t] R[t] = J[t] Q[t-1],   J[t] = ∂state[t]/∂state[t-1]
        λ_i = mean over t of log |R[t]_ii|

    The distance of two nearby states grows by e^(λ₁ t) in t steps: with a negative largest exponent
    the cell forgets its initial state, with a positive one it is chaotic. Gradients vanish or
    explode at the same rate, and `engines.Newton` needs few iterations where it is negative. The
    exponents are in nats a step; those of a linear cell are the logarithms of the absolute
    eigenvalues.

    Args:
        cell: the cell; not a stochastic one.
        params: its parameters.
        xs: inputs; the error of the estimate decreases as 1/time at best.
        state: the initial state; None is ``cell.init_state``.
        count: the number of exponents, at most the number of floating-point elements of a state,
            where a complex element counts as two.
        burn_in: the number of initial steps excluded from the mean, during which the trajectory
            converges to its attractor and Q to the directions of largest growth.
        key: the random key of the initial directions; None is a fixed key.

    Shapes:
        xs ``[time, *batch, ...]``; the result ``[*batch, count]``, in descending
        order up to the error of the estimate.

    Raises:
        TypeError, ValueError: as `unroll` does; or ``count`` or ``burn_in`` is out of range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> def halve(rate, h, x):
        ...     return rate * h + x, h
        >>> cell = rnn.from_step(halve, init_state=lambda rate, batch: jnp.zeros((*batch, 1)))
        >>> print(rnn.analysis.lyapunov_exponents(cell, jnp.array(0.5), jnp.ones((50, 1))))
        [-0.6931...]

    References:
        G. Benettin, L. Galgani, A. Giorgilli and J.-M. Strelcyn, "Lyapunov characteristic exponents
        for smooth dynamical systems and for Hamiltonian systems; a method for computing all of
        them", 1980.
        R. Vogt, M. Puelma Touzel, E. Shlizerman and G. Lajoie, "On Lyapunov exponents for RNNs:
        understanding information propagation using dynamical systems tools", 2022.
    """
    params, xs, state, time, batch_shape = prepare(cell, params, xs, state)
    check_size("count", count)
    if isinstance(burn_in, bool) or not isinstance(burn_in, int):
        raise TypeError(f"burn_in must be an int, got {burn_in!r}")
    if not 0 <= burn_in < time:
        raise ValueError(
            f"burn_in must be in [0, {time}), below the number of steps, got {burn_in}"
        )
    if key is not None:
        check_key(key)
    floats = [leaf for leaf in jax.tree.leaves(state) if is_inexact(leaf)]
    vector = flatten_state(state, len(batch_shape))[0] if floats else jnp.zeros(0)
    if count > vector.shape[-1]:
        raise ValueError(
            f"count must be at most the number of floating-point elements of a state, "
            f"{vector.shape[-1]}, got {count}"
        )
    key = jax.random.key(0) if key is None else key
    directions = jax.random.normal(key, (*vector.shape, count), vector.dtype)
    return _growth(cell, len(batch_shape), params, state, xs, directions)[burn_in:].mean(axis=0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _growth(
    cell: Cell, axes: int, params: PyTree, state: PyTree, xs: PyTree, directions: Array
) -> Array:
    """The logarithms of the diagonal of R, at each step ``[time, *batch, count]``."""
    # Strong types, as the step returns them.
    state = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)

    def body(carry: tuple[PyTree, Array], x: PyTree) -> tuple[tuple[PyTree, Array], Array]:
        state, basis = carry
        h, unflatten = flatten_state(state, axes)

        def step(h: Array) -> tuple[Array, PyTree]:
            new = cell.step(params, unflatten(h), x)[0]
            return flatten_state(new, axes)[0], new

        def push(direction: Array) -> Array:
            return jax.jvp(step, (h,), (direction,), has_aux=True)[1]

        images = jax.vmap(push, in_axes=-1, out_axes=-1)(basis)
        basis, r = jnp.linalg.qr(images)
        growth = jnp.log(jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1)))
        return (step(h)[1], basis), growth

    carry: Any = state, jnp.linalg.qr(directions)[0]
    return jax.lax.scan(body, carry, xs)[1]
