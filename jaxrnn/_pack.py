"""Packing of short sequences into rows, which avoids most padding."""

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn._arguments import check_size
from jaxrnn._typing import PyTree


class Packed(NamedTuple):
    """Sequences packed into rows by `pack`, with the layout to unpack them.

    ``xs``, ``starts`` and ``mask`` are arguments of `jaxrnn.unroll` and of layers. All arrays are
    NumPy arrays, because the layout is computed outside of ``jit``. Transformed functions close
    over it, or take ``xs``, ``starts`` and ``mask`` as arguments.
    """

    xs: PyTree  # [row_length, rows, ...], zeros in padding
    starts: np.ndarray  # bool [row_length, rows]: a sequence begins at this step
    mask: np.ndarray  # bool [row_length, rows]: False in padding
    lengths: np.ndarray  # int [sequences]: the number of steps of each sequence
    rows: np.ndarray  # int [sequences]: the row of each sequence
    offsets: np.ndarray  # int [sequences]: the first step of each sequence in its row

    def unpack(self, ys: PyTree) -> list[PyTree]:
        """Splits outputs into one array for each sequence, in the order of the arguments of `pack`.

        Works under every JAX transformation. Each new layout compiles again, unless ``ys`` are
        NumPy arrays: if nothing is differentiated, unpack ``jax.device_get(ys)``.

        Args:
            ys: outputs, states from `jaxrnn.wrappers.EmitState`, or gradients with respect to
                ``xs``.

        Shapes:
            ys ``[row_length, rows, ...]`` -> a list of ``[lengths[i], ...]``.

        Raises:
            ValueError: the leading axes of ``ys`` are not those of ``mask``.
        """
        step, row = _cells(self.lengths, self.rows, self.offsets)
        cuts = np.cumsum(self.lengths)[:-1]

        def split(leaf):
            return _numpy_of(leaf).split(self._checked(leaf)[step, row], cuts)

        leaves, structure = jax.tree.flatten(ys)
        parts = zip(*map(split, leaves), strict=True)
        return [jax.tree.unflatten(structure, part) for part in parts]

    def final(self, ys: PyTree, *, reverse: bool = False) -> PyTree:
        """Returns the last step of each sequence, or the first with ``reverse``.

        For the states from `jaxrnn.wrappers.EmitState` these are the final states. An empty
        sequence gets zeros.

        Args:
            ys: as for `unpack`.
            reverse: whether the cell ran backward in time.

        Shapes:
            ys ``[row_length, rows, ...]`` -> ``[sequences, ...]``.

        Raises:
            ValueError: the leading axes of ``ys`` are not those of ``mask``.
        """
        some = self.lengths > 0
        step = np.where(some, self.offsets + (0 if reverse else self.lengths - 1), 0)

        def gather(leaf):
            last = self._checked(leaf)[step, self.rows]
            where = some.reshape(-1, *(1 for _ in last.shape[1:]))
            return _numpy_of(leaf).where(where, last, np.zeros((), last.dtype))

        return jax.tree.map(gather, ys)

    def _checked(self, leaf: Any) -> Any:
        if leaf.shape[:2] != self.mask.shape:
            raise ValueError(
                f"ys must begin with the axes {self.mask.shape} of packed.mask, got shape "
                f"{leaf.shape}; pass the outputs of unroll on packed.xs"
            )
        return leaf


def pack(
    sequences: Sequence[PyTree], *, row_length: int | None = None, rows: int | None = None
) -> Packed:
    """Packs short sequences into the rows of a batch.

    Padding every sequence to the longest one wastes computation. Instead, a row holds several
    sequences: ``starts`` resets the state at the start of each, and ``mask`` skips the remaining
    padding. Sequences are placed in order of decreasing length, each in the fullest row with enough
    room (best fit).

    Args:
        sequences: arrays ``[time_i, ...]``, or pytrees of them, which differ only in time; time may
            be 0.
        row_length: the number of steps of a row; default: that of the longest sequence.
        rows: the number of rows, for fixed shapes; default: as few as needed.

    Returns:
        A `Packed`: ``xs`` with leaves ``[row_length, rows, ...]``, ``starts``, ``mask``, and the
        methods ``unpack`` and ``final``, which split the outputs by sequence.

    Raises:
        TypeError: ``sequences`` is not a list of arrays, or a size is not a positive int.
        ValueError: the sequences differ in more than time, or do not fit.

    Example:
        >>> import jax, numpy as np, jaxrnn as rnn
        >>> packed = rnn.pack([np.ones((n, 3)) for n in (2, 5, 3)])
        >>> packed.mask.shape, packed.offsets
        ((5, 2), array([3, 0, 0]))
        >>> cell = rnn.GRU(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> _, ys = rnn.unroll(cell, params, packed.xs, mask=packed.mask, starts=packed.starts)
        >>> [y.shape for y in packed.unpack(ys)], packed.final(ys).shape
        ([(2, 4), (5, 4), (3, 4)], (3, 4))
    """
    leaves, structure = _leaves(sequences)
    lengths = np.array([parts[0].shape[0] for parts in leaves])
    if row_length is None:
        row_length = max(int(lengths.max()), 1)
    check_size("row_length", row_length)
    if lengths.max() > row_length:
        raise ValueError(
            f"row_length must be at least that of the longest sequence, got {row_length}, but "
            f"sequences[{lengths.argmax()}] has {lengths.max()} steps; cut it, or pass "
            f"row_length={lengths.max()}"
        )
    row, offset = _layout(lengths, int(row_length))
    needed = int(row.max()) + 1
    if rows is None:
        rows = needed
    check_size("rows", rows)
    if rows < needed:
        raise ValueError(
            f"rows must be at least {needed} for these sequences, got {rows}; pass more rows, "
            "a larger row_length, or fewer sequences"
        )
    shape = (int(row_length), int(rows))
    where = _cells(lengths, row, offset)

    def place(parts):
        whole = np.zeros((*shape, *parts[0].shape[1:]), parts[0].dtype)
        whole[where] = np.concatenate(parts)
        return whole

    xs = jax.tree.unflatten(structure, [place(parts) for parts in zip(*leaves, strict=True)])
    mask, starts = np.zeros(shape, bool), np.zeros(shape, bool)
    mask[where] = True
    some = lengths > 0
    starts[offset[some], row[some]] = True
    return Packed(xs, starts, mask, lengths, row, offset)


def _numpy_of(leaf: Any) -> Any:
    """NumPy for NumPy arrays, else `jax.numpy`."""
    return np if isinstance(leaf, np.ndarray) else jnp


def _layout(lengths: np.ndarray, row_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The row and the first step of each sequence: best fit, by decreasing length."""
    row, offset = np.zeros_like(lengths), np.zeros_like(lengths)
    room: list[tuple[int, int]] = []  # (free steps, row) of every row, sorted
    for i in np.argsort(-lengths, kind="stable"):
        length = int(lengths[i])
        fullest = bisect.bisect_left(room, (length, -1))
        free, r = room.pop(fullest) if fullest < len(room) else (row_length, len(room))
        row[i], offset[i] = r, row_length - free
        bisect.insort(room, (free - length, r))
    return row, offset


def _cells(lengths: np.ndarray, row: np.ndarray, offset: np.ndarray):
    """The step and the row of each step of all sequences, in order."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(offset, lengths) + within, np.repeat(row, lengths)


def _leaves(sequences: Any) -> tuple[list[list[np.ndarray]], Any]:
    """The leaves of every sequence as NumPy arrays, checked, and their common structure."""
    if not isinstance(sequences, Sequence) or isinstance(sequences, str):
        raise TypeError(
            f"sequences must be a list of arrays [time, ...], got {type(sequences).__name__}; for "
            "rows of one array write list(array)"
        )
    if len(sequences) == 0:
        raise ValueError("sequences must hold at least one sequence, got none")
    first, structure = None, jax.tree.structure(sequences[0])
    every = []
    for i, sequence in enumerate(sequences):
        if jax.tree.structure(sequence) != structure:
            raise ValueError(
                f"sequences[{i}] must have the structure {structure} of sequences[0], got "
                f"{jax.tree.structure(sequence)}"
            )
        try:
            parts = [np.asarray(leaf) for leaf in jax.tree.leaves(sequence)]
        except jax.errors.TracerArrayConversionError as error:
            raise TypeError(
                f"sequences[{i}] is traced, but the layout depends on lengths: call pack outside "
                "of jit and grad, and differentiate with respect to packed.xs"
            ) from error
        if not parts or any(part.ndim == 0 for part in parts):
            raise ValueError(
                f"sequences[{i}] must hold arrays whose first axis is time, got {sequence!r:.60}"
            )
        found = [(part.shape[1:], part.dtype) for part in parts]
        first = first or found
        if found != first or len({part.shape[0] for part in parts}) > 1:
            raise ValueError(
                f"sequences[{i}] has shapes and dtypes "
                f"{[(part.shape, str(part.dtype)) for part in parts]}; its leaves must agree in "
                "time, and with those of sequences[0] in all else, "
                f"{[(shape, str(dtype)) for shape, dtype in first]} after the time axis"
            )
        every.append(parts)
    return every, structure
