"""The map from one state to the next, h' = f(h): at one step, at all steps, and its Jacobian."""

import dataclasses
from collections import ChainMap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._schedule.flat_state import FlatState
from jaxrnn._schedule.interpret import Operands, over_time, read_over_time, run_loop, run_step
from jaxrnn._schedule.jacobian import Blocks
from jaxrnn._schedule.partition import Schedule
from jaxrnn._schedule.products import (
    add_parts,
    multiply,
    multiply_over_time,
    split_parts,
)
from jaxrnn._typing import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Transition:
    """The loop of a schedule as h' = f(h)."""

    plan: Schedule
    flat: FlatState

    def step(self, operands: Operands, h: Array, *, quasi: bool = False) -> Array:
        """F at one step: ``[*batch, n] -> [*batch, n]``.

        With ``quasi``, a product by square kernels has the derivative of their diagonals.
        """

        def product(number, operand, addends):
            item, kernel = self.plan.products[number], operands.kernels[number]
            whole = multiply(item, operand, kernel)
            if quasi and item.is_square:
                whole = _with_diagonal_derivative(whole, operand, kernel)
            return add_parts(split_parts(item, whole), addends)

        return self.flat.pack(run_step(self.plan, operands, self.flat.unpack(h), product)[0])

    def all_steps(self, operands: Operands, h: Array) -> tuple[Array, dict[Any, Array]]:
        """F at all time steps, ``[time, *batch, n]``, and all intermediate values.

        Products merge time and batch into one axis, so that the gradients of kernels are products
        of two matrices.
        """
        plan, time = self.plan, h.shape[0]
        once = dict(zip(plan.constants, operands.constants, strict=True))
        stacked = dict(zip(plan.state_in, self.flat.unpack(h), strict=True))
        stacked.update(zip(plan.stacked, operands.stacked, strict=True))

        def product(number, operand, addends):
            kernel = operands.kernels[number]
            parts = multiply_over_time(plan.products[number], operand, kernel)
            return add_parts(parts, addends)

        def piece(piece, _):
            over_time(piece, once, stacked)

        run_loop(plan, ChainMap(stacked, once), product, piece)
        new = [read_over_time(v, once, stacked, time) for v in plan.state_out]
        return self.flat.pack(new), stacked

    def jacobian(
        self, operands: Operands, h: Array, blocks: Blocks, *, quasi: bool = False
    ) -> Array:
        """The blocks of ∂f/∂h at all time steps: ``[time, size, size, *batch, count]``.

        One tangent gives the first column of every block, the next one the second column, and so
        on: as many tangents as a block has columns, however large the state is.
        """
        directions = np.zeros((blocks.size, blocks.state_size + 1), h.dtype)
        directions[np.arange(blocks.size)[:, None], blocks.members] = 1

        def at(stacked, h):
            def f(h):
                return self.step(operands._replace(stacked=stacked), h, quasi=quasi)

            def column(direction):
                # Loop-invariant and equal for all rows, and so is its product with a kernel.
                tangent = jnp.zeros_like(h) + direction  # of the type of h, with its sharding
                return to_blocks(jax.jvp(f, (h,), (tangent,))[1], blocks, 0)

            return jax.vmap(column, out_axes=1)(jnp.asarray(directions[:, :-1]))

        return jax.vmap(at)(operands.stacked, h)


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
    """The product unchanged, with the derivative of the diagonals of its square kernels."""
    n = kernel.shape[0]
    diagonals = jnp.diagonal(kernel.reshape(n, -1, n), axis1=0, axis2=2)
    moved = (operand - jax.lax.stop_gradient(operand))[..., None, :] * diagonals
    return jax.lax.stop_gradient(whole) + moved.reshape(whole.shape).astype(whole.dtype)
