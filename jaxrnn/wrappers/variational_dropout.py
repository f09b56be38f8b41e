"""Variational dropout: dropout with one mask per sequence."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_rate
from jaxrnn._cell import bind_with_key
from jaxrnn._frozen import frozen
from jaxrnn._numerics import DroppedKernel, dropout, state_dtype, without_dropout
from jaxrnn._typing import Array, PyTree
from jaxrnn.wrappers._wrapper import Wrapper, check_names, map_kernels


@frozen
class VariationalDropout(Wrapper):
    """Variational dropout: drops the same features of input and state at all steps.

        x W ← (x ⊙ m_x) W,   h U ← (h ⊙ m_h) U,   m = Bernoulli(1 - rate) / (1 - rate)

    Each row of the batch has its own masks, one for each kernel, shared by all gates. They are
    drawn once per call of `jaxrnn.unroll`; ``starts`` does not redraw them. Dropout applies only to
    the operand of a kernel, never to the state itself, which would grow by 1 / (1 - rate) at each
    step. Without a key nothing is dropped, which is the expectation of every product.

    Args:
        cell: a cell that uses its kernels only as ``x @ kernel``, such as those of `jaxrnn.cells`
            with dense kernels; or a `jaxrnn.layers.Stack` of such cells.
        input_rate: the probability of dropping a feature of the input.
        recurrent_rate: the same for the recurrent state.
        input_kernels: names of the parameters' fields that multiply inputs.
        recurrent_kernels: names of the parameters' fields that multiply the recurrent state.

    Raises:
        TypeError, ValueError: a rate is not a number in [0, 1); names are not a tuple of strings,
            or, in `init` and `bind`, no field of the parameters has one of them; in `step`, the
            cell uses a kernel other than as ``x @ kernel``.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.wrappers.VariationalDropout(rnn.GRU(8), input_rate=0.2, recurrent_rate=0.4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.numpy.ones((5, 2, 3))
        >>> _, ys = rnn.unroll(cell, params, xs, key=jax.random.key(1))
        >>> bool((ys[:, 0] == ys[:, 1]).any())
        False

    References:
        Y. Gal and Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
        neural networks", 2016, section 4 (the form with weights tied between gates).
    """

    input_rate: float = 0.0
    recurrent_rate: float = 0.0
    input_kernels: tuple[str, ...] = ("input_kernel",)
    recurrent_kernels: tuple[str, ...] = ("recurrent_kernel",)

    def __post_init__(self):
        super().__post_init__()
        for kind in ("input", "recurrent"):
            check_rate(f"{kind}_rate", getattr(self, f"{kind}_rate"))
            check_names(f"{kind}_kernels", getattr(self, f"{kind}_kernels"))

    def init(self, key: Array, input_size: int, dtype: Any = None) -> PyTree:
        """Draws the wrapped cell's parameters."""
        return self._map(lambda _, rate, kernel: kernel, self.cell.init(key, input_size, dtype))

    def bind(self, params: PyTree, key: Array, batch_shape: tuple[int, ...]) -> PyTree:
        """Draws the masks."""
        key, inner = jax.random.split(key)

        def drop(number, rate, kernel):
            if kernel.ndim != 2:
                raise ValueError(
                    "VariationalDropout needs kernels [features, columns], got shape "
                    f"{kernel.shape} in {type(self.cell).__name__}; use WeightDrop, which takes "
                    "every shape"
                )
            ones = jnp.ones((*batch_shape, kernel.shape[0]), state_dtype(kernel.dtype))
            return DroppedKernel(kernel, dropout(jax.random.fold_in(key, number), rate, ones))

        return self._map(drop, bind_with_key(self.cell, params, inner, batch_shape))

    def step(
        self, params: PyTree, state: PyTree, x: PyTree, *, key: Array | None = None
    ) -> tuple[PyTree, PyTree]:
        """One step of the wrapped cell."""
        return self._named(super().step, params, state, x, key=key)

    def affine(self, params: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """``(a, b)`` of the wrapped cell, if it is affine."""
        return self._named(super().affine, params, x)

    def readout(self, params: PyTree, state: PyTree, x: PyTree) -> PyTree:
        """The output from the NEW state, if the wrapped cell is affine."""
        return self._named(super().readout, params, state, x)

    def _map(self, change, params: PyTree) -> PyTree:
        """Changes the kernels of each kind with a nonzero rate, with distinct numbers."""
        for base, kind in ((0, "input"), (1 << 16, "recurrent")):
            rate, names = getattr(self, f"{kind}_rate"), getattr(self, f"{kind}_kernels")
            if rate > 0:
                params = map_kernels(
                    lambda n, kernel: change(base + n, rate, kernel),  # noqa: B023
                    names,
                    params,
                    f"{kind}_kernels",
                )
        return params

    def _named(self, function, params, *arguments, **keywords):
        """Calls a function of the cell; the error names a cell whose kernels cannot be masked."""
        try:
            return function(params, *arguments, **keywords)
        except (TypeError, AttributeError) as error:
            # If the plain kernels fail too, dropout is not the reason, and this raises.
            jax.eval_shape(lambda: function(without_dropout(params), *arguments, **keywords))
            raise TypeError(
                f"VariationalDropout needs a cell that uses its kernels as x @ kernel alone, but "
                f"{type(self.cell).__name__} does not ({error}); use WeightDrop, which takes every "
                "cell"
            ) from error
