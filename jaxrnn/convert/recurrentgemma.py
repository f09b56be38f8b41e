"""Conversion of Griffin's recurrent block, from recurrentgemma and from transformers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn._frozen import frozen
from jaxrnn._numerics import state_dtype, widen
from jaxrnn._typing import Array, PyTree
from jaxrnn.convert._activations import TRANSFORMERS
from jaxrnn.convert._arrays import Source
from jaxrnn.convert._modules import (
    CausalConvolution,
    ConvolutionParams,
    Dense,
    DenseParams,
    block_dense,
    named_arrays,
    stack,
    take_convolution,
    take_dense,
)
from jaxrnn.convert._network import Part
from jaxrnn.convert._state_files import accepts_files

_SHARPNESS = 8.0  # the paper's constant c
# The names of the arrays of an RG-LRU: in recurrentgemma, and in transformers.
_NAMES = (
    ("a_param", "a_gate.w", "a_gate.b", "input_gate.w", "input_gate.b"),
    (
        "recurrent_param",
        "recurrent_gate_weight",
        "recurrent_gate_bias",
        "input_gate_weight",
        "input_gate_bias",
    ),
)


class GriffinRGLRUParams(NamedTuple):
    """Parameters of `GriffinRGLRU`; gates in the order a (recurrence), i (input)."""

    decay: Array  # [hidden], Λ
    gate_kernels: Array  # [2, blocks, block, block]
    gate_biases: Array  # [2, hidden]


class GriffinRGLRUState(NamedTuple):
    """State of `GriffinRGLRU`."""

    hidden: Array  # [*batch, hidden]
    first: Array  # [*batch, 1], 1 before the first step of a sequence and 0 afterwards


@frozen
class GriffinRGLRU:
    """The RG-LRU as Griffin's code has it: the first input of a sequence is not scaled.

        r, i = σ(x W + b)                     (the blocks a, i; each W block-diagonal)
        log a = -8 softplus(Λ) r
        h' = a h + s (i x),   s = 1 at the first step of a sequence, √(1 - a²) afterwards
        y = h' φ(g)                           for the input [x, g], with an activation φ

    `RGLRU` is the cell of the paper: it scales every input, which makes it affine in its state.

    Args:
        hidden_size: features of x, of the state and of the output.
        activation: φ; None means that the input is x alone, and y = h'.

    Shapes:
        x ``[*batch, hidden_size]``, or ``[*batch, 2 * hidden_size]`` with an activation, state
        ``GriffinRGLRUState(hidden, first)``, y ``[*batch, hidden_size]``.

    Note:
        It has no ``init``: the parameters come from `from_recurrentgemma`.
    """

    hidden_size: int
    activation: Callable[[Array], Array] | None = None

    @property
    def output_size(self) -> int:
        """The number of output features: ``hidden_size``."""
        return self.hidden_size

    def init_state(
        self, params: GriffinRGLRUParams, batch_shape: tuple[int, ...] = ()
    ) -> GriffinRGLRUState:
        """Returns zeros, before the first step."""
        dtype = state_dtype(params.decay.dtype)
        zeros = jnp.zeros((*batch_shape, self.hidden_size), dtype)
        return GriffinRGLRUState(zeros, jnp.ones((*batch_shape, 1), dtype))

    def step(
        self, params: GriffinRGLRUParams, state: GriffinRGLRUState, x: Array
    ) -> tuple[GriffinRGLRUState, Array]:
        """One step of the equations above."""
        x, g = jnp.split(x, [self.hidden_size], axis=-1)
        gates = zip(params.gate_kernels, params.gate_biases, strict=True)
        r, i = (jax.nn.sigmoid(block_dense(kernel, bias, x)) for kernel, bias in gates)
        log_a = -_SHARPNESS * jax.nn.softplus(widen(params.decay)) * r
        # The square root has no derivative at 0, which a closed gate reaches.
        scale = jnp.sqrt(jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(log_a.dtype).tiny))
        scale = state.first + (1 - state.first) * scale
        h = jnp.exp(log_a) * state.hidden + scale * (i * widen(x))
        y = h if self.activation is None else h * self.activation(widen(g))
        state = GriffinRGLRUState(h, jnp.zeros_like(state.first))
        return state, y.astype(params.decay.dtype)


@accepts_files
def from_recurrentgemma(
    source: Any, *, prefix: str = "", activation: str | None = None
) -> tuple[Any, PyTree]:
    """Reads Griffin's recurrent block, or its RG-LRU alone, as RecurrentGemma has them.

        u, g = x W_x + b_x, x W_y + b_y
        y = (RG-LRU(convolution(u)) φ(g)) W_out + b_out

    Args:
        source: a ``RecurrentBlock`` or ``RGLRU`` of ``recurrentgemma.torch``, a
            ``RecurrentGemmaRecurrentBlock`` or ``RecurrentGemmaRglru`` of transformers, the
            state dict of one, or the path of a file with it, as for `from_pytorch`.
        prefix: the prefix of the block in a larger model, with its dot: ``"blocks.0.recurrent_
            block."``, or ``"model.layers.0.temporal_block."`` in transformers.
        activation: φ, one of ``"gelu_pytorch_tanh"``, ``"gelu"``, ``"relu"`` and ``"silu"``; None
            is that of a module, and ``"gelu_pytorch_tanh"`` for a state dict.

    Returns:
        ``(network, params)``: for a block a `layers.Stack` of a dense layer, the convolution,
        `GriffinRGLRU` and a dense layer; for an RG-LRU the cell.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others, or
            the activation is unknown.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> arrays = {"a_param": np.ones(6)}
        >>> arrays |= {f"{gate}_gate.w": np.ones((2, 3, 3)) for gate in ("a", "input")}
        >>> arrays |= {f"{gate}_gate.b": np.ones((2, 3)) for gate in ("a", "input")}
        >>> cell, params = rnn.convert.from_recurrentgemma(arrays)
        >>> cell, params.gate_kernels.shape
        (GriffinRGLRU(hidden_size=6), (2, 2, 3, 3))

    Note:
        ``segment_pos == 0`` (``position_ids == 0`` in transformers) corresponds to ``starts``. The
        convolution of transformers sees the inputs before such a position; here, as in
        recurrentgemma, it does not. Both accumulate the state in float32 for every dtype. The
        packages clip the gradient of the square root at 1000.
    """
    arrays = named_arrays(source, prefix)
    if not isinstance(source, Mapping):
        module = source.get_submodule(prefix.removesuffix(".")) if prefix else source
        activation = activation or _activation(module)
    name = activation or "gelu_pytorch_tanh"
    if name not in TRANSFORMERS:
        raise ValueError(f"activation must be one of {', '.join(TRANSFORMERS)}, got {name!r}")
    weights = Source("RecurrentGemma", arrays, prefix)
    if "linear_x.weight" not in weights:
        part = _rg_lru(weights, "", None)
    else:
        hidden, inputs = weights.shape("linear_x.weight", "hidden", "input")
        outputs, _ = weights.shape("linear_out.weight", "output", "hidden")
        branches = [take_dense(weights, f"linear_{k}", inputs, hidden) for k in "xy"]
        if "conv_1d.w" in weights:
            width, _ = weights.shape("conv_1d.w", "width", "hidden")
            convolution = ConvolutionParams(
                weights.take("conv_1d.w", width, hidden), weights.take("conv_1d.b", hidden)
            )
        else:
            convolution = take_convolution(weights, "conv_1d", hidden)
            width = convolution.kernel.shape[0]
        part = stack(
            [
                Part(Dense(2 * hidden), _side_by_side(*branches)),
                Part(CausalConvolution(hidden, 2 * hidden, width=width), convolution),
                _rg_lru(weights, "rg_lru.", TRANSFORMERS[name]),
                Part(Dense(outputs), take_dense(weights, "linear_out", hidden, outputs)),
            ]
        )
    weights.close()
    return part.cell, part.params


def _side_by_side(a: DenseParams, b: DenseParams) -> DenseParams:
    """Two dense layers of the same input as one; both must have a bias or none."""
    kernel = jnp.concatenate([a.input_kernel, b.input_kernel], axis=1)
    if a.bias is None or b.bias is None:
        raise ValueError("RecurrentGemma weights must hold linear_x.bias and linear_y.bias")
    return DenseParams(kernel, jnp.concatenate([a.bias, b.bias]))


def _rg_lru(weights: Source, prefix: str, activation: Callable[[Array], Array] | None) -> Part:
    names = [[f"{prefix}{name}" for name in names] for names in _NAMES]
    decay, a_kernel, a_bias, i_kernel, i_bias = names[names[1][0] in weights]
    (hidden,) = weights.shape(decay, "hidden")
    blocks, block, _ = weights.shape(a_kernel, "blocks", "block", "block")
    if blocks * block != hidden:
        raise ValueError(
            f"{weights.prefix}{a_kernel} must have blocks of {hidden} features in all, got "
            f"{blocks} blocks of {block}"
        )
    kernels = [weights.take(name, blocks, block, block) for name in (a_kernel, i_kernel)]
    biases = [weights.take(name, blocks, block).reshape(hidden) for name in (a_bias, i_bias)]
    params = GriffinRGLRUParams(weights.take(decay, hidden), jnp.stack(kernels), jnp.stack(biases))
    return Part(GriffinRGLRU(hidden, activation), params)


def _activation(module: Any) -> str | None:
    """The activation of a block of transformers; recurrentgemma's is fixed."""
    function = getattr(module, "act_fn", None)
    if function is None:
        return None
    known = {
        "PytorchGELUTanh": "gelu_pytorch_tanh",
        "GELUTanh": "gelu_pytorch_tanh",
        "GELUActivation": "gelu",
        "ReLU": "relu",
        "SiLU": "silu",
        "SiLUActivation": "silu",
    }
    return known.get(type(function).__name__, type(function).__name__)
