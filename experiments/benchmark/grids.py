"""What the benchmark measures: the grids of cells and sizes, and the options."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import tyro

from experiments.benchmark.peers import (
    GATES,
    PEERS,
    Contender,
    Workload,
    engines,
    installed,
    load,
    spread,
)
from experiments.common.options import EngineName, check_at_least, check_positive, make_engine
from jaxrnn.engines import Auto, CuDNN, Hoisted, Sequential

NetName = Literal["one-layer", "three-layers", "bidirectional"]
DtypeName = Literal["float32", "bfloat16"]
Sizes = tuple[int, int, int, int]  # time, batch, inputs, hidden

if TYPE_CHECKING:
    CellName = str
    PeerName = str
else:
    CellName = tyro.extras.literal_type_from_choices(list(GATES))
    PeerName = tyro.extras.literal_type_from_choices([*PEERS, "none"])


class Grid(NamedTuple):
    """Cells times sizes."""

    sizes: tuple[Sizes, ...]
    cells: tuple[str, ...]
    nets: tuple[NetName, ...] = ("one-layer", "three-layers", "bidirectional")
    dtypes: tuple[DtypeName, ...] = ("float32",)
    gates_given: tuple[bool, ...] = (False,)
    final_only: bool = False
    compiles: int = 1

    def deep(self) -> list[tuple[Sizes, str]]:
        """The sizes and cells of deeper networks."""
        return [(self.sizes[0], cell) for cell in ("lstm", "gru")]


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
        tuple(GATES),
    ),
    # The settings of Pöppel, Beck and Hochreiter, "FlashRNN: optimizing traditional RNNs on modern
    # hardware", 2024, whose times exclude the input product (gates given) except for cuDNN's: the
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
    # Long sequences: memory, and the growth of compile time with length.
    "memory": Grid(
        ((100, 8, 256, 256), (1000, 8, 256, 256), (10000, 8, 256, 256)),
        ("lstm",),
        nets=("one-layer",),
        final_only=True,
        compiles=3,
    ),
    "tiny": Grid(((6, 3, 4, 8), (4, 1, 2, 4)), tuple(GATES)),
}


@dataclass(frozen=True)
class Config:
    """Compares the engines of jaxrnn with all installed frameworks."""

    grid: Literal["cpu", "gpu", "memory", "tiny"] = "cpu"
    """cpu, gpu (the published FlashRNN settings), memory (long sequences), or tiny (a trial)."""
    points: tuple[str, ...] = ()
    """Sizes of the grid by number, counted from 1, or other sizes as time,batch,inputs,hidden.
    Default: all of the grid."""
    cells: tuple[CellName, ...] = ()
    """Cells; two-speed is a custom cell that no library has. Default: all of the grid."""
    nets: tuple[NetName, ...] = ()
    """Networks. Default: one layer, and deeper ones of LSTM and GRU at the first size."""
    engines: tuple[EngineName, ...] = ()
    """Engines of this library. Default: those that Auto chooses from, and Auto itself."""
    peers: tuple[PeerName, ...] = ()
    """Frameworks to compare with, or none. Default: all that are installed."""
    dtypes: tuple[DtypeName, ...] = ()
    """Number formats. Default: those of the grid."""
    tf32: bool = False
    """On a GPU, compute float32 products in TensorFloat-32, for all contenders."""
    rounds: int = 20
    """Rounds; every contender has one turn in each."""
    seconds: float = 300.0
    """Time limit for one pass of one workload, after which no round starts; at least five rounds
    are completed."""
    scale: float = 1.0
    """Factor on all sizes, to try a grid that is too large for a machine."""
    matrix: int | None = None
    """Rows of the square matrices whose product measures the machine's rate. Default: 2048, on a
    GPU 8192, times the scale."""
    out: Path | None = None
    """Folder for results.json, table.md and times.png. Default: runs/benchmark/<grid>."""

    def __post_init__(self):
        check_at_least(1, self, "rounds")
        check_positive(self, "seconds", "scale")
        for name in self.peers:
            if name != "none" and not installed(name):
                raise ValueError(f"peers has {name}, but {PEERS[name][1]} is not installed")
        self.sizes()

    def sizes(self) -> tuple[Sizes, ...]:
        """The sizes to measure, before scaling."""
        grid = GRIDS[self.grid].sizes
        return tuple(read_size(grid, point) for point in self.points) or grid

    def workloads(self) -> list[Workload]:
        """The workloads, in the order of measurement."""
        grid = GRIDS[self.grid]
        found = [
            Workload(
                cell,
                *(max(1, round(number * self.scale)) for number in size),
                layers=3 if net == "three-layers" else 1,
                bidirectional=net == "bidirectional",
                dtype=dtype,
                gates_given=given,
                final_only=grid.final_only,
                tf32=self.tf32,
                compiles=grid.compiles,
            )
            for size in self.sizes()
            for cell in self.cells or grid.cells
            for net in self.nets or grid.nets
            if net == "one-layer" or self.nets or (size, cell) in grid.deep()
            for dtype in self.dtypes or grid.dtypes
            for given in (grid.gates_given if net == "one-layer" else (False,))
        ]
        return list(dict.fromkeys(found))  # two sizes may be equal after scaling

    def contenders(self) -> list[Contender]:
        """The engines and peers to time."""
        final_only = GRIDS[self.grid].final_only
        chosen = [make_engine(name) for name in self.engines]
        if not chosen and final_only:
            longest = max(round(time * self.scale) for time, *_ in self.sizes())
            checkpointed = Hoisted(checkpoint_every=max(1, math.isqrt(longest)))
            chosen = [Sequential(), Hoisted(), checkpointed]
        chosen = chosen or [Sequential(), Hoisted(), Auto(), CuDNN()]
        usual = ["scan"] if final_only else [name for name in PEERS if installed(name)]
        peers = [load(name) for name in self.peers or usual if name != "none"]
        own = [engines.contender(engine) for engine in chosen]
        spreading = [own[-1] if self.engines else engines.contender(Auto())]
        spreading += [peer for peer in peers if peer.kind == "jax"]
        cores = jax.default_backend() == "cpu" and jax.device_count() > 1 and not final_only
        return own + peers + [spread(contender) for contender in spreading if cores]


def read_size(sizes: tuple[Sizes, ...], point: str) -> Sizes:
    """Parses the number of a size, counted from 1, or another size ``time,batch,inputs,hidden``."""
    numbers = [int(n) if n.strip().isdecimal() else 0 for n in point.split(",")]
    if all(numbers) and len(numbers) == 4:
        time, batch, inputs, hidden = numbers
        return time, batch, inputs, hidden
    if len(numbers) == 1 and 1 <= numbers[0] <= len(sizes):
        return sizes[numbers[0] - 1]
    raise ValueError(
        f"points must be numbers from 1 to {len(sizes)}, or sizes time,batch,inputs,hidden as in "
        f"128,32,128,256; got {point!r}"
    )
