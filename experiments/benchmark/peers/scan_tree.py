"""An affine cell by `jax.lax.associative_scan` over all steps, with JAX's automatic derivative."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn as rnn


@dataclass(frozen=True)
class ScanTree:
    """The usual way to write a linear recurrence in JAX, as an engine."""

    def why_not(self, cell: Any, params: Any, state: Any, xs: Any) -> str | None:
        """Explains why the cell cannot run; None if it can."""
        affine = rnn.is_affine(cell)
        return None if affine else f"{type(cell).__name__} is not affine in its state"

    def __call__(
        self, cell: Any, params: Any, state: Any, xs: Any, *, reverse: bool = False
    ) -> tuple[Any, Any]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        a, b = jax.vmap(cell.affine, (None, 0))(params, xs)
        first = -1 if reverse else 0

        def states(a, b, initial):
            b = jnp.broadcast_to(b.astype(initial.dtype), (b.shape[0], *initial.shape))
            a = jnp.broadcast_to(
                a.reshape(len(a), *(1,) * (b.ndim - a.ndim), *a.shape[1:]), b.shape
            )
            b = b.at[first].add(a[first] * initial)
            return jax.lax.associative_scan(combine, (a, b), reverse=reverse)[1]

        hs = jax.tree.map(states, a, b, state)
        ys = jax.vmap(cell.readout, (None, 0, 0))(params, hs, xs)
        return jax.tree.map(lambda h: h[0 if reverse else -1], hs), ys


def combine(earlier: tuple[Any, Any], later: tuple[Any, Any]) -> tuple[Any, Any]:
    """The composition of two affine maps, `earlier` first."""
    (a, b), (c, d) = earlier, later
    return a * c, c * b + d
