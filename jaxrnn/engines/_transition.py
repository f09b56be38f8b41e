"""The map from one state to the next, h' = f(h): of one step, of all at once, its Jacobian."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._schedule import products as _products
from jaxrnn._schedule.flat_state import FlatState
from jaxrnn._schedule.jacobian import Blocks, is_square
from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.pieces import Piece
from jaxrnn._schedule.trace import evaluate, is_literal
from jaxrnn._typing import Array


class Fixed(NamedTuple):
    """What f reads beside the state, in the order of the schedule's fields."""

    kernels: tuple[Any, ...]  # one for each product
    constants: tuple[Any, ...]
    stacked: tuple[Any, ...]  # [time, ...]; of one step, [...]


@dataclasses.dataclass(frozen=True, eq=False)
class Transition:
    """The loop of a schedule as h' = f(h)."""

    plan: Schedule
    flat: FlatState

    def step(self, fixed: Fixed, h: Array, *, quasi: bool = False) -> Array:
        """F at one step: ``[*batch, n] -> [*batch, n]``.

        With ``quasi``, a product by square kernels has the derivative of their diagonals.
        """
        env = dict(zip(self.plan.constants, fixed.constants, strict=True))
        env.update(zip(self.plan.state_in, self.flat.unpack(h), strict=True))
        env.update(zip(self.plan.stacked, fixed.stacked, strict=True))
        kernels = iter(fixed.kernels)
        for item in self.plan.loop:
            if isinstance(item, Piece):
                item(env)
                continue
            operand, kernel = env[item.operand], next(kernels)
            whole = _products.multiply(item, operand, kernel)
            if quasi and is_square(item.eqn, item.operand):
                whole = _with_diagonal_derivative(whole, operand, kernel)
            addends = [None if v is None else env[v] for v in item.addends]
            sums = _add(_products.cut(item, whole), addends)
            env.update(zip(item.outvars, sums, strict=True))
        return self.flat.pack([_value(v, env) for v in self.plan.state_out])

    def everywhere(self, fixed: Fixed, h: Array) -> tuple[Array, dict[Any, Array]]:
        """F at all time steps at once, ``[time, *batch, n]``, and all that was computed on the way.

        Products take time and batch as one axis, so that the gradients of kernels are products of
        two matrices.
        """
        once = dict(zip(self.plan.constants, fixed.constants, strict=True))
        stacked = dict(zip(self.plan.state_in, self.flat.unpack(h), strict=True))
        stacked.update(zip(self.plan.stacked, fixed.stacked, strict=True))
        kernels = iter(fixed.kernels)
        time = h.shape[0]

        def over_time(v):
            if v in stacked:
                return stacked[v]
            value = _value(v, once)
            return jnp.broadcast_to(value, (time, *value.shape))

        for item in self.plan.loop:
            if isinstance(item, Piece):
                _piece_over_time(item, once, stacked)
                continue
            operands, kernel = over_time(item.operand), next(kernels)
            parts = _products.for_all_time(item, operands, kernel)
            addends = [None if v is None else stacked.get(v, once.get(v)) for v in item.addends]
            stacked.update(zip(item.outvars, _add(parts, addends), strict=True))
        return self.flat.pack([over_time(v) for v in self.plan.state_out]), stacked

    def jacobian(self, fixed: Fixed, h: Array, blocks: Blocks, *, quasi: bool = False) -> Array:
        """The blocks of ∂f/∂h at all time steps: ``[time, size, size, *batch, count]``.

        All blocks give their first columns together, then their second ones, and so on: as many
        tangents as a block has columns, however large the state.
        """
        directions = np.zeros((blocks.size, blocks.state_size + 1), h.dtype)
        directions[np.arange(blocks.size)[:, None], blocks.members] = 1

        def at(stacked, h):
            def f(h):
                return self.step(fixed._replace(stacked=stacked), h, quasi=quasi)

            def column(direction):
                # The same for all time steps and rows: so is its product with a kernel.
                tangent = jnp.broadcast_to(direction, h.shape)
                return to_blocks(jax.jvp(f, (h,), (tangent,))[1], blocks, 0)

            return jax.vmap(column, out_axes=1)(jnp.asarray(directions[:, :-1]))

        return jax.vmap(at)(fixed.stacked, h)


def to_blocks(h: Array, blocks: Blocks, axis: int) -> Array:
    """``[..., *batch, n]`` as ``[..., size, *batch, count]``, the new axis at ``axis``."""
    if blocks.in_order:
        h = h.reshape(*h.shape[:-1], *blocks.members.shape)
    else:
        h = jnp.concatenate([h, jnp.zeros_like(h[..., :1])], axis=-1)[..., blocks.members]
    return jnp.moveaxis(h, -2, axis)


def from_blocks(h: Array, blocks: Blocks, axis: int) -> Array:
    """The inverse of `to_blocks`."""
    h = jnp.moveaxis(h, axis, -2)
    h = h.reshape(*h.shape[:-2], -1)
    if blocks.in_order:
        return h
    return h[..., blocks.members.ravel().argsort()[: blocks.state_size]]


def _with_diagonal_derivative(whole: Array, operand: Array, kernel: Array) -> Array:
    """The product as it is; its derivative is that of the diagonals of its square kernels."""
    n = kernel.shape[0]
    diagonals = jnp.diagonal(kernel.reshape(n, -1, n), axis1=0, axis2=2)
    moved = (operand - jax.lax.stop_gradient(operand))[..., None, :] * diagonals
    return jax.lax.stop_gradient(whole) + moved.reshape(whole.shape).astype(whole.dtype)


def _add(parts, addends) -> list[Array]:
    return [
        part if addend is None else jnp.broadcast_to(addend, part.shape) + part
        for part, addend in zip(parts, addends, strict=True)
    ]


def _value(v: Any, env: dict) -> Array:
    return jnp.asarray(v.val, v.aval.dtype) if is_literal(v) else env[v]


def _piece_over_time(piece: Piece, once: dict, stacked: dict) -> None:
    axes = [0 if v in stacked else None for v in piece.invars]
    args = [stacked[v] if v in stacked else once[v] for v in piece.invars]

    def at(*args):
        return evaluate(piece.jaxpr, piece.eqns, piece.invars, piece.outvars, args)

    if any(axis == 0 for axis in axes):
        stacked.update(zip(piece.outvars, jax.vmap(at, axes)(*args), strict=True))
    else:
        once.update(zip(piece.outvars, at(*args), strict=True))
