"""Random parameters of an experiment, and what bfloat16 changes in their gradients."""

from typing import Any

import jax
import numpy as np

from experiments.common.step import in_precision
from experiments.common.training import Task


def rounding_error(task: Task, params: Any, carry: Any = ()) -> float:
    """The largest error of a parameter's gradient in bfloat16, relative to that in float32."""

    def gradient(loss):
        work = (params, carry, task.batch(0), jax.random.key(0))
        return jax.jit(jax.grad(lambda *work: loss(*work)[0]))(*work)

    exact, low = gradient(task.loss), gradient(in_precision(task.loss, "bfloat16"))
    return max(
        float(np.linalg.norm(got - want) / np.linalg.norm(want))
        for want, got in zip(jax.tree.leaves(exact), jax.tree.leaves(low), strict=True)
    )


def with_noise(tree: Any, seed: int = 0) -> Any:
    """Parameters or a state and random numbers: no bias is zero."""
    numbers = np.random.default_rng(seed)

    def draw(leaf):
        return leaf + (0.3 * numbers.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree.map(draw, tree)
