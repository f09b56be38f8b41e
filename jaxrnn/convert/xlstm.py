"""Conversion from the xlstm package: its sLSTM and mLSTM layers, blocks and stacks."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import SLSTM, SLSTMParams
from jaxrnn.convert._activations import XLSTM, silu
from jaxrnn.convert._arrays import Source
from jaxrnn.convert._matrix_memory import MatrixMemory, MatrixMemoryParams
from jaxrnn.convert._modules import (
    CausalConvolution,
    Dense,
    Gated,
    Normalize,
    NormalizeParams,
    named_arrays,
    numbered,
    stack,
    take_convolution,
    take_dense,
)
from jaxrnn.convert._network import Part
from jaxrnn.convert._state_files import accepts_files

_EPSILON = 1e-5  # of the normalizations


@accepts_files
def from_xlstm(
    source: Any, *, prefix: str = "", activation: str | None = None
) -> tuple[Any, PyTree]:
    """Reads the layers, blocks and block stacks of the xlstm package, version 2.

    An ``sLSTMLayer`` becomes a stack of a convolution, `SLSTM` and a normalization, and an
    ``mLSTMLayer`` of a dense layer, a convolution, `MatrixMemory` and a dense layer. A block adds
    its normalizations, its residual connections and its feed-forward layer as stacks in a stack, so
    that each cell has its own engine.

    Args:
        source: an ``sLSTMLayer``, ``mLSTMLayer``, ``sLSTMBlock``, ``mLSTMBlock`` or
            ``xLSTMBlockStack``, with either backend, its state dict, or the path of a file with
            one: ``*.safetensors``, or a file of ``torch.save``.
        prefix: the prefix of the module in a larger model, with its dot:
            ``"xlstm_block_stack."`` in an ``xLSTMLMModel``.
        activation: the ``act_fn`` of the feed-forward layers; None is that of a module, and
            ``"gelu"`` for a state dict.

    Returns:
        ``(network, params)``: a `layers.Stack`, which also decodes step by step.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others; or a
            module has an option without a counterpart, such as a clipped gradient.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> arrays = {f"{gate}gate.weight": np.ones((2, 3, 3)) for gate in "ifzo"}
        >>> arrays |= {"slstm_cell._recurrent_kernel_": np.ones((2, 12, 3))}
        >>> arrays |= {"slstm_cell._bias_": np.ones(24), "group_norm.weight": np.ones(6)}
        >>> network, params = rnn.convert.from_xlstm(arrays)
        >>> network.layers[0].cell
        SLSTM(hidden_size=6, num_heads=2)

    Note:
        The package gives the weights named ``fgate`` to the input gate of an sLSTM and those named
        ``igate`` to the forget gate; they are read as it computes. Its mLSTM adds 10⁻⁶ to a
        denominator that is scaled differently in ``forward`` and in ``step``, so that these two
        agree to about 10⁻⁶ before the normalization; the network is ``step``. Dropout is not
        converted. The ``xlstm_large`` models (xLSTM 7B) have other layers and are not read.
    """
    arrays = named_arrays(source, prefix)
    name = activation or "gelu"
    if not isinstance(source, Mapping):
        module = source.get_submodule(prefix.removesuffix(".")) if prefix else source
        name = _check_module(module) or name
    if name not in XLSTM:
        raise ValueError(f"activation must be one of {', '.join(XLSTM)}, got {name!r}")
    if not any(n.startswith("blocks.") for n in arrays):
        part = _read(arrays, prefix, XLSTM[name])
        return part.cell, part.params
    last = {n: a for n, a in arrays.items() if n.startswith("post_blocks_norm.")}
    blocks = numbered({n: a for n, a in arrays.items() if n not in last}, "blocks.")
    parts = [_read(own, f"{prefix}{stem}", XLSTM[name]) for stem, own in blocks]
    if last:
        weights = Source("xlstm", last, prefix)
        parts.append(_norm(weights, "post_blocks_norm", parts[0].cell.output_size))
        weights.close()
    whole = stack(parts)
    return whole.cell, whole.params


def _read(arrays: Mapping[str, Any], prefix: str, activation: Callable[[Array], Array]) -> Part:
    """A layer, or a block around one."""
    weights = Source("xlstm", arrays, prefix)
    block = "xlstm_norm.weight" in weights
    layer = "xlstm." if block else ""
    matrix = f"{layer}proj_up.weight" in weights
    parts = (_mlstm if matrix else _slstm)(weights, layer)
    size = parts[-1].cell.output_size
    if block:
        parts = [stack([_norm(weights, "xlstm_norm", size), *parts])]
        if "ffn_norm.weight" in weights:
            parts.append(_feed_forward(weights, size, activation))
    weights.close()
    return stack(parts, residual=block)


def _norm(weights: Source, name: str, size: int, groups: int = 1) -> Part:
    """A normalization; the package stores its scale minus 1."""
    scale = 1 + weights.take(f"{name}.weight", size) if f"{name}.weight" in weights else None
    return Part(Normalize(size, groups, _EPSILON), NormalizeParams(scale))


def _slstm(weights: Source, prefix: str) -> list[Part]:
    heads, head, _ = weights.shape(f"{prefix}igate.weight", "heads", "head", "head")
    size = heads * head
    parts, split = [], f"{prefix}conv1d.conv.weight" in weights
    if split:
        params = take_convolution(weights, f"{prefix}conv1d.conv", size)
        parts.append(_convolution(size, size, params))

    def gate(name: str, convolved: bool) -> Array:
        blocks = weights.take(f"{prefix}{name}.weight", heads, head, head)
        dense = jax.scipy.linalg.block_diag(*(block.T for block in blocks))
        rows = ((0, size) if convolved else (size, 0)) if split else (0, 0)
        return jnp.pad(dense, (rows, (0, 0)))

    # The package gives the weights of its fgate to the input gate, and the reverse.
    gates = [gate("fgate", True), gate("igate", True), gate("zgate", False), gate("ogate", False)]
    name, bias_name = f"{prefix}slstm_cell._recurrent_kernel_", f"{prefix}slstm_cell._bias_"
    _, rows, columns = weights.shape(name, "heads", "head", "4 * head")
    bias = weights.take(bias_name, 4 * size)
    if (rows, columns) == (4 * head, head):  # the backend "vanilla"
        recurrent = jnp.swapaxes(weights.take(name, heads, 4 * head, head), 1, 2)
    else:
        recurrent = weights.take(name, heads, head, 4 * head)
        bias = jnp.swapaxes(bias.reshape(heads, 4, head), 0, 1).reshape(4 * size)
    params = SLSTMParams(jnp.concatenate(gates, axis=1), recurrent, bias)
    parts.append(Part(SLSTM(size, num_heads=heads), params))
    return [*parts, _norm(weights, f"{prefix}group_norm", size, heads)]


def _mlstm(weights: Source, prefix: str) -> list[Part]:
    rows, size = weights.shape(f"{prefix}proj_up.weight", "2 * hidden", "size")
    (hidden,) = weights.shape(f"{prefix}learnable_skip", "hidden")
    heads, _ = weights.shape(f"{prefix}mlstm_cell.igate.weight", "heads", "3 * hidden")
    blocks, block, _ = weights.shape(f"{prefix}q_proj.weight", "blocks", "block", "block")
    if rows != 2 * hidden or hidden % heads:
        raise ValueError(
            f"{prefix}proj_up.weight must have 2 * {hidden} rows, and {heads} heads must divide "
            f"{hidden} features, got {rows} rows"
        )
    up = take_dense(weights, f"{prefix}proj_up", size, 2 * hidden)
    convolution = take_convolution(weights, f"{prefix}conv1d.conv", hidden)
    qkv = [f"{prefix}{k}_proj" for k in "qkv"]
    kernels = jnp.stack([weights.take(f"{n}.weight", blocks, block, block) for n in qkv])
    biases = None
    if f"{qkv[0]}.bias" in weights:
        biases = jnp.stack([weights.take(f"{n}.bias", hidden) for n in qkv])
    gates = [take_dense(weights, f"{prefix}mlstm_cell.{k}gate", 3 * hidden, heads) for k in "if"]
    params = MatrixMemoryParams(
        jnp.swapaxes(kernels, -1, -2),
        biases,
        jnp.concatenate([gate.input_kernel for gate in gates], axis=1),
        jnp.concatenate([_present(gate.bias, f"{prefix}mlstm_cell") for gate in gates]),
        1 + weights.take(f"{prefix}mlstm_cell.outnorm.weight", hidden),
        weights.take(f"{prefix}learnable_skip", hidden),
    )
    down = take_dense(weights, f"{prefix}proj_down", hidden, size)
    return [
        Part(Dense(2 * hidden), up),
        _convolution(hidden, 2 * hidden, convolution),
        Part(MatrixMemory(hidden, heads), params),
        Part(Dense(size), down),
    ]


def _present(bias: Array | None, name: str) -> Array:
    if bias is None:
        raise ValueError(f"xlstm weights must hold the biases of both gates of {name}")
    return bias


def _convolution(features: int, inputs: int, params: Any) -> Part:
    width = params.kernel.shape[0]
    return Part(CausalConvolution(features, inputs, silu, True, width), params)


def _feed_forward(weights: Source, size: int, activation: Callable[[Array], Array]) -> Part:
    rows, _ = weights.shape("ffn.proj_up.weight", "2 * hidden", "size")
    return stack(
        [
            _norm(weights, "ffn_norm", size),
            Part(Dense(rows), take_dense(weights, "ffn.proj_up", size, rows)),
            Part(Gated(rows // 2, activation), ()),
            Part(Dense(size), take_dense(weights, "ffn.proj_down", rows // 2, size)),
        ]
    )


# What a module's configuration says and its weights do not ---------------------------------------

# Options that the arrays show, or that change neither values nor gradients in evaluation.
_HANDLED = {
    "hidden_size", "num_heads", "embedding_dim", "conv1d_kernel_size", "group_norm_weight",
    "qkv_proj_blocksize", "proj_factor", "bias", "context_length", "kernel_size", "feature_dim",
    "causal_conv_bias", "in_features", "num_blocks", "add_post_blocks_norm", "slstm_at",
    "round_proj_up_dim_up", "round_proj_up_to_multiple_of", "trainable_weight", "trainable_bias",
    "mlstm", "slstm", "feedforward", "mlstm_block", "slstm_block", "act_fn", "dropout",
    "backend", "bias_init", "recurrent_weight_init", "batch_size", "input_shape", "output_shape",
    "internal_input_shape", "enable_automatic_mixed_precision", "dtype", "dtype_b", "dtype_r",
    "dtype_w", "dtype_g", "dtype_s", "dtype_a",
}  # fmt: skip


def _check_module(module: Any) -> str | None:
    """Refuses options without a counterpart; returns the activation of the feed-forward layers."""
    activations, seen = set(), set()
    for name, part in module.named_modules():
        where = f"{name or 'source'} ({type(part).__name__})"
        if getattr(part, "residual_weight", True) is not True:
            raise ValueError(f"residual_weight of {where} must be True, got {part.residual_weight}")
        if type(part).__name__ in ("LayerNorm", "MultiHeadLayerNorm") and part.eps != _EPSILON:
            raise ValueError(f"eps of {where} must be {_EPSILON}, got {part.eps}")
        config: Any = getattr(part, "config", None)
        if not dataclasses.is_dataclass(config) or id(config) in seen:
            continue
        seen.add(id(config))  # a layer and its cell share one
        options: dict[str, Any] = vars(config)
        if options.get("dropout"):
            warnings.warn(
                f"dropout={options['dropout']} of {where} is not converted; the network "
                "computes what the module computes after eval()",
                stacklevel=3,
            )
        activations |= {options["act_fn"]} if "act_fn" in options else set()
        for field in dataclasses.fields(config):
            value = options[field.name]
            if field.name in _HANDLED or field.name.startswith("_"):
                continue
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            if value != default:
                raise ValueError(
                    f"{field.name} of {where} must be {default!r}, got {value!r}, which has no "
                    "counterpart in jaxrnn"
                )
    if len(activations) > 1:
        raise ValueError(f"all feed-forward layers must have one act_fn, got {sorted(activations)}")
    return next(iter(activations), None)
