"""The LSTM of cuDNN: all layers, directions and rows in one call, with its derivatives.

    forward    (xs, hidden, cell, weights, lengths) -> (ys, hidden, cell), and what backward needs
    tangent    linear in the tangents of xs, hidden, cell and weights; in JAX's own operations
    backward   the transpose of the tangent, by cuDNN

The reference, the loop of `Hoisted` for each layer and direction, gives forward mode, higher
derivatives, `jax.vmap`, and other platforms than CUDA. Arrays are those of
`jax.experimental.rnn.lstm`: batch first, all weights in one vector, lengths positive.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._masking import MaskedInput, valid_steps
from jaxrnn._typing import Array
from jaxrnn.cells.lstm import LSTM, LSTMParams, LSTMState
from jaxrnn.engines._platforms import Function
from jaxrnn.engines.hoisted import Hoisted
from jaxrnn.wrappers.masked import Masked


class Sizes(NamedTuple):
    """What a call is compiled for."""

    inputs: int
    hidden: int
    layers: int
    directions: int
    ragged: bool = False  # whether some rows may be shorter than the others
    tf32: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options of the binding."""
        # HIGHEST is the only precision for which the binding does not allow TF32.
        precision = jax.lax.Precision.HIGH if self.tf32 else jax.lax.Precision.HIGHEST
        return {
            "input_size": self.inputs,
            "hidden_size": self.hidden,
            "num_layers": self.layers,
            "dropout": 0.0,
            "bidirectional": self.directions == 2,
            "precision": precision,
        }

    @property
    def kernels(self) -> list[tuple[int, int]]:
        """The shapes ``[features, 4 * hidden]`` of all kernels, in the order of the vector."""
        widths = [self.inputs] + [self.directions * self.hidden] * (self.layers - 1)
        rows = (rows for width in widths for rows in (width, self.hidden) * self.directions)
        return [(n, 4 * self.hidden) for n in rows]

    @property
    def weights(self) -> int:
        """The length of the vector; there are as many biases as kernels."""
        return sum((features + 1) * columns for features, columns in self.kernels)


def flat_weights(layers: Sequence[Any]) -> Array:
    """Packs the parameters of `LSTM` layers into the weight vector of cuDNN.

    The vector holds the kernels W and U of all layers, then two biases of each; the second is zero.
    The gates have the same order, i, f, g, o, and a matrix has shape ``[4 * hidden, features]``.
    """
    kernels = [k.T.ravel() for p in layers for k in (p.input_kernel, p.recurrent_kernel)]
    biases = [b for p in layers for b in (p.bias, jnp.zeros_like(p.bias))]
    return jnp.concatenate(kernels + biases)


def unflatten_weights(sizes: Sizes, weights: Array) -> list[LSTMParams]:
    """The parameters of all layers and directions; the inverse of `flat_weights`."""
    kernels, start = [], 0
    for features, columns in sizes.kernels:
        stop = start + features * columns
        kernels.append(weights[start:stop].reshape(columns, features).T)
        start = stop
    biases = weights[start:].reshape(-1, 2, 4 * sizes.hidden).sum(axis=1)
    return list(map(LSTMParams, kernels[::2], kernels[1::2], biases))


def lstm(sizes: Sizes, platform: str, *arrays: Array) -> tuple[Array, Array, Array]:
    """Calls cuDNN on a platform: ``(xs, hidden, cell, weights, lengths) -> (ys, hidden, cell)``.

    Shapes:
        xs ``[batch, time, features]``, states ``[layers * directions, batch, hidden]``, lengths
        int32 ``[batch]``, at least 1, ys ``[batch, time, directions * hidden]``.
    """

    @jax.custom_jvp
    def run(*primals):
        return tuple(Function(reference, {platform: forward})(*primals))

    @run.defjvp
    def rule(primals, tangents):
        *results, kept = Function(reference_and_kept, {platform: forward_and_kept})(*primals)
        tangent = Function(reference_tangent, {}, len(tangents) - 1, transpose)
        return tuple(results), tuple(tangent(*tangents[:-1], *primals, *results, kept))

    def reference(*primals):
        return _reference(sizes, *primals)

    def forward(*primals):
        return forward_and_kept(*primals)[:-1]

    def reference_and_kept(*primals):
        return [*reference(*primals), jnp.zeros(_size_of_kept(sizes, primals), jnp.float32)]

    def forward_and_kept(*primals):
        results, residuals = _at_hand(lambda rnn: rnn.lstm_fwd(*primals, **sizes.options))
        return [*results, residuals[-1]]

    def reference_tangent(*args):
        tangents, (*floats, lengths) = args[:4], args[4:9]
        run_floats = functools.partial(_with_lengths, reference, lengths)
        return jax.jvp(run_floats, tuple(floats), tangents)[1]

    def transpose(others, cotangents):
        return Function(pull_reference, {platform: backward})(*others, *cotangents)

    def pull_reference(*args):
        (*floats, lengths), cotangents = args[:5], args[-3:]
        run_floats = functools.partial(_with_lengths, reference, lengths)
        return list(jax.vjp(run_floats, *floats)[1](list(cotangents)))

    def backward(*args):
        primals, (ys, _, _, kept), cotangents = args[:5], args[5:9], args[9:]
        residuals = (*primals, ys, kept)
        options = sizes.options.values()
        return list(_at_hand(lambda rnn: rnn.lstm_bwd(*options, residuals, cotangents))[:4])

    return run(*arrays)


def _with_lengths(function: Callable, lengths: Array, *floats: Array) -> Any:
    return function(*floats, lengths)


def _reference(sizes: Sizes, xs, hidden, cell, weights, lengths) -> list[Array]:
    lstm, engine, final = LSTM(sizes.hidden), Hoisted(), []
    params = unflatten_weights(sizes, weights)
    ys = jnp.swapaxes(xs, 0, 1)
    valid = valid_steps(ys, lengths, None) if sizes.ragged else None
    for layer in range(sizes.layers):
        outputs = []
        for direction in range(sizes.directions):
            i = layer * sizes.directions + direction
            work = (lstm, params[i], LSTMState(hidden[i], cell[i]), ys)
            if valid is not None:
                work = (Masked(lstm), *work[1:3], MaskedInput(ys, valid))
            state, out = engine(*work, reverse=direction == 1)
            final.append(state)
            outputs.append(out)
        ys = jnp.concatenate(outputs, axis=-1)
    return [jnp.swapaxes(ys, 0, 1), *map(jnp.stack, zip(*final, strict=True))]


def _size_of_kept(sizes: Sizes, primals: Sequence[Array]) -> int:
    """The size of what the forward pass keeps; 0 where cuDNN is not at hand to tell it."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in primals]

    def kept(*primals):
        return _binding().lstm_fwd(*primals, **sizes.options)[1][-1]

    try:
        return math.prod(jax.eval_shape(kept, *shapes).shape)
    except NOT_AT_HAND:  # a program for CUDA is then refused by `_at_hand`
        return 0


NOT_AT_HAND = (ImportError, AttributeError, RuntimeError)
"""What the binding raises without the CUDA plugin, without cuDNN, or without a GPU."""


def _at_hand(call: Callable[[Any], Any]) -> Any:
    """Calls the binding, which asks cuDNN for the memory that it needs while JAX traces."""
    try:
        return call(_binding())
    except NOT_AT_HAND as error:
        raise ValueError(
            "engine=CuDNN() cannot be lowered for CUDA on this machine: cuDNN itself, with a GPU, "
            f"tells how much memory a call needs, and here it did not ({error}); lower or export "
            "the program on a machine with an NVIDIA GPU and jax[cuda13], or use engines.Hoisted()"
        ) from error


def _binding() -> Any:
    from jax.experimental import rnn  # experimental: imported only where it is called

    return rnn
