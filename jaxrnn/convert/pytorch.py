"""Conversion from and to PyTorch's recurrent modules."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import GRU, LSTM, Elman, ProjectedLSTM, ProjectedLSTMParams
from jaxrnn.convert._arrays import Source, as_array, gates_of, to_numpy
from jaxrnn.convert._network import (
    Part,
    activation_name,
    assemble,
    gru_part_from_two_biases,
    lstm_part,
    parts,
    recurrent_bias,
    refuse,
    simple_part,
)
from jaxrnn.convert._state_files import accepts_files, state_dict

_NAME = re.compile(r"(?:weight|bias)_(?:ih|hh|hr)(?:_l(?P<layer>\d+)(?P<reverse>_reverse)?)?")


@accepts_files
def from_pytorch(
    source: Any, *, prefix: str = "", activation: str | None = None
) -> tuple[Any, PyTree]:
    """Reads ``torch.nn.RNN``, ``LSTM``, ``GRU`` or one of their cells.

    The cell, its sizes and the numbers of layers and directions follow from the names and shapes of
    the arrays. PyTorch's two biases are summed, except for the GRU's ``b_hn``; the network computes
    the same function:

        LSTM, RNN: b = b_ih + b_hh        GRU: b = b_ih + (b_hr, b_hz, 0), candidate bias = b_hn

    Args:
        source: a module, its state dict, or the path of a file with one: ``*.safetensors``, or a
            file of ``torch.save(module.state_dict(), path)``, which is loaded with
            ``weights_only=True``, so that it cannot run code.
        prefix: the prefix of the recurrent module in a larger model, with its dot: ``"encoder."``.
        activation: ``"tanh"`` or ``"relu"``, the activation of an RNN; None is a module's
            ``nonlinearity``, and tanh for a state dict.

    Returns:
        ``(network, params)``: a cell for one layer, `layers.Bidirectional` for two directions,
        `layers.Stack` for several layers. They take time-major sequences for every
        ``batch_first``.

    Raises:
        ValueError: an array is missing, unexpected, or inconsistent in shape with the others.
        TypeError: ``source`` or one of its arrays has the wrong type.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> state_dict = {"weight_ih_l0": np.zeros((12, 3)), "weight_hh_l0": np.zeros((12, 4))}
        >>> cell, params = rnn.convert.from_pytorch(state_dict)
        >>> cell.hidden_size, params.input_kernel.shape
        (4, (3, 12))

    Note:
        A module's dropout between layers becomes the stack's; a state dict does not contain it.
    """
    arrays = state_dict(source)
    for name in arrays:
        if not isinstance(name, str):
            raise TypeError(f"source must map names to arrays, got the key {name!r}")
    module = source
    if prefix and hasattr(source, "get_submodule"):
        try:
            module = source.get_submodule(prefix.removesuffix("."))
        except AttributeError:
            module = None  # the error below lists the prefixes
    kind = type(module)
    if hasattr(module, "state_dict") and kind.__module__ != "torch.nn.modules.rnn":
        if any(name.startswith(f"{prefix}weight_ih") for name in arrays):
            raise TypeError(
                f"the module under prefix={prefix!r} must be one of torch.nn's own, got "
                f"{kind.__name__}, whose forward jaxrnn does not read; pass its state_dict() if it "
                "computes the same"
            )
    phi = activation or str(getattr(module, "nonlinearity", "tanh"))
    chosen = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    foreign = [name for name in chosen if not _NAME.fullmatch(name)]
    if foreign or not chosen:
        places = sorted(
            {k[: m.start()] for k in arrays if (m := _NAME.search(k)) and m.end() == len(k)}
        )
        raise ValueError(
            f"the state dict under prefix={prefix!r} must hold the weights of one recurrent module "
            f"(weight_ih_l0, ...), got {', '.join(foreign[:6]) or 'nothing'}; there are recurrent "
            f"weights under prefix={' or '.join(map(repr, places)) or 'none'}"
        )
    weights = Source("PyTorch", chosen, prefix)
    biased = any(name.startswith("bias") for name in chosen)
    matches = [match for name in chosen if (match := _NAME.fullmatch(name))]
    if any(match["layer"] is None for match in matches):
        stack = [[_read(weights, "", phi, biased)]]
    else:
        directions = ("", "_reverse") if any(match["reverse"] for match in matches) else ("",)
        count = 1 + max(int(match["layer"]) for match in matches)
        stack = [
            [_read(weights, f"_l{layer}{direction}", phi, biased) for direction in directions]
            for layer in range(count)
        ]
    weights.close()
    return assemble(stack, dropout=getattr(module, "dropout", 0.0))


def to_pytorch(network: Any, params: PyTree) -> dict[str, np.ndarray]:
    """Writes the state dict of the equivalent ``torch.nn.RNN``, ``LSTM`` or ``GRU``.

    jaxrnn's bias becomes ``bias_ih``; ``bias_hh`` is zero except for a GRU's candidate bias.

    Args:
        network: a cell or layers of `Elman`, `LSTM`, `ProjectedLSTM` or `GRU`, all of one type and
            size, as `from_pytorch` returns them.
        params: its parameters.

    Returns:
        NumPy arrays by name. ``module.load_state_dict({k: torch.tensor(v) for k, v in
        arrays.items()})`` loads them, ``safetensors.numpy.save_file(arrays, path)`` saves them. The
        names of an ``LSTMCell`` and of the other cells lack the suffix ``_l0``.

    Raises:
        TypeError: a cell of the network has no counterpart in PyTorch, or layers differ in type.
        ValueError: the layers differ in size.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.GRU(hidden_size=4)
        >>> arrays = rnn.convert.to_pytorch(cell, cell.init(jax.random.key(0), input_size=3))
        >>> sorted(arrays)
        ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']
    """
    stack = parts("PyTorch", network, params)
    cells = [part.cell for directions in stack for part in directions]
    for cell in cells:
        if type(cell) is not type(cells[0]):
            raise TypeError(
                "a PyTorch module has layers of one type, got "
                f"{type(cells[0]).__name__} and {type(cell).__name__}; convert them one by one"
            )
        if cell.hidden_size != cells[0].hidden_size or cell.output_size != cells[0].output_size:
            raise ValueError(
                f"a PyTorch module has layers of one size, got {cells[0]!r} and {cell!r}; convert "
                "them one by one"
            )
    if len({len(directions) for directions in stack}) > 1:
        raise ValueError(
            "a PyTorch module has one or two directions in all its layers, got both; convert the "
            "layers one by one"
        )
    arrays = {}
    for layer, directions in enumerate(stack):
        for part, direction in zip(directions, ("", "_reverse"), strict=False):
            for name, array in _write(part).items():
                arrays[f"{name}_l{layer}{direction}"] = np.array(array)
    return arrays


def from_packed_sequence(packed: Any) -> tuple[Array, np.ndarray]:
    """Reads a ``torch.nn.utils.rnn.PackedSequence`` as padded sequences and their lengths.

    The rows are in the order in which they were packed, as ``pad_packed_sequence`` returns them:
    with ``enforce_sorted=False`` they need not be sorted by length.

    Args:
        packed: the packed sequence.

    Returns:
        ``(xs, lengths)``: xs ``[time, batch, ...]`` with zeros past the end of each row, and int32
        lengths ``[batch]``, for ``unroll(cell, params, xs, lengths=lengths)``. Integers, such as
        tokens, have JAX's default integer dtype.

    Raises:
        TypeError: ``packed`` is not a packed sequence.
        ValueError: its batch sizes do not describe its data.

    Example:
        >>> import torch, jaxrnn as rnn  # doctest: +SKIP
        >>> rows = [torch.ones(2, 3), torch.ones(5, 3)]  # doctest: +SKIP
        >>> packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)  # doctest: +SKIP
        >>> xs, lengths = rnn.convert.from_packed_sequence(packed)  # doctest: +SKIP
        >>> xs.shape, lengths  # doctest: +SKIP
        ((5, 2, 3), array([2, 5], dtype=int32))
    """
    fields = ("data", "batch_sizes", "unsorted_indices")
    if not all(hasattr(packed, field) for field in fields):
        raise TypeError(
            "packed must be a torch.nn.utils.rnn.PackedSequence, got "
            f"{type(packed).__name__}; padded sequences need no conversion"
        )
    data = to_numpy("packed.data", packed.data)
    sizes = to_numpy("packed.batch_sizes", packed.batch_sizes)
    if sizes.size == 0 or (np.diff(sizes) > 0).any() or sizes.sum() != len(data):
        raise ValueError(
            f"packed.batch_sizes must not increase and must add up to the {len(data)} steps of "
            f"packed.data, got {sizes.tolist()}"
        )
    valid = np.arange(sizes[0]) < sizes[:, None]  # [time, batch], longest row first
    padded = np.zeros((*valid.shape, *data.shape[1:]), data.dtype)
    padded[valid] = data
    lengths = valid.sum(0, dtype=np.int32)
    if packed.unsorted_indices is not None:
        order = to_numpy("packed.unsorted_indices", packed.unsorted_indices)
        padded, lengths = padded[:, order], lengths[order]
    if np.issubdtype(data.dtype, np.integer):
        return jnp.asarray(padded.astype(jax.dtypes.canonicalize_dtype(data.dtype))), lengths
    return as_array("packed.data", padded), lengths


def _read(weights: Source, suffix: str, activation: str, biased: bool) -> Part:
    """One direction of one layer; PyTorch has transposed kernels ``[gates * hidden, input]``."""
    names = [f"{kind}{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    rows, inputs = weights.shape(names[0], "gates * hidden", "input")
    _, fed_back = weights.shape(names[1], "gates * hidden", "hidden")
    projection = f"weight_hr{suffix}"
    hidden = fed_back
    if projection in weights:
        _, hidden = weights.shape(projection, "projection", "hidden")
    gates = 4 if projection in weights else gates_of(names[0], (rows, inputs), hidden)
    kernel = weights.take(names[0], gates * hidden, inputs).T
    recurrent = weights.take(names[1], gates * hidden, fed_back).T
    take = weights.take if biased else weights.take_or_zeros
    b_ih, b_hh = (take(name, gates * hidden) for name in names[2:])
    if gates == 3:
        return gru_part_from_two_biases(kernel, recurrent, b_ih, b_hh)
    if gates == 1:
        return simple_part(kernel, recurrent, b_ih + b_hh, activation)
    if projection in weights:
        projected = weights.take(projection, fed_back, hidden).T
        return Part(
            ProjectedLSTM(hidden, fed_back),
            ProjectedLSTMParams(kernel, recurrent, b_ih + b_hh, projected),
        )
    return lstm_part(kernel, recurrent, b_ih + b_hh)


def _write(part: Part) -> dict[str, Array]:
    cell, params = part
    if not isinstance(cell, Elman | LSTM | ProjectedLSTM | GRU):
        raise refuse("PyTorch", cell, (Elman, LSTM, ProjectedLSTM, GRU))
    if isinstance(cell, Elman):
        activation_name("PyTorch", cell)
    arrays = {
        "weight_ih": params.input_kernel.T,
        "weight_hh": params.recurrent_kernel.T,
        "bias_ih": params.bias,
        "bias_hh": recurrent_bias(part),
    }
    if isinstance(cell, ProjectedLSTM):
        arrays["weight_hr"] = params.projection_kernel.T
    return arrays
