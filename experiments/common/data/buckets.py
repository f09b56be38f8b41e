"""A loss at one of a few sizes, chosen while it runs: short batches do not pay for long ones.

The gradient of a `lax.switch` keeps what the gradient of every branch would need, with zeros for
all that were not taken, so that each step fills and reads the memory of the longest batch. Here a
branch gives its loss and its gradient together, and nothing of the others is kept.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

PyTree = Any


def switch_loss(
    index: jax.Array, losses: Sequence[Callable[..., jax.Array]], params: PyTree, *operands: PyTree
) -> jax.Array:
    """One of several losses `(params, *operands) -> value`, differentiable by the parameters."""

    @jax.custom_vjp
    def chosen(params, given):
        index, operands = given
        return jax.lax.switch(index, losses, params, *operands)

    def forward(params, given):
        index, operands = given
        return jax.lax.switch(index, list(map(jax.value_and_grad, losses)), params, *operands)

    def backward(gradient, cotangent):
        return jax.tree.map(lambda leaf: (cotangent * leaf).astype(leaf.dtype), gradient), None

    chosen.defvjp(forward, backward)
    return chosen(params, (index, operands))
