"""Haiku's recurrent cores under jaxrnn's engines; Haiku is imported when a core runs."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_init
from jaxrnn._flax import cast_floats, float_dtypes
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree


@frozen
class HaikuCell:
    """A Haiku core as a jaxrnn cell; see `from_haiku_core`."""

    make_core: Callable[[], Any]
    input_shape: tuple[int, ...] = (1,)
    output_size: int | None = None

    stochastic = True  # a core without randomness ignores its key

    @property
    def input_rank(self) -> int:
        """The number of non-batch axes of one input."""
        return len(self.input_shape)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Initializes the core's parameters."""
        dtype = check_init(key, input_size, dtype)
        x = jnp.zeros((1, *self.input_shape[:-1], input_size), dtype)

        def first_step(x):
            core = self.make_core()
            return core(x, cast_floats(core.initial_state(1), dtype))

        return _transform(first_step).init(key, x)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns the core's initial state, in the dtype of the parameters."""
        initial = _transform(lambda: self.make_core().initial_state(math.prod(batch_shape)))
        dtype = next(iter(float_dtypes(params)), jnp.result_type(float))
        return jax.tree.map(
            lambda leaf: leaf.reshape(*batch_shape, *leaf.shape[1:]),
            cast_floats(initial.apply(params, None), dtype),
        )

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """Takes one step of the core with its batch axes flattened, since a core takes only one."""
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


def from_haiku_core(
    make_core: Callable[[], Any],
    *,
    input_shape: tuple[int, ...] = (1,),
    output_size: int | None = None,
) -> HaikuCell:
    """Wraps a Haiku core as a jaxrnn cell, for `jaxrnn.unroll` and every engine and layer.

    Its params are those of the transformed core, by module and name; its state is the core's. With
    a key in `jaxrnn.unroll`, each step gets its own key.

    Args:
        make_core: a function that returns the core, as in ``lambda: hk.GRU(4)``, or the core's
            class, if it has no required arguments. Create the cell once and reuse it: two cells
            are equal only if they have the same function object.
        input_shape: the shape of one input without its batch axes; any ``(size,)`` for vectors.
        output_size: the number of output features, for layers that stack the cell.

    Raises:
        TypeError: ``make_core`` is not a function. Haiku allows no core outside ``hk.transform``,
            so the function has to create it.

    Example:
        >>> import haiku as hk, jax, jaxrnn as rnn  # doctest: +SKIP
        >>> from jaxrnn.haiku import from_haiku_core
        >>> cell = from_haiku_core(lambda: hk.GRU(4))  # doctest: +SKIP
        >>> params = cell.init(jax.random.key(0), input_size=3)  # doctest: +SKIP
        >>> final, ys = rnn.unroll(cell, params, jax.numpy.ones((7, 2, 3)))  # doctest: +SKIP
    """
    if not callable(make_core) or (
        hasattr(make_core, "initial_state") and not isinstance(make_core, type)
    ):
        raise TypeError(
            f"make_core must be a function that returns a core, got {make_core!r}; write e.g. "
            "from_haiku_core(lambda: hk.GRU(4))"
        )
    return HaikuCell(make_core, tuple(input_shape), output_size)
