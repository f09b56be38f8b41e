"""Weight drop: dropout on recurrent weights."""

from typing import Any

import jax

from jaxrnn._arguments import check_rate
from jaxrnn._cell import bind_with_key
from jaxrnn._frozen import frozen
from jaxrnn._numerics import dropout
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper, check_names, map_kernels


@frozen
class WeightDrop(Wrapper):
    """Weight drop: drops the same recurrent weights at all steps and in all rows (DropConnect).

        U ← U ⊙ m / (1 - rate),   m ~ Bernoulli(1 - rate), drawn once per call of `jaxrnn.unroll`

    Without a key U is unchanged, which is the expectation.

    Args:
        cell: a cell with kernels of these names, or a `jaxrnn.layers.Stack` of such cells.
        rate: the probability of dropping a weight.
        kernels: names of the parameters' fields to drop weights of.

    Raises:
        TypeError, ValueError: ``rate`` is not a number in [0, 1); ``kernels`` is not a tuple of
            names, or, in `init` and `bind`, no field of the parameters has one of them.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.wrappers.WeightDrop(rnn.LSTM(8), rate=0.5)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> bound = cell.bind(params, jax.random.key(1), batch_shape=())
        >>> print(round(float((bound.recurrent_kernel == 0).mean()), 1))
        0.5

    References:
        S. Merity, N. S. Keskar and R. Socher, "Regularizing and optimizing LSTM language models",
        2017, section 2.
    """

    rate: float
    kernels: tuple[str, ...] = ("recurrent_kernel",)

    def __post_init__(self):
        super().__post_init__()
        check_rate("rate", self.rate)
        check_names("kernels", self.kernels)

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the wrapped cell's parameters."""
        params = self.cell.init(key, input_size, dtype)
        return map_kernels(lambda _, kernel: kernel, self.kernels, params, "kernels")

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Drops the weights."""
        key, inner = jax.random.split(key)

        def drop(number, kernel):
            return dropout(jax.random.fold_in(key, number), self.rate, kernel)

        params = map_kernels(drop, self.kernels, params, "kernels")
        return bind_with_key(self.cell, params, inner, batch_shape)
