"""The cuDNN kernel for LSTM."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._typing import Array, PyTree
from jaxrnn.cells.lstm import LSTM, LSTMState
from jaxrnn.engines._engine import why_not_symbolic
from jaxrnn.wrappers.masked import Masked


@frozen
class CuDNN:
    """cuDNN's LSTM kernel, through JAX's binding `jax.experimental.rnn`.

    Accepts `LSTM` in float32 on a GPU, with one batch axis, forward in time, without mask or
    starts. The binding supports gradients with respect to parameters, inputs and initial state, in
    reverse mode and to first order only.

    Raises:
        ValueError: when called, this engine cannot run the cell, with the reason.

    Example:
        >>> import jaxrnn as rnn
        >>> print(rnn.engines.CuDNN().why_not(rnn.GRU(4), None, None, None))
        cuDNN's binding runs LSTM only, and this cell is GRU; use engines.Hoisted()

    References:
        S. Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014.
    """

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why this engine cannot run the work, or None if it can."""
        if isinstance(cell, Masked):
            return "cuDNN's binding has no mask or starts; use engines.Hoisted()"
        if type(cell) is not LSTM:
            kind = type(cell).__name__
            return f"cuDNN's binding runs LSTM only, and this cell is {kind}; use engines.Hoisted()"
        if xs.dtype != jnp.float32:
            return f"cuDNN's binding takes float32, got xs of {xs.dtype}; use engines.Hoisted()"
        if xs.ndim != 3:
            return (
                f"cuDNN's binding takes xs [time, batch, features], got shape {xs.shape}; reshape "
                "the batch axes into one, or use engines.Hoisted()"
            )
        symbolic = why_not_symbolic(xs, "cuDNN's binding", batch=True)
        if symbolic is not None:
            return symbolic
        if jax.default_backend() != "gpu":
            return f"cuDNN needs an NVIDIA GPU, and the backend is {jax.default_backend()}"
        return None

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        reason = self.why_not(cell, params, state, xs)
        if reason is None and reverse:
            reason = "cuDNN's binding runs forward in time; use engines.Hoisted() for reverse=True"
        if reason is not None:
            raise ValueError(f"engine=CuDNN() cannot run this: {reason}")
        from jax.experimental import rnn as binding

        time, batch, features = xs.shape
        lstm: Any = binding.lstm  # jax.custom_vjp loses the type of its result
        ys, hidden, cell_state = lstm(
            jnp.swapaxes(xs, 0, 1),
            state.hidden[None],
            state.cell[None],
            flat_weights([params]),
            jnp.full((batch,), time, jnp.int32),
            features,
            cast(LSTM, cell).hidden_size,
            num_layers=1,
            dropout=0.0,
            bidirectional=False,
            precision=jax.lax.Precision.HIGHEST,  # no TF32: exact up to rounding, as all engines
        )
        return LSTMState(hidden[0], cell_state[0]), jnp.swapaxes(ys, 0, 1)


def flat_weights(layers: Sequence[Any]) -> Array:
    """Packs the parameters of `LSTM` layers into the weight vector of cuDNN.

    The vector holds the kernels W and U of all layers, then two biases of each; the second is zero.
    The gates have the same order, i, f, g, o, and a matrix has shape ``[4 * hidden, features]``.
    """
    kernels = [k.T.ravel() for p in layers for k in (p.input_kernel, p.recurrent_kernel)]
    biases = [b for p in layers for b in (p.bias, jnp.zeros_like(p.bias))]
    return jnp.concatenate(kernels + biases)
