"""The grids of cells and sizes that the benchmark measures."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jaxrnn as rnn
from experiments.benchmark.peers import PEERS, Workload, installed

GridName = Literal["cpu", "gpu", "memory", "tiny"]
NetName = Literal["one-layer", "three-layers", "bidirectional"]
DtypeName = Literal["float32", "bfloat16"]
Sizes = tuple[int, int, int, int]  # time, batch, inputs, hidden


class Grid(NamedTuple):
    """Cells times sizes."""

    sizes: tuple[Sizes, ...]
    cells: tuple[str, ...]
    # Deeper networks for LSTM and GRU at the first size only.
    nets: tuple[NetName, ...] = ("one-layer", "three-layers", "bidirectional")
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
    # hardware", 2024, whose times exclude the input product (gates given) except for cuDNN's: the
    # sizes of their table, then their batch sizes, then their lengths.
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
    # Long sequences: memory, and the growth of compile time with length.
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
    """Parses sizes from the command line.

    Args:
        grid: the grid that numbers refer to.
        points: each the number of a size of the grid, counted from 1, or other sizes `T,B,I,H`;
            none for the whole grid.

    Raises:
        ValueError: a point is neither.
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
        f"points must be numbers from 1 to {len(grid.sizes)}, or sizes time,batch,inputs,hidden as "
        f"in 128,32,128,256; got {point!r}"
    )


def workloads(
    grid: Grid,
    *,
    sizes: Sequence[Sizes],
    cells: Sequence[str] = (),
    nets: Sequence[NetName] = (),
    dtypes: Sequence[DtypeName] = (),
    scale: float = 1.0,
    tf32: bool = False,
) -> list[Workload]:
    """The workloads of a grid, in the order of measurement.

    Args:
        grid: defaults of the other arguments.
        sizes: sizes.
        cells: cells.
        nets: networks; if given, deeper ones are measured for every cell and size.
        dtypes: dtypes.
        scale: factor on all sizes.
        tf32: whether TensorFloat-32 is allowed.
    """
    found = [
        Workload(
            cell,
            *(max(1, round(number * scale)) for number in size),
            layers=3 if net == "three-layers" else 1,
            bidirectional=net == "bidirectional",
            dtype=dtype,
            gates_given=given,
            final_only=grid.final_only,
            tf32=tf32,
            compiles=grid.compiles,
        )
        for size in sizes
        for cell in cells or grid.cells
        for net in nets or grid.nets
        if net == "one-layer" or nets or (size == grid.sizes[0] and cell in ("lstm", "gru"))
        for dtype in dtypes or grid.dtypes
        for given in (grid.gates_given if net == "one-layer" else (False,))
    ]
    return list(dict.fromkeys(found))  # two sizes may be equal after scaling


def usual_engines(grid: Grid, sizes: Sequence[Sizes], scale: float) -> list[Any]:
    """The engines that are measured by default: all exact ones."""
    engines = rnn.engines
    if not grid.final_only:
        return [engines.Sequential(), engines.Hoisted(), engines.Auto(), engines.CuDNN()]
    longest = max(round(time * scale) for time, *_ in sizes)
    checkpointed = engines.Hoisted(checkpoint_every=max(1, math.isqrt(longest)))
    return [engines.Sequential(), engines.Hoisted(), checkpointed]


def usual_peers(grid: Grid) -> list[str]:
    """The peers that are measured by default: all that are installed."""
    return ["scan"] if grid.final_only else [name for name in PEERS if installed(name)]
