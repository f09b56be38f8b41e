"""How fast a cell's trajectories part: Lyapunov exponents."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import _validation as checks
from jaxrnn._arguments import check_key, check_size
from jaxrnn._cell import Cell, input_rank
from jaxrnn._schedule.flat_state import FlatState
from jaxrnn._typing import Array, PyTree


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
    """The largest Lyapunov exponents of a cell along the trajectory that its inputs drive.

        Q[t] R[t] = J[t] Q[t-1],   J[t] = ∂state[t]/∂state[t-1]
        λ_i = mean over t of log |R[t]_ii|

    Two states that start a little apart are e^(λ₁ t) times as far apart after t steps: a negative
    largest exponent means that the cell forgets where it began, a positive one that it is chaotic.
    Gradients grow and vanish at the same rate, and `engines.Newton` needs few iterations where it
    is negative. The exponents are nats a step; of a linear cell they are the logarithms of the
    absolute eigenvalues.

    Args:
        cell: the cell; without randomness.
        params: its parameters.
        xs: inputs; the longer, the better the estimate, whose error falls as 1/time at best.
        state: the state before the first step; None is ``cell.init_state``.
        count: how many exponents; all of them for the number of floating-point elements of a
            state, where a complex one counts as two.
        burn_in: steps at the beginning that are left out of the mean, while the trajectory comes to
            its attractor and Q turns to the directions that grow most.
        key: draws the first directions; None is a fixed one. The mean forgets them.

    Shapes:
        xs ``[time, *batch, ...]``; the result ``[*batch, count]``, the largest first up to the
        error of the estimate.

    Raises:
        TypeError, ValueError: as `unroll` does; or ``count`` or ``burn_in`` does not fit.

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
    checks.check_cell(cell)
    params, xs = checks.as_arrays("params", params), checks.as_arrays("xs", xs)
    state = checks.as_arrays("state", state)
    time, batch_shape = checks.leading_shape(xs, input_rank(cell))
    checks.check_one_float_dtype(params, xs)
    state = checks.check_state(cell, params, state, xs, batch_shape)
    checks.check_step(cell, params, state, xs)
    check_size("count", count)
    if isinstance(burn_in, bool) or not isinstance(burn_in, int):
        raise TypeError(f"burn_in must be an int, got {burn_in!r}")
    if not 0 <= burn_in < time:
        raise ValueError(
            f"burn_in must be in [0, {time}), below the number of steps, got {burn_in}"
        )
    if key is not None:
        check_key(key)
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    flat = FlatState.of(leaves, len(batch_shape))
    if not leaves or count > flat.size:
        raise ValueError(
            f"count must be at most the number of floating-point elements of a state, "
            f"{flat.size if leaves else 0}, got {count}"
        )
    key = jax.random.key(0) if key is None else key
    directions = jax.random.normal(key, (*batch_shape, flat.size, count), flat.dtype)
    growth = _growth(cell, flat, params, state, xs, directions)
    return growth[burn_in:].mean(axis=0)


@partial(jax.jit, static_argnums=(0, 1))
def _growth(
    cell: Cell, flat: FlatState, params: PyTree, state: PyTree, xs: PyTree, directions: Array
) -> Array:
    """The logarithms of the diagonal of R, at each step ``[time, *batch, count]``."""
    leaves, structure = jax.tree.flatten(state)
    leaves = [jax.lax.convert_element_type(leaf, leaf.dtype) for leaf in leaves]  # strong types

    def split(leaves: list) -> tuple[list, list]:
        moving = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
        return (
            [leaf for leaf, m in zip(leaves, moving, strict=True) if m],
            [leaf for leaf, m in zip(leaves, moving, strict=True) if not m],
        )

    def body(carry: tuple[list, Array], x: PyTree) -> tuple[tuple[list, Array], Array]:
        leaves, basis = carry
        moving, rest = split(leaves)

        def step(h: Array) -> tuple[Array, list]:
            own, others = iter(flat.unpack(h)), iter(rest)
            whole = [
                next(own) if jnp.issubdtype(leaf.dtype, jnp.inexact) else next(others)
                for leaf in leaves
            ]
            new = jax.tree.leaves(cell.step(params, structure.unflatten(whole), x)[0])
            return flat.pack(split(new)[0]), new

        h = flat.pack(moving)

        def push(direction: Array) -> Array:
            return jax.jvp(step, (h,), (direction,), has_aux=True)[1]

        images = jax.vmap(push, in_axes=-1, out_axes=-1)(basis)
        basis, r = jnp.linalg.qr(images)
        growth = jnp.log(jnp.abs(jnp.diagonal(r, axis1=-2, axis2=-1)))
        return (step(h)[1], basis), growth

    carry: Any = leaves, jnp.linalg.qr(directions)[0]
    return jax.lax.scan(body, carry, xs)[1]
