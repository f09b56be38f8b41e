"""What the benchmark measures: the grids of cells and sizes."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jaxrnn as rnn
from experiments.benchmark.peers import LISTED, Work, installed

GridName = Literal["cpu", "gpu", "memory", "tiny"]
NetName = Literal["one-layer", "three-layers", "bidirectional"]
DtypeName = Literal["float32", "bfloat16"]
Sizes = tuple[int, int, int, int]  # time, batch, inputs, hidden


class Grid(NamedTuple):
    """Cells times sizes."""

    sizes: tuple[Sizes, ...]
    cells: tuple[str, ...]
    nets: tuple[NetName, ...] = ("one-layer", "three-layers", "bidirectional")
    """Deeper networks are measured for LSTM and GRU at the first size only."""
    dtypes: tuple[DtypeName, ...] = ("float32",)
    gates_given: tuple[bool, ...] = (False,)
    final_only: bool = False
    compiles: int = 1


_ALL_CELLS = ("lstm", "gru", "elman", "reset-before-gru", "two-speed")

GRIDS: dict[str, Grid] = {
    "cpu": Grid(
        (
            (128, 32, 128, 256),
            (256, 64, 512, 512),
            (100, 1, 64, 128),
            (512, 8, 64, 128),
            (64, 128, 256, 512),
            (1000, 16, 32, 64),
        ),
        _ALL_CELLS,
    ),
    # The settings of Pöppel, Beck and Hochreiter, "FlashRNN: optimizing traditional RNNs on modern
    # hardware", 2024, whose times leave the input product out (gates given) except for cuDNN's: the
    # size of their table, then their batch sizes, then their lengths.
    "gpu": Grid(
        (
            (1024, 16, 768, 768),
            *((1024, batch, 768, 768) for batch in (2, 8, 32, 64, 128, 256)),
            *((time, 16, 768, 768) for time in (256, 512, 2048)),
        ),
        ("lstm", "gru"),
        dtypes=("bfloat16", "float32"),
        gates_given=(False, True),
    ),
    # Long sequences, where memory decides; and whether compile time grows with length.
    "memory": Grid(
        ((100, 8, 256, 256), (1000, 8, 256, 256), (10000, 8, 256, 256)),
        ("lstm",),
        nets=("one-layer",),
        final_only=True,
        compiles=3,
    ),
    "tiny": Grid(((6, 3, 4, 8), (4, 1, 2, 4)), _ALL_CELLS),
}


def read_sizes(grid: Grid, points: Sequence[str]) -> tuple[Sizes, ...]:
    """The sizes that the command line asks for.

    Args:
        grid: where numbers look sizes up.
        points: each the number of a size of the grid, counted from 1, or sizes `T,B,I,H` of one's
            own; none at all for the whole grid.

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(_read_size(grid, point) for point in points) or grid.sizes


def _read_size(grid: Grid, point: str) -> Sizes:
    numbers = point.split(",")
    if all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        if len(numbers) == 4:
            time, batch, inputs, hidden = map(int, numbers)
            return time, batch, inputs, hidden
        if len(numbers) == 1 and int(point) <= len(grid.sizes):
            return grid.sizes[int(point) - 1]
    raise ValueError(
        f"points must be numbers from 1 to {len(grid.sizes)}, or time, batch, inputs and hidden "
        f"size as in 128,32,128,256; got {point!r}"
    )


def works(
    grid: Grid,
    *,
    sizes: Sequence[Sizes],
    cells: Sequence[str] = (),
    nets: Sequence[NetName] = (),
    dtypes: Sequence[DtypeName] = (),
    scale: float = 1.0,
    tf32: bool = False,
) -> list[Work]:
    """The works of a grid, in the order in which they are measured.

    Args:
        grid: what to measure where the others say nothing.
        sizes: which sizes.
        cells: which cells.
        nets: which networks; if given, deeper ones are measured at every size and for every cell.
        dtypes: which dtypes.
        scale: a factor on all sizes.
        tf32: whether TensorFloat-32 is allowed.
    """
    found = []
    for size in sizes:
        time, batch, inputs, hidden = (max(1, round(number * scale)) for number in size)
        for cell in cells or grid.cells:
            for net in nets or grid.nets:
                usual = size == grid.sizes[0] and cell in ("lstm", "gru")
                if net != "one-layer" and not nets and not usual:
                    continue
                for dtype in dtypes or grid.dtypes:
                    for given in grid.gates_given if net == "one-layer" else (False,):
                        work = Work(
                            cell,
                            time,
                            batch,
                            inputs,
                            hidden,
                            layers=3 if net == "three-layers" else 1,
                            bidirectional=net == "bidirectional",
                            dtype=dtype,
                            gates_given=given,
                            final_only=grid.final_only,
                            tf32=tf32,
                            compiles=grid.compiles,
                        )
                        found.append(work)
    return list(dict.fromkeys(found))  # scaled down, two sizes may become one


def usual_engines(grid: Grid, sizes: Sequence[Sizes], scale: float) -> list[Any]:
    """The engines that are measured if nobody chooses: those that are there, and exact."""
    names = ["Sequential", "Hoisted"] if grid.final_only else _USUAL
    engines = [getattr(rnn.engines, name)() for name in names if hasattr(rnn.engines, name)]
    if grid.final_only and hasattr(rnn.engines, "Hoisted"):
        longest = max(round(size[0] * scale) for size in sizes)
        engines.append(rnn.engines.Hoisted(checkpoint_every=max(1, math.isqrt(longest))))
    return engines


_USUAL = ["Sequential", "Hoisted", "Auto", "CuDNN"]


def usual_peers(grid: Grid) -> list[str]:
    """The peers that are measured if nobody chooses: all that are installed."""
    return ["scan"] if grid.final_only else [name for name in LISTED if installed(name)]
