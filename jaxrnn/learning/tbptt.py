"""Truncated back-propagation through time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_size
from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._masking import MaskedInput
from jaxrnn._schedule.flat_state import batch_rank, is_inexact
from jaxrnn._sharding import equally_varying
from jaxrnn._typing import Array, PyTree
from jaxrnn.engines import Hoisted
from jaxrnn.learning._custom import Wanted, Work, explicit, with_gradient
from jaxrnn.learning._tracker import Cost
from jaxrnn.wrappers.masked import Masked


@frozen
class TBPTT:
    """Truncated back-propagation through time: no gradient beyond ``window`` steps.

    The sequence is divided into strides. The losses of the outputs of a stride reach back
    ``window`` steps from its end, and the state before these steps is a constant:

        stride [a, b):   back-propagation through the steps [max(b - window, 0), b)

    The final state belongs to the last stride. With ``window`` no smaller than the number of steps,
    this is back-propagation. Steps count whether or not they are masked.

    Args:
        window: the number of steps through which gradients flow.
        stride: the number of steps whose losses share a window; None is ``window``, so that every
            step is computed once. With 1, every loss reaches back ``window`` steps.

    Raises:
        TypeError, ValueError: an option is not a positive int, or ``stride`` is more than
            ``window``; or the gradient is differentiated.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> def loss(params, xs):
        ...     final, ys = rnn.unroll(cell, params, xs, engine=rnn.learning.TBPTT(5))
        ...     return ys[12].sum()  # of the stride [10, 15)
        >>> d = jax.grad(loss, argnums=1)(params, jax.numpy.ones((20, 3)))
        >>> print((d != 0).any(axis=1).nonzero()[0])
        [10 11 12]

    References:
        R. J. Williams and J. Peng, "An efficient gradient-based algorithm for on-line training of
        recurrent network trajectories", Neural Computation 2, 1990.
    """

    window: int
    stride: int | None = None

    def __post_init__(self):
        check_size("window", self.window)
        if self.stride is None:
            return
        check_size("stride", self.stride)
        if self.stride > self.window:
            raise ValueError(
                f"stride must be at most window={self.window}, so that each loss lies in a window, "
                f"got {self.stride}"
            )

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Always None: every cell is accepted."""
        return None

    def cost(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> Cost:
        """The states and inputs of a window, and the forward steps that are repeated."""
        leaves = [*jax.tree.leaves(state), *(leaf[0] for leaf in jax.tree.leaves(xs))]
        elements = sum(leaf.size for leaf in leaves) * self.window
        nbytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) * self.window
        return Cost(elements, nbytes, 0)

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``, with the truncated gradient."""
        params, state, xs = equally_varying((params, state, xs))
        whole, constants = explicit(cell, params, state, xs)
        count, rank = len(constants), batch_rank(cell, params, state)
        batch = jax.tree.leaves(state)[0].shape[:rank] if rank else ()
        structures = [jax.tree.structure(tree) for tree in (params, state, xs)]

        def unflatten(arrays: list, state: list, xs: list):
            trees = map(jax.tree.unflatten, structures, (arrays[count:], state, xs))
            params, state, xs = trees
            return (arrays[:count], params), state, xs

        def value(work: Work):
            trees = unflatten(work.arrays, work.state, work.xs)
            return Hoisted()(whole, *trees, reverse=reverse)

        def masked(arrays: list, state: list, xs: list, valid: Array):
            params, state, xs = unflatten(arrays, state, xs)
            valid = jnp.broadcast_to(
                valid.reshape(-1, *(1 for _ in batch)), (valid.shape[0], *batch)
            )
            final, ys = Hoisted()(Masked(whole), params, state, MaskedInput(xs, valid))
            return jax.tree.leaves(final), jax.tree.leaves(ys)

        def gradient(work: Work, wanted: Wanted, cotangents: tuple[PyTree, PyTree]):
            return _gradient(self, masked, work, wanted, cotangents, reverse)

        leaves = map(jax.tree.leaves, (params, state, xs))
        params, state, xs = leaves
        return with_gradient(value, gradient, Work([*constants, *params], [], state, xs, None))


def _gradient(
    rule: TBPTT,
    run: Callable,
    work: Work,
    wanted: Wanted,
    cotangents: tuple[PyTree, PyTree],
    reverse: bool,
) -> tuple[list, list, list]:
    """Cotangents of the parameters, the initial state and the inputs, window by window.

    The sequence is padded by skipped steps, to windows of one length.
    """
    time = work.xs[0].shape[0]
    window = min(rule.window, time)
    stride = min(rule.stride or window, window)
    before, after = window - stride, -time % stride
    blocks = (time + after) // stride
    floats = [[n for n, x in enumerate(group) if is_inexact(x)] for group in work[:1] + work[2:4]]

    def in_order(leaf: Array) -> Array:
        return jnp.flip(leaf, 0) if reverse else leaf

    def padded(leaf: Array) -> Array:
        leaf = in_order(leaf)
        return jnp.concatenate([leaf[:1]] * before + [leaf] + [leaf[-1:]] * after)

    xs = list(map(padded, work.xs))
    step = jnp.arange(before + time + after)
    valid = (step >= before) & (step < before + time)
    dstate, dys = ([x for x in jax.tree.leaves(tree) if x is not None] for tree in cotangents)
    dys = [_extended(in_order(dy), after) for dy in dys]

    def take(leaves: Any, begin: Array | int, size: int) -> Any:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, begin, size), leaves)

    def body(carry, number):
        state, darrays, dfirst, dxs = carry
        begin = number * stride
        inputs, flags = take(xs, begin, window), take(valid, begin, window)

        def differentiable(arrays, moving, inputs_moving):
            arrays = _replaced(work.arrays, floats[0], arrays)
            first = _replaced(state, floats[1], moving)
            x = _replaced(inputs, floats[2], inputs_moving)
            middle, ys = run(arrays, first, [leaf[:stride] for leaf in x], flags[:stride])
            final = middle
            if before:
                final, rest = run(arrays, middle, [leaf[stride:] for leaf in x], flags[stride:])
                both = zip(ys, rest, strict=True)
                ys = [jnp.concatenate(parts)[-stride:] for parts in both]
            ys = [y for y in ys if is_inexact(y)]
            return ([final[n] for n in floats[1]], ys), middle

        moving = (
            _chosen(work.arrays, floats[0]),
            _chosen(state, floats[1]),
            _chosen(inputs, floats[2]),
        )
        _, pull, middle = jax.vjp(differentiable, *moving, has_aux=True)
        is_last = number == blocks - 1
        final = [jnp.where(is_last, d, jnp.zeros_like(d)) for d in dstate]
        found = pull((final, take(dys, begin, stride)))
        darrays = jax.tree.map(jnp.add, darrays, found[0])
        from_start = begin <= before
        dfirst = [
            a + jnp.where(from_start, b, jnp.zeros_like(b))
            for a, b in zip(dfirst, found[1], strict=True)
        ]
        if any(wanted.xs):
            dxs = [
                jax.lax.dynamic_update_slice_in_dim(
                    total, jax.lax.dynamic_slice_in_dim(total, begin, window) + d, begin, 0
                )
                for total, d in zip(dxs, found[2], strict=True)
            ]
        return (middle, darrays, dfirst, dxs), None

    zeros = [
        jax.tree.map(jnp.zeros_like, _chosen(group, places))
        for group, places in zip((work.arrays, work.state, xs), floats, strict=True)
    ]
    carry, *_ = equally_varying(((work.state, *zeros), work, cotangents))
    (_, *found), _ = jax.lax.scan(body, carry, jnp.arange(blocks))
    found[2] = [in_order(d[before : before + time]) for d in found[2]]
    groups = (work.arrays, work.state, work.xs)
    whole = [
        _replaced([None] * len(group), places, values)
        for group, places, values in zip(groups, floats, found, strict=True)
    ]
    return whole[0], whole[1], whole[2]


def _chosen(leaves: list, places: list[int]) -> list:
    return [leaves[place] for place in places]


def _replaced(leaves: list, places: list[int], values: list) -> list:
    """The leaves, with others at some places."""
    leaves = list(leaves)
    for place, value in zip(places, values, strict=True):
        leaves[place] = value
    return leaves


def _extended(leaf: Array, steps: int) -> Array:
    return jnp.pad(leaf, [(0, steps), *((0, 0) for _ in leaf.shape[1:])])
