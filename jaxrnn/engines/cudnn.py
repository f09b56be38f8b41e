"""NVIDIA's own kernel for LSTM."""

from typing import Any, cast

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._typing import PyTree
from jaxrnn.cells.lstm import LSTM, LSTMState
from jaxrnn.wrappers.masked import Masked


@frozen
class CuDNN:
    """cuDNN's LSTM kernel, through JAX's binding `jax.experimental.rnn`.

    Takes `LSTM` in float32 on a GPU, with one batch axis, forward in time, and no mask or starts;
    refuses everything else with the reason. It has a gradient with respect to parameters, inputs
    and initial state, in reverse mode and to first order only: that is what the binding offers.

    Raises:
        ValueError: when called for work that it does not take; the message says why.

    Example:
        >>> import jaxrnn as rnn
        >>> print(rnn.engines.CuDNN().why_not(rnn.GRU(4), None, None, None))
        cuDNN's binding runs LSTM only, and this cell is GRU; use engines.Hoisted()

    References:
        S. Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014.
    """

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Says why this engine refuses the work, or None if it takes it."""
        if isinstance(cell, Masked):
            return "cuDNN runs whole sequences, without mask or starts; use engines.Hoisted()"
        if type(cell) is not LSTM:
            kind = type(cell).__name__
            return f"cuDNN's binding runs LSTM only, and this cell is {kind}; use engines.Hoisted()"
        if xs.dtype != jnp.float32:
            return f"cuDNN's binding takes float32, and xs are {xs.dtype}; use engines.Hoisted()"
        if xs.ndim != 3:
            return (
                f"cuDNN's binding takes xs [time, batch, features], got shape {xs.shape}; reshape "
                "the batch axes into one, or use engines.Hoisted()"
            )
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
        lstm: Any = binding.lstm  # jax.custom_vjp loses the type of what it returns
        ys, hidden, cell_state = lstm(
            jnp.swapaxes(xs, 0, 1),
            state.hidden[None],
            state.cell[None],
            flat_weights(params),
            jnp.full((batch,), time, jnp.int32),
            features,
            cast(LSTM, cell).hidden_size,
            num_layers=1,
            dropout=0.0,
            bidirectional=False,
            precision=jax.lax.Precision.HIGHEST,  # no TF32: exact to rounding, as all engines are
        )
        return LSTMState(hidden[0], cell_state[0]), jnp.swapaxes(ys, 0, 1)


def flat_weights(params: PyTree) -> jax.Array:
    """Parameters of `LSTM` as the flat vector that cuDNN reads: W, U, then two biases.

    cuDNN's gates come in the same order, i, f, g, o, a matrix as ``[4 * hidden, features]``. Its
    second bias is zero.
    """
    bias = params.bias
    parts = (params.input_kernel.T, params.recurrent_kernel.T, bias, jnp.zeros_like(bias))
    return jnp.concatenate([part.reshape(-1) for part in parts])
