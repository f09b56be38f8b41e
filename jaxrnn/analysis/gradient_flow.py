"""The size of the derivative of the last state with respect to earlier ones, by their lag."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_key, check_size
from jaxrnn._cell import Cell, step_with_key
from jaxrnn._schedule.flat_state import flatten_state, is_inexact
from jaxrnn._typing import Array, PyTree
from jaxrnn._validation import prepare


class GradientFlow(NamedTuple):
    """Norms of J_k = ∂s_T/∂s_(T-k), the result of `gradient_flow`; the first axis is the lag k.

    Logarithms, because the norms of a vanishing or exploding gradient underflow or overflow.
    """

    log_rms: Array  # [time + 1, *batch], log(‖J_k‖_F / √n), 0 at lag 0
    log_largest: Array | None  # [time + 1, *batch], the log of the largest singular value, or None


def gradient_flow(
    cell: Cell,
    params: PyTree,
    xs: PyTree,
    state: PyTree = None,
    *,
    probes: int | None = None,
    key: Array | None = None,
) -> GradientFlow:
    """Measures how gradients at the last step propagate to the states before it.

        s_t = step(params, s_(t-1), x_t),   J_k = ∂s_T/∂s_(T-k) = D_T D_(T-1) ... D_(T-k+1)

    with D_t = ∂s_t/∂s_(t-1) along the trajectory of the inputs, s the whole state of the cell as
    one real vector of n numbers (the hidden and the cell state of an LSTM; real and imaginary
    parts), and k = 0, ..., T. ‖J_k‖_F / √n is the root mean square of the factor by which J_k
    stretches a random direction: 1 for every k if the recurrence is orthogonal.

    One backward pass multiplies all n rows of the identity, or a few random vectors v, from the
    left to these Jacobians, a vector-Jacobian product a step; no Jacobian is formed. The rows are
    normalized at each step and the logarithms are accumulated, so nothing underflows or overflows
    for any T.

    Args:
        cell: the cell; a stochastic one runs without a key.
        params: its parameters.
        xs: inputs ``[time, *batch, ...]``.
        state: the initial state; None is ``cell.init_state``.
        probes: None for exact norms at n products a step; otherwise the number of random vectors
            that estimate ``log_rms``, without bias for its square: n E|v J|² / |v|² = ‖J‖_F².
        key: the random key of the probes; required with them.

    Shapes:
        Both fields of the result ``[time + 1, *batch]``; index k is the lag. With ``probes``,
        ``log_largest`` is None.

    Returns:
        A `GradientFlow`. A Jacobian that is exactly zero has the logarithm -inf. Leaves of the
        state that are not floating-point have no derivative and are excluded.

    Raises:
        TypeError, ValueError: as `jaxrnn.unroll` does; ``probes`` is not a positive int, or one of
            ``probes`` and ``key`` is given alone; the state holds no floating-point numbers.

    Example:
        An IRNN starts from the identity: while its units are active, no gradient vanishes.

        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.IRNN(4, kernel_init=rnn.initializers.Constant(0.1))
        >>> params = cell.init(jax.random.key(0), input_size=1)
        >>> flow = rnn.analysis.gradient_flow(cell, params, jnp.ones((100, 1)))
        >>> flow.log_rms.shape, float(jnp.exp(flow.log_rms[100]))
        ((101,), 1.0)

    References:
        Y. Bengio, P. Simard and P. Frasconi, "Learning long-term dependencies with gradient descent
        is difficult", IEEE Transactions on Neural Networks 5, 1994.
        R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural
        networks", 2013, eq. 5.
    """
    if probes is not None:
        check_size("probes", probes)
    if (probes is None) != (key is None):
        raise ValueError(
            f"probes and key go together: got probes={probes!r} and "
            f"{'no key' if key is None else 'a key'}; omit both for exact norms, or pass both, "
            "e.g. probes=16, key=jax.random.key(0)"
        )
    if key is not None:
        check_key(key)
    params, xs, state, _, batch_shape = prepare(cell, params, xs, state)
    if not any(map(is_inexact, jax.tree.leaves(state))):
        raise ValueError(
            f"the state of {type(cell).__name__} must hold floating-point numbers to have a "
            "derivative, got none"
        )
    return _flow(cell, probes, len(batch_shape), params, state, xs, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _flow(cell: Cell, probes: int | None, axes: int, params, state, xs, key) -> GradientFlow:
    def forward(state, x):
        return step_with_key(cell, params, state, x, None)[0], state

    def back(carry, step):
        rows, log_rms = carry
        before, x = step
        vector, unflatten = flatten_state(before, axes)

        def after(vector):
            return flatten_state(step_with_key(cell, params, unflatten(vector), x, None)[0], axes)[
                0
            ]

        pull = jax.vjp(after, vector)[1]
        rows, log_factor = _normalized(jax.vmap(lambda row: pull(row)[0])(rows))
        carry = rows, log_rms + log_factor
        return carry, measure(*carry)

    def measure(rows, log_rms):
        if probes is not None:
            return GradientFlow(log_rms, None)
        largest = jnp.linalg.norm(jnp.moveaxis(rows, 0, -2), ord=2, axis=(-2, -1))
        return GradientFlow(log_rms, log_rms + jnp.log(largest) + math.log(len(rows)) / 2)

    final, states = jax.lax.scan(forward, state, xs)
    vector, _ = flatten_state(final, axes)
    rows = _first_rows(vector, probes, key)
    # Of joint length 1 at lag 0, where the root mean square is 1, too.
    first = _normalized(rows)[0], jnp.zeros(vector.shape[:-1], vector.dtype)
    _, later = jax.lax.scan(back, first, (states, xs), reverse=True)
    return jax.tree.map(
        lambda zero, rest: jnp.concatenate([zero[None], rest[::-1]]), measure(*first), later
    )


def _first_rows(vector: Array, probes: int | None, key: Any) -> Array:
    """The identity, or random directions, as ``[rows, *batch, n]``."""
    if probes is not None:
        rows = jax.random.normal(key, (probes, *vector.shape), vector.dtype)
        return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)
    n = vector.shape[-1]
    identity = jnp.eye(n, dtype=vector.dtype).reshape(n, *(1 for _ in vector.shape[:-1]), n)
    return jnp.broadcast_to(identity, (n, *vector.shape))


def _normalized(rows: Array) -> tuple[Array, Array]:
    """The rows of each batch element, scaled to joint length 1, and the log of their length."""
    # Divided by the largest first, because squares overflow long before the numbers do.
    largest = jnp.max(jnp.abs(rows), axis=(0, -1))
    safe = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    rows = rows / safe[..., None]
    length = jnp.sqrt(jnp.sum(rows * rows, axis=(0, -1)))
    rows = rows / jnp.where(length > 0, length, jnp.ones_like(length))[..., None]
    return rows, jnp.log(length) + jnp.log(safe)
