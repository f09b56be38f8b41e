"""The engine that calls the LSTM of cuDNN."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._masking import zero_skipped
from jaxrnn._platform import platforms_of
from jaxrnn._typing import Array, PyTree
from jaxrnn.activations import SAME
from jaxrnn.cells.lstm import LSTM, LSTMParams
from jaxrnn.engines._engine import check_reason, why_not_symbolic
from jaxrnn.engines._levels import Level, NotLevels, levels_of
from jaxrnn.engines._lstm_call import Sizes, flat_weights, lstm
from jaxrnn.wrappers.masked import Masked


@frozen
class CuDNN:
    """The LSTM of NVIDIA's cuDNN, through JAX's binding `jax.experimental.rnn`.

    Accepts `LSTM` in float32, in both directions of time, with lengths, and networks of it: a
    `layers.Stack` whose layers have one size, and `layers.Bidirectional` layers that concatenate
    their outputs, run in one call. In a layer, every cell is given the engine:

        one = Recurrent(LSTM(512), engine=CuDNN())
        network = Stack((Bidirectional(one, one), Bidirectional(one, one)))

    A stack with dropout (and a key), residual connections or normalization between its layers
    makes one call for each of them.

    The platform of the program decides. Lowered for CUDA, the program contains the call, and
    first-order gradients are cuDNN's as well; elsewhere the same call is the loop of `Hoisted`,
    which recomputes the forward pass for gradients. Supports every JAX transformation: forward
    mode, higher derivatives and `jax.vmap` run without cuDNN. A program for CUDA is lowered where
    there is a GPU, since cuDNN tells how much memory it needs.

    Args:
        tf32: whether products may be computed in TF32, with 10 bits of mantissa in place of 23.
            This is inexact, by about 1e-3 relative, and faster; all other engines, and this one by
            default, are exact up to rounding in float32.

    Raises:
        TypeError: ``tf32`` is not a bool.
        ValueError: when called, this engine cannot run the cell, with the reason.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> one = rnn.layers.Recurrent(rnn.LSTM(4), engine=rnn.engines.CuDNN())
        >>> network = rnn.layers.Stack((rnn.layers.Bidirectional(one, one),) * 2)
        >>> params = network.init(jax.random.key(0), 3, "float32")
        >>> xs = jax.numpy.ones((7, 2, 3), "float32")
        >>> final, ys = network.apply(params, None, xs)
        >>> ys.shape
        (7, 2, 8)
        >>> print(rnn.engines.CuDNN().why_not(rnn.GRU(4), params, final, ys))
        JAX's binding of cuDNN has LSTM only, and this cell is GRU; use engines.Hoisted()

    References:
        S. Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014.
    """

    tf32: bool = False
    # Not fields; tests name others.
    _platform = "cuda"
    _dtypes = (jnp.float32,)

    def __post_init__(self):
        if not isinstance(self.tf32, bool):
            raise TypeError(f"tf32 must be True or False, got {self.tf32!r}")

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why this engine cannot run the work, or None if it can."""
        reason = self._why_not(cell, xs)
        platforms = platforms_of(params, state, xs)
        if reason is None and "cuda" not in platforms:
            reason = (
                f"cuDNN needs an NVIDIA GPU, and the platform is {' and '.join(platforms)}, where "
                "the call is the loop of engines.Hoisted(); a program that is lowered for CUDA "
                "calls cuDNN"
            )
        return reason

    def why_not_levels(self, network: Any, xs: Any) -> str | None:
        """The reason why one call cannot run a network of cells, or None; see `Level`."""
        symbolic = why_not_symbolic(xs, "JAX's binding of cuDNN", batch=True)
        if symbolic is not None:
            return symbolic
        try:
            reason = _why_not_cells(levels_of(network)) or self._why_not_inputs(xs)
        except NotLevels as refusal:
            reason = f"cuDNN {refusal}"
        return reason and f"{reason}; use engines.Hoisted()"

    def _why_not_inputs(self, xs: Any) -> str | None:
        if 0 in xs.shape:
            return f"cuDNN needs arrays that are not empty, got xs {xs.shape}"
        if xs.dtype not in self._dtypes:
            return f"JAX's binding of cuDNN takes float32, got xs of {xs.dtype}"
        return None

    def _why_not(self, cell: Any, xs: Any) -> str | None:
        """The reason why cuDNN cannot run the work on any machine, or None if it can."""
        if isinstance(cell, Masked):
            if xs.start is not None:
                return "cuDNN has no starts; use engines.Hoisted()"
            if not cell.from_lengths:
                return (
                    "cuDNN has lengths, not masks; pass lengths if the valid steps of every row "
                    "come first, or use engines.Hoisted()"
                )
            cell, xs = cell.cell, xs.x
        return self.why_not_levels(cell, xs)

    def describe(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str:
        """What the engine does for work that it accepts, for `jaxrnn.explain`; else nothing."""
        if self._why_not(cell, xs) is not None:
            return ""
        levels = levels_of(cell.cell if isinstance(cell, Masked) else cell)
        count, directions = len(levels), len(levels[0].cells)
        calls = f"one call of cuDNN for {count} × {directions} layers × directions"
        exact = "products in float32, exact up to rounding"
        inexact = "products in TF32, inexact: 10 bits of mantissa, about 1e-3 relative"
        return f"{calls}; {inexact if self.tf32 else exact}"

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        check_reason(self, self._why_not(cell, xs))
        return self._run(cell, params, state, xs, reverse)

    def _run(self, cell: Any, params, state, xs, reverse: bool):
        lengths, leaves = None, jax.tree.leaves(state)
        if isinstance(cell, Masked):
            cell, xs, valid = cell.cell, xs.x, xs.valid
            lengths = valid.sum(axis=0, dtype=jnp.int32).ravel()
        levels = levels_of(cell)
        directions = len(levels[0].cells)
        time, *batch, features = xs.shape
        sizes = Sizes(
            inputs=features,
            hidden=leaves[0].shape[-1],
            layers=len(levels),
            directions=directions,
            ragged=lengths is not None,
            tf32=self.tf32,
        )
        hidden, memory = (_join(leaves[i::2]) for i in (0, 1))
        weights = flat_weights(_params(params))
        backward = reverse != levels[0].reverse
        xs = jnp.swapaxes(xs.reshape(time, -1, features), 0, 1)
        final, ys = self._rows(sizes, xs, (hidden, memory), weights, lengths, backward)
        ys = jnp.swapaxes(ys, 0, 1).reshape(time, *batch, directions * sizes.hidden)
        states = [
            x.reshape(*batch, sizes.hidden) for pair in zip(*final, strict=True) for x in pair
        ]
        return jax.tree.unflatten(jax.tree.structure(state), states), ys

    def _rows(self, sizes: Sizes, xs, initial, weights, lengths, backward: bool):
        """All rows in one call, each of its own length, forward or backward in time."""
        rows, time = xs.shape[:2]
        steps = jnp.full((rows,), time, jnp.int32) if lengths is None else jnp.maximum(lengths, 1)
        if backward:
            xs = _flip(xs, lengths)
        ys, *final = lstm(sizes, self._platform, xs, *initial, weights, steps)
        if backward:
            ys = _flip(ys, lengths)
        if lengths is None:
            return final, ys
        # cuDNN is undefined for rows of length 0. They ran one step, of which nothing is kept.
        kept = (lengths > 0)[:, None]
        final = [jnp.where(kept, new, old) for new, old in zip(final, initial, strict=True)]
        return final, zero_skipped(ys, jnp.arange(time, dtype=jnp.int32) < lengths[:, None])


def _why_not_cells(levels: Sequence[Level]) -> str | None:
    cells: list[Any] = [one for level in levels for one in level.cells]
    for one in cells:
        if type(one) is not LSTM:
            kind = type(one).__name__
            return f"JAX's binding of cuDNN has LSTM only, and this cell is {kind}"
        if one.candidate_activation not in SAME["tanh"]:
            return f"cuDNN's LSTM has tanh, got {one}"
    sizes = sorted({one.hidden_size for one in cells})
    if len(sizes) > 1:
        return f"cuDNN's layers have one size, got {sizes}"
    if len({(len(level.cells), level.reverse) for level in levels}) > 1:
        return "cuDNN's layers all run in one direction, or all in both, got several kinds of them"
    return None


def _flip(xs: Array, lengths: Array | None) -> Array:
    """Reverses the time of every row within its length; ``[batch, time, features]``."""
    if lengths is None:
        return jnp.flip(xs, axis=1)
    steps = jnp.arange(xs.shape[1], dtype=jnp.int32)
    mirrored = lengths[:, None] - 1 - steps
    index = jnp.where(mirrored < 0, steps, mirrored)
    rows = jnp.arange(xs.shape[0], dtype=jnp.int32)[:, None]
    return xs.at[rows, index].get(unique_indices=True, mode="promise_in_bounds")


def _join(leaves: list[Array]) -> Array:
    """States ``[*batch, hidden]`` of all layers and directions as ``[n, batch, hidden]``."""
    return jnp.stack([leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves])


def _params(params: PyTree) -> list[LSTMParams]:
    leaves = jax.tree.leaves(params)
    return [LSTMParams(*leaves[i : i + 3]) for i in range(0, len(leaves), 3)]
