"""Networks that an engine runs in one call."""

from typing import Any

import jax

from jaxrnn._arguments import check_key
from jaxrnn._cell import input_rank, is_stochastic
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn._unroll import unroll
from jaxrnn.engines import Engine
from jaxrnn.engines._levels import Level, NotLevels, levels_of


def apply(
    layer: Any, params: PyTree, state: PyTree, xs: PyTree, lengths: Any, mask: Any, starts: Any, key
) -> tuple[PyTree, PyTree]:
    """`apply` of a layer: in one call of its engine if that can be, else its ``one_by_one``."""
    if key is not None:
        check_key(key)
    engine = _engine_at_once(layer, xs, key, mask, starts)
    if engine is not None:
        return unroll(_Whole(layer), params, xs, state, lengths=lengths, engine=engine)
    return layer.one_by_one(params, state, xs, lengths, mask, starts, key)


@frozen
class _Whole:
    """A layer as a cell, for `jaxrnn.unroll`; one step is a sequence of length one.

    No `Wrapper`: that is around cells, and not every layer has a step.
    """

    layer: Any

    @property
    def output_size(self) -> int | None:
        return self.layer.output_size

    @property
    def input_rank(self) -> int:
        return input_rank(self.layer)

    @property
    def levels(self) -> tuple[Level, ...]:
        return levels_of(self.layer)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        return self.layer.init(key, input_size, dtype)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        return self.layer.init_state(params, batch_shape)

    def step(self, params: PyTree, state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        xs = jax.tree.map(lambda leaf: leaf[None], x)
        state, ys = self.layer.one_by_one(params, state, xs)
        return state, jax.tree.map(lambda leaf: leaf[0], ys)


def _engine_at_once(layer: Any, xs: Any, key: Any, mask: Any, starts: Any) -> Engine | None:
    """The engine that every cell of a layer has, if one call of it is the whole layer."""
    if not hasattr(xs, "dtype"):
        return None
    if mask is not None or starts is not None or (key is not None and is_stochastic(layer)):
        return None
    try:
        levels = levels_of(layer)
    except NotLevels:
        return None
    engine, *others = {engine for level in levels for engine in level.engines}
    why_not = getattr(engine, "why_not_levels", None)
    if others or why_not is None or why_not(layer, xs) is not None:
        return None
    return engine
