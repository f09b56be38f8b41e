"""Conversion from and to the weight vector of cuDNN's LSTM, as in ``jax.experimental.rnn``."""

from typing import Any

from jaxrnn._arguments import check_size
from jaxrnn._typing import Array, PyTree
from jaxrnn.cells import LSTM
from jaxrnn.convert._arrays import as_array, warn_not_finite
from jaxrnn.convert._network import Part, assemble, lstm_part, parts, refuse
from jaxrnn.engines._lstm_call import Sizes, flat_weights, unflatten_weights


def from_cudnn(
    weights: Any,
    *,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> tuple[Any, PyTree]:
    """Reads the weight vector of ``jax.experimental.rnn.lstm``.

    The vector holds the kernels ``W_ih`` and ``W_hh`` of each direction of each layer, then the
    biases ``b_ih`` and ``b_hh`` in the same order. The two biases are summed here.

    Args:
        weights: the vector.
        input_size: the number of input features of the first layer.
        hidden_size: the number of hidden features of each direction of each layer.
        num_layers: the number of layers.
        bidirectional: whether each layer has two directions.

    Returns:
        ``(network, params)``: `LSTM`, `layers.Bidirectional`, or `layers.Stack`.

    Raises:
        ValueError: the length of the vector does not match the sizes.
        TypeError: ``weights`` is not a floating-point array, or a size is not an int.

    Example:
        >>> import numpy as np, jaxrnn as rnn
        >>> weights = np.zeros(16 * (3 + 4 + 2))
        >>> cell, params = rnn.convert.from_cudnn(weights, input_size=3, hidden_size=4)
        >>> params.input_kernel.shape
        (3, 16)
    """
    for name, value in (
        ("input_size", input_size),
        ("hidden_size", hidden_size),
        ("num_layers", num_layers),
    ):
        check_size(name, value)
    flat = as_array("weights", weights)
    warn_not_finite("cuDNN", {"weights": flat})
    directions = 1 + bool(bidirectional)
    sizes = Sizes(input_size, hidden_size, num_layers, directions)
    wanted = sizes.weights
    if flat.shape != (wanted,):
        raise ValueError(
            f"weights must be a vector of {wanted} numbers for input_size={input_size}, "
            f"hidden_size={hidden_size}, num_layers={num_layers}, bidirectional={bidirectional}, "
            f"got shape {list(flat.shape)}"
        )
    cells = [lstm_part(*params) for params in unflatten_weights(sizes, flat)]
    return assemble([cells[i : i + directions] for i in range(0, len(cells), directions)])


def to_cudnn(network: Any, params: PyTree) -> Array:
    """Writes the weight vector of ``jax.experimental.rnn.lstm``.

    jaxrnn's bias becomes ``b_ih``; ``b_hh`` is zero.

    Args:
        network: `LSTM`, or layers of it, all of one size and one number of directions.
        params: its parameters.

    Returns:
        The vector, a JAX array; the function is traceable and differentiable.

    Raises:
        TypeError: a cell is not an `LSTM`.
        ValueError: the layers differ in size or number of directions.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LSTM(hidden_size=4)
        >>> rnn.convert.to_cudnn(cell, cell.init(jax.random.key(0), input_size=3)).shape
        (144,)
    """
    stack = parts("cuDNN", network, params)
    cells: list[Part] = [part for directions in stack for part in directions]
    for cell, _ in cells:
        if not isinstance(cell, LSTM):
            raise refuse("cuDNN", cell, (LSTM,))
    sizes = {(cell.hidden_size, len(directions)) for directions in stack for cell, _ in directions}
    if len(sizes) > 1:
        raise ValueError(
            "cuDNN has layers of one size and one number of directions, got (hidden_size, "
            f"directions) {sorted(sizes)}; convert the layers one by one"
        )
    return flat_weights([params for _, params in cells])
