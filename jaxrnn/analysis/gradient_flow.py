"""How large the derivative of the last state by an earlier one is, against the lag between them."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import _validation as checks
from jaxrnn._arguments import check_key, check_size
from jaxrnn._cell import Cell, input_rank, step_with_key
from jaxrnn._typing import Array, PyTree


class GradientFlow(NamedTuple):
    """Sizes of J_k = ∂s_T/∂s_(T-k), what `gradient_flow` returns; the first axis is the lag k.

    Logarithms, because the sizes of a vanishing or exploding gradient leave every number format.
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
    """Measures how an error at the last step is passed back to the states before it.

        s_t = step(params, s_(t-1), x_t),   J_k = ∂s_T/∂s_(T-k) = D_T D_(T-1) ... D_(T-k+1)

    with D_t = ∂s_t/∂s_(t-1) along the trajectory of the inputs, s all that the cell remembers as
    one real vector of n numbers (the hidden and the cell state of an LSTM; real and imaginary
    parts), and k = 0, ..., T. ‖J_k‖_F / √n is the root mean square of the factor by which J_k
    stretches a random direction: 1 for every k if the recurrence is orthogonal.

    One pass back in time multiplies all n rows of the identity, or a few random vectors v, from
    the left to these Jacobians, a vector-Jacobian product a step; no Jacobian is formed alone. The
    rows are brought back to length 1 at each step and the logarithms added up, so nothing
    underflows or overflows, whatever T is.

    Args:
        cell: the cell; a stochastic one runs without a key.
        params: its parameters.
        xs: inputs ``[time, *batch, ...]``.
        state: the state before the first step; None is ``cell.init_state``.
        probes: None for exact norms at n products a step; else how many random vectors estimate
            ``log_rms``, without bias for its square: n E|v J|² / |v|² = ‖J‖_F².
        key: randomness of the probes; needed with them.

    Shapes:
        Both fields of the result ``[time + 1, *batch]``; index k is the lag. With ``probes``,
        ``log_largest`` is None.

    Returns:
        A `GradientFlow`. A Jacobian that is exactly zero has the logarithm -inf. A state's leaves
        that are not floating-point numbers have no derivative and are left out.

    Raises:
        TypeError, ValueError: as `jaxrnn.unroll` does; ``probes`` is not a positive int, or one of
            ``probes`` and ``key`` is given alone; the state holds no floating-point numbers.

    Example:
        An IRNN starts from the identity: while its units are active, no error vanishes.

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
    checks.check_cell(cell)
    if probes is not None:
        check_size("probes", probes)
    if (probes is None) != (key is None):
        raise ValueError(
            f"probes and key go together: got probes={probes!r} and "
            f"{'no key' if key is None else 'a key'}; leave out both for exact norms, or give "
            "both, e.g. probes=16, key=jax.random.key(0)"
        )
    if key is not None:
        check_key(key)
    params, xs = checks.as_arrays("params", params), checks.as_arrays("xs", xs)
    state = checks.as_arrays("state", state)
    _, batch_shape = checks.leading_shape(xs, input_rank(cell))
    checks.check_one_float_dtype(params, xs)
    state = checks.check_state(cell, params, state, xs, batch_shape)
    checks.check_step(cell, params, state, xs)
    if not any(map(_is_inexact, jax.tree.leaves(state))):
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
        vector, rebuild = _as_vector(before, axes)

        def after(vector):
            return _as_vector(step_with_key(cell, params, rebuild(vector), x, None)[0], axes)[0]

        pull = jax.vjp(after, vector)[1]
        rows, log_factor = _scaled(jax.vmap(lambda row: pull(row)[0])(rows))
        carry = rows, log_rms + log_factor
        return carry, measure(*carry)

    def measure(rows, log_rms):
        if probes is not None:
            return GradientFlow(log_rms, None)
        largest = jnp.linalg.norm(jnp.moveaxis(rows, 0, -2), ord=2, axis=(-2, -1))
        return GradientFlow(log_rms, log_rms + jnp.log(largest) + math.log(len(rows)) / 2)

    final, states = jax.lax.scan(forward, state, xs)
    vector, _ = _as_vector(final, axes)
    rows = _first_rows(vector, probes, key)
    # Together of length 1 at lag 0, where the root mean square is 1, too.
    first = _scaled(rows)[0], jnp.zeros(vector.shape[:-1], vector.dtype)
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


def _scaled(rows: Array) -> tuple[Array, Array]:
    """The rows of each batch element, brought to length 1 together, and the log of their length."""
    # Divided by the largest first: squares leave the number format long before the numbers do.
    largest = jnp.max(jnp.abs(rows), axis=(0, -1))
    safe = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    rows = rows / safe[..., None]
    length = jnp.sqrt(jnp.sum(rows * rows, axis=(0, -1)))
    rows = rows / jnp.where(length > 0, length, jnp.ones_like(length))[..., None]
    return rows, jnp.log(length) + jnp.log(safe)


def _is_inexact(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _as_vector(state: PyTree, axes: int) -> tuple[Array, Callable[[Array], PyTree]]:
    """A state as one real vector ``[*batch, n]``, and the way back."""
    leaves, treedef = jax.tree.flatten(state)
    moving = [i for i, leaf in enumerate(leaves) if _is_inexact(leaf)]
    parts = []
    for i in moving:
        flat = leaves[i].reshape(*leaves[i].shape[:axes], -1)
        parts += [flat.real, flat.imag] if jnp.iscomplexobj(flat) else [flat]
    widest = functools.reduce(jnp.promote_types, (part.dtype for part in parts))
    sizes = [part.shape[-1] for part in parts]

    def rebuild(vector: Array) -> PyTree:
        pieces = iter(jnp.split(vector, list(itertools.accumulate(sizes))[:-1], axis=-1))
        rebuilt = list(leaves)
        for i in moving:
            piece = next(pieces)
            if jnp.iscomplexobj(leaves[i]):
                piece = jax.lax.complex(piece, next(pieces))
            rebuilt[i] = piece.astype(leaves[i].dtype).reshape(leaves[i].shape)
        return jax.tree.unflatten(treedef, rebuilt)

    return jnp.concatenate([part.astype(widest) for part in parts], axis=-1), rebuild
