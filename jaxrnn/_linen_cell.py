"""A cell of Flax linen as a cell of jaxrnn."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from jaxrnn._arguments import check_init
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree


class _Bound(NamedTuple):
    """Variables beside the keys that are drawn once a sequence."""

    variables: PyTree
    keys: dict[str, Array]


@frozen
class LinenCell:
    """A linen cell as a jaxrnn cell; see `from_linen_cell`."""

    module: nn.Module
    input_shape: tuple[int, ...] = (1,)
    split_rngs: tuple[tuple[str, bool], ...] = ()

    @property
    def output_size(self) -> int | None:
        """The cell's ``features``, if it has them."""
        return getattr(self.module, "features", None)

    @property
    def input_rank(self) -> int:
        """The number of axes of an input that are not batch axes."""
        return self.module.num_feature_axes  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def stochastic(self) -> bool:
        """Whether the cell draws with keys."""
        return bool(self.split_rngs)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the variables; ``dtype`` stands before the cell's ``param_dtype``."""
        dtype = check_init(key, input_size, dtype or getattr(self.module, "param_dtype", None))
        x = jnp.zeros((1, *self.input_shape[:-1], input_size), dtype)
        module = _of_dtype(self.module, dtype)
        names = ["params", *(name for name, _ in self.split_rngs)]
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        return module.init(keys, module.initialize_carry(key, x.shape), x)

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> PyTree:
        """Returns what the cell's ``initialize_carry`` gives for ``jax.random.key(0)``."""
        floats = [p.dtype for p in jax.tree.leaves(params) if jnp.issubdtype(p.dtype, jnp.floating)]
        module = _of_dtype(self.module, floats[0]) if floats else self.module
        return module.initialize_carry(jax.random.key(0), (*batch_shape, *self.input_shape))

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Draws the keys that stay the same for a whole sequence."""
        return _Bound(params, _keys(key, self.split_rngs, False))

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the cell."""
        keys = {}
        if isinstance(params, _Bound):
            params, keys = params
        if key is not None:
            keys = keys | _keys(key, self.split_rngs, True)
        return self.module.apply(params, state, x, rngs=keys)  # pyright: ignore[reportReturnType]


def _keys(key: Array, split_rngs: tuple[tuple[str, bool], ...], split: bool) -> dict[str, Array]:
    return {n: jax.random.fold_in(key, i) for i, (n, s) in enumerate(split_rngs) if s == split}


def _of_dtype(module: Any, dtype: Any) -> Any:
    return module.clone(param_dtype=dtype) if hasattr(module, "param_dtype") else module


def from_linen_cell(
    cell: nn.Module,
    *,
    input_shape: tuple[int, ...] = (1,),
    split_rngs: Mapping[str, bool] = FrozenDict(),
) -> LinenCell:
    """Makes a jaxrnn cell of a linen cell, for `jaxrnn.unroll` and every engine and layer.

    Its params are the cell's variables, ``{"params": ...}``, such as a trained model has; its state
    is the cell's carry.

    Args:
        cell: an unbound linen module ``(carry, x) -> (carry, y)`` with ``initialize_carry`` and
            ``num_feature_axes``.
        input_shape: the shape of one step's input beside the batch axes, for a cell whose carry
            depends on it: ``ConvLSTMCell``. Others look at the batch axes alone.
        split_rngs: the names of the keys that the cell draws with; True for a new key at each step,
            False for one key a sequence.

    Raises:
        TypeError: ``cell`` is no linen module with that protocol.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> from flax import linen as nn
        >>> from jaxrnn.linen import from_linen_cell
        >>> cell = from_linen_cell(nn.GRUCell(features=4))
        >>> variables = cell.init(jax.random.key(0), input_size=3)
        >>> final, ys = rnn.unroll(cell, variables, jax.numpy.ones((7, 2, 3), "float32"))
        >>> ys.shape
        (7, 2, 4)
    """
    lacks = [n for n in ("initialize_carry", "num_feature_axes") if not hasattr(cell, n)]
    if not isinstance(cell, nn.Module) or lacks:
        raise TypeError(
            "cell must be a linen cell, a module with initialize_carry and num_feature_axes, got "
            f"{cell!r}; derive it from flax.linen.RNNCellBase"
        )
    return LinenCell(cell, tuple(input_shape), tuple(sorted(split_rngs.items())))
