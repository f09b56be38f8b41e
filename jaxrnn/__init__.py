"""jaxrnn: recurrent networks for JAX. Write the textbook step; get the expert schedule.

A *cell* is a pure step function over a parameter pytree, written as its paper writes it. An
*engine* runs a cell over time, and finds the schedule that an expert would write by hand.

Example:
    >>> import jax, jaxrnn as rnn
    >>> cell = rnn.GRU(hidden_size=16)
    >>> params = cell.init(jax.random.key(0), input_size=4)
    >>> xs = jax.random.normal(jax.random.key(1), (50, 8, 4))  # [time, batch, features]
    >>> final_state, ys = rnn.unroll(cell, params, xs)
    >>> ys.shape
    (50, 8, 16)
"""

from jaxrnn import (
    activations,
    analysis,
    cells,
    convert,
    decoding,
    engines,
    export,
    initializers,
    layers,
    learning,
    wrappers,
)
from jaxrnn._cell import (
    AffineCell,
    Cell,
    ChunkedCell,
    FunctionCell,
    SpannedCell,
    from_step,
    is_affine,
    is_chunked,
    is_spanned,
)
from jaxrnn._pack import Packed, pack
from jaxrnn._platform import for_platforms
from jaxrnn._schedule.explain import Explanation, explain
from jaxrnn._unroll import unroll
from jaxrnn.cells import *  # noqa: F403

__all__ = [
    "AffineCell",
    "Cell",
    "ChunkedCell",
    "SpannedCell",
    "Explanation",
    "FunctionCell",
    "Packed",
    "activations",
    "analysis",
    "cells",
    "convert",
    "decoding",
    "engines",
    "export",
    "explain",
    "for_platforms",
    "from_step",
    "initializers",
    "is_affine",
    "is_chunked",
    "is_spanned",
    "layers",
    "learning",
    "pack",
    "unroll",
    "wrappers",
]
__all__ += cells.__all__
