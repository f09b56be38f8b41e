"""The linearization of a cell around a state: the Jacobians of one step."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell, step_with_key
from jaxrnn._schedule.flat_state import flatten_state, is_inexact
from jaxrnn._typing import Array, PyTree
from jaxrnn._validation import prepare


class Linearisation(NamedTuple):
    """The Jacobians of one step, the result of `linearise`.

    Attributes:
        jacobian: ∂s'/∂s ``[*batch, n, n]``, rows by the new state.
        input_jacobian: ∂s'/∂x ``[*batch, n, inputs]``.
    """

    jacobian: Array
    input_jacobian: Array


def linearise(cell: Cell, params: PyTree, state: PyTree, x: PyTree) -> Linearisation:
    """Linearizes one step of a cell around a state and an input.

        s' = step(params, s, x),   s'(s + u, x + v) ≈ s'(s, x) + A u + B v

    with A = ∂s'/∂s and B = ∂s'/∂x. The state s is one real vector of n numbers, its leaves in the
    order of the pytree: the hidden and then the cell state of an LSTM; the real and then the
    imaginary parts of a complex leaf. The inputs likewise. Both Jacobians are dense.

    Args:
        cell: the cell; a stochastic one runs without a key.
        params: its parameters.
        state: the state before the step, leaves ``[*batch, ...]``.
        x: the input of the step, leaves ``[*batch, ...]``.

    Returns:
        A `Linearisation`. Leaves that are not floating-point have no derivative and are excluded.
        ``jnp.linalg.eigvals(result.jacobian)`` gives the eigenvalues; those inside the unit circle
        belong to directions in which the step contracts.

    Raises:
        TypeError, ValueError: as `jaxrnn.unroll` does for one step; or the state holds no
            floating-point numbers.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.LSTM(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> local = rnn.analysis.linearise(cell, params, cell.init_state(params), jnp.ones(3))
        >>> local.jacobian.shape, local.input_jacobian.shape
        ((8, 8), (8, 3))
    """
    xs = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], x)
    params, xs, state, _, batch_shape = prepare(cell, params, xs, state)
    if not any(map(is_inexact, jax.tree.leaves(state))):
        raise ValueError(
            f"the state of {type(cell).__name__} must hold floating-point numbers to have a "
            "derivative, got none"
        )
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    return _linearise(cell, len(batch_shape), params, state, x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _linearise(cell: Cell, axes: int, params, state, x) -> Linearisation:
    def one(state, x):
        vector, unflatten = flatten_state(state, 0)
        inputs, unflatten_input = _flatten_input(x)

        def step(vector, inputs):
            after, _ = step_with_key(cell, params, unflatten(vector), unflatten_input(inputs), None)
            return flatten_state(after, 0)[0]

        return Linearisation(*jax.jacfwd(step, argnums=(0, 1))(vector, inputs))

    for _ in range(axes):
        one = jax.vmap(one)
    return one(state, x)


def _flatten_input(x: PyTree):
    """The floating-point leaves of an input as a vector, which may be empty, and the inverse."""
    if any(map(is_inexact, jax.tree.leaves(x))):
        return flatten_state(x, 0)
    return jnp.zeros(0), lambda vector: x
