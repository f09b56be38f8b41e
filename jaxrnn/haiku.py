"""Haiku's recurrent cores under jaxrnn's engines; Haiku is imported when a core is run."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_init
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree


@frozen
class HaikuCell:
    """A Haiku core as a jaxrnn cell; see `from_haiku_core`."""

    make_core: Callable[[], Any]
    input_shape: tuple[int, ...] = (1,)
    output_size: int | None = None

    stochastic = True  # a core that draws gets the key, others leave it

    @property
    def input_rank(self) -> int:
        """The number of axes of an input that are not batch axes."""
        return len(self.input_shape)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the core's parameters."""
        dtype = check_init(key, input_size, dtype)
        x = jnp.zeros((1, *self.input_shape[:-1], input_size), dtype)

        def first_step(x):
            core = self.make_core()
            state = jax.tree.map(lambda leaf: _cast(leaf, dtype), core.initial_state(1))
            return core(x, state)

        return _transform(first_step).init(key, x)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the core's initial state, in the dtype of the parameters."""
        initial = _transform(lambda: self.make_core().initial_state(math.prod(batch_shape)))
        floats = [p.dtype for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.floating)]
        dtype = floats[0] if floats else jnp.result_type(float)
        return jax.tree.map(
            lambda leaf: _cast(leaf, dtype).reshape(*batch_shape, *leaf.shape[1:]),
            initial.apply(params, None),
        )

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the core; Haiku's cores take one batch axis, so batches are made flat."""
        leaf = jax.tree.leaves(x)[0]
        batch_shape = leaf.shape[: leaf.ndim - self.input_rank]
        size, rank = math.prod(batch_shape), len(batch_shape)

        def flat(leaf):
            return leaf.reshape(size, *leaf.shape[rank:])

        one = _transform(lambda x, state: self.make_core()(x, state))
        results = one.apply(params, key, jax.tree.map(flat, x), jax.tree.map(flat, state))
        y, state = jax.tree.map(lambda leaf: leaf.reshape(*batch_shape, *leaf.shape[1:]), results)
        return state, y


def _transform(function: Callable[..., Any]) -> Any:
    import haiku as hk

    return hk.transform(function)


def _cast(leaf: Array, dtype: Any) -> Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def from_haiku_core(
    make_core: Callable[[], Any],
    *,
    input_shape: tuple[int, ...] = (1,),
    output_size: int | None = None,
) -> HaikuCell:
    """Makes a jaxrnn cell of a Haiku core, for `jaxrnn.unroll` and every engine and layer.

    Its params are those of the transformed core, by module and by name; its state is the core's.
    A core that draws gets a key a step where `jaxrnn.unroll` gets one.

    Args:
        make_core: makes the core, as in ``lambda: hk.GRU(4)``. Make the cell once and keep it: two
            cells are equal when this is the same function.
        input_shape: the shape of one step's input beside the batch axes; of a vector, any
            ``(size,)``.
        output_size: features of the output, for layers that stack the cell.

    Raises:
        TypeError: ``make_core`` is not a function; a core is made inside it, because Haiku allows
            none outside ``hk.transform``.

    Example:
        >>> import haiku as hk, jax, jaxrnn as rnn  # doctest: +SKIP
        >>> from jaxrnn.haiku import from_haiku_core
        >>> cell = from_haiku_core(lambda: hk.GRU(4))  # doctest: +SKIP
        >>> params = cell.init(jax.random.key(0), input_size=3)  # doctest: +SKIP
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))  # doctest: +SKIP
    """
    if not callable(make_core) or hasattr(make_core, "initial_state"):
        raise TypeError(
            f"make_core must be a function that makes a core, got {make_core!r}; write e.g. "
            "from_haiku_core(lambda: hk.GRU(4))"
        )
    return HaikuCell(make_core, tuple(input_shape), output_size)
