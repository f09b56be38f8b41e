"""Times every engine of this library and every installed framework on the same workloads.

    python -m experiments.benchmark                                # on a CPU
    python -m experiments.benchmark --grid gpu                     # the published FlashRNN settings
    python -m experiments.benchmark --grid memory                  # long sequences
    python -m experiments.benchmark --points 1 64,8,32,32 --cells lstm gru --peers torch linen

For every cell and size: the time of the forward pass; the time of the forward and backward pass,
for a loss on every output, with respect to inputs, initial state and all weights; the compile time;
the memory; and the rate relative to a product of two large matrices, measured in the same rounds.
All contenders are compiled ahead of time and interleaved in one process; times are medians, ratios
are medians of the ratios within a round. Weights are arguments, as in training.

Every framework is used in its best form; see `experiments/benchmark/peers`. Before the timing, the
results of this library's engines, of the plain scan and of the cells hoisted by hand are compared
with those of `Sequential`, and all other results must be finite.

Expected on a CPU: no JAX peer is faster than `Auto`, at any size.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
import tyro
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import grids, report
from experiments.benchmark.peers import (
    GATES,
    PASSES,
    PEERS,
    Contender,
    Pass,
    Workload,
    engines,
    installed,
    load,
)
from experiments.benchmark.results import Entry, Line, Row, Timing, summarise
from experiments.benchmark.timing import difference, interleave, machine, matrix_product
from experiments.common import checks as _checks
from experiments.common.choices import EngineName, make_engine

# Configuration ------------------------------------------------------------------------------------

if TYPE_CHECKING:
    CellName = str
    PeerName = str
else:
    CellName = tyro.extras.literal_type_from_choices(list(GATES))
    PeerName = tyro.extras.literal_type_from_choices([*PEERS, "none"])


@dataclass(frozen=True)
class Config:
    """What to time, and for how long."""

    grid: grids.GridName = "cpu"
    """cpu, gpu (the published FlashRNN settings), memory (long sequences), or tiny (a trial)."""
    points: tuple[str, ...] = ()
    """Sizes of the grid by number, counted from 1, or other sizes as time,batch,inputs,hidden.
    Default: all of the grid."""
    cells: tuple[CellName, ...] = ()
    """Cells; two-speed is a custom cell that no library has. Default: all of the grid."""
    nets: tuple[grids.NetName, ...] = ()
    """Networks. Default: one layer, and deeper ones of LSTM and GRU at the first size."""
    engines: tuple[EngineName, ...] = ()
    """Engines of this library. Default: those that Auto chooses from, and Auto itself."""
    peers: tuple[PeerName, ...] = ()
    """Frameworks to compare with, or none. Default: all that are installed."""
    dtypes: tuple[grids.DtypeName, ...] = ()
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

    def sizes(self) -> tuple[grids.Sizes, ...]:
        """The sizes to measure."""
        return grids.read_sizes(grids.GRIDS[self.grid], self.points)

    def contenders(self) -> list[Contender]:
        """The engines and peers to time."""
        grid = grids.GRIDS[self.grid]
        chosen = [make_engine(name) for name in self.engines]
        chosen = chosen or grids.usual_engines(grid, self.sizes(), self.scale)
        peers = [name for name in self.peers or grids.usual_peers(grid) if name != "none"]
        return [engines.contender(engine) for engine in chosen] + [load(name) for name in peers]


class Result(NamedTuple):
    """All times, the summary, and the folder of the files."""

    rows: tuple[Row, ...]
    summary: tuple[Line, ...]
    folder: Path


# Measuring ----------------------------------------------------------------------------------------

_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
_PRODUCT = "matrix product"


def measure(
    workload: Workload, contenders: Sequence[Contender], config: Config, console: Console
) -> Row:
    """Builds, checks and times all contenders that support a workload."""
    reasons = {contender: contender.why_not(workload) for contender in contenders}
    running = [contender for contender, reason in reasons.items() if reason is None]
    networks = {contender.title: contender.build(workload) for contender in running}
    reference = engines.contender(rnn.engines.Sequential()).build(workload)
    timings: dict[str, dict[Pass, Timing]] = {title: {} for title in networks}
    rates: dict[Pass, float] = {}
    usual = 8192 if jax.default_backend() == "gpu" else 2048
    size = config.matrix or max(128, round(config.scale * usual))
    product = matrix_product(size, workload.dtype, exact=workload.exact)
    with console.status("") as status:
        for which in PASSES:
            # The reference is compiled first, so that no compile time includes JAX's startup.
            wanted = reference.program(which).values()
            programs = {}
            for title, network in networks.items():
                status.update(f"{workload.name}: {which}: compiling {title}")
                programs[title] = network.program(which)
            status.update(f"{workload.name}: {which}: comparing results")
            for contender in running:
                values = programs[contender.title].values()
                check(workload, which, contender, values, wanted)
            samples = interleave(
                {title: program.run for title, program in programs.items()}
                | {_PRODUCT: product.run},
                rounds=config.rounds,
                seconds=config.seconds,
                note=lambda done, which=which: status.update(
                    f"{workload.name}: {which}: round {done} of {config.rounds}"
                ),
            )
            rates[which] = 2 * size**3 / float(np.median(samples[_PRODUCT]))
            for title, program in programs.items():
                rate = workload.operations(which) / float(np.median(samples[title]))
                timings[title][which] = Timing(
                    tuple(samples[title]),
                    rate / rates[which],
                    program.compile_seconds,
                    program.temporary_bytes,
                    program.total_bytes,
                )
    entries = tuple(Entry(c.title, c.kind, timings[c.title]) for c in running)
    refused = {c.title: reason for c, reason in reasons.items() if reason is not None}
    return Row(workload, entries, refused, rates)


def check(
    workload: Workload,
    which: Pass,
    contender: Contender,
    values: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
) -> None:
    """Raises if a result is not finite, or differs from that of `Sequential` for equal weights."""
    name = f"{contender.title}, {workload.name}, {which}"
    if not all(np.isfinite(value).all() for value in values):
        raise ArithmeticError(f"{name}: expected finite results, got NaN or infinity")
    one_layer = workload.layers == 1 and not workload.bidirectional
    if contender.kind == "jaxrnn" or (contender.same_weights and one_layer):
        error, tolerance = difference(values, wanted), _TOLERANCE[workload.dtype]
        if not error <= tolerance:
            raise ArithmeticError(
                f"{name}: expected the results of Sequential to {tolerance:.0e} of the largest "
                f"element of each array, got a difference of {error:.1e}"
            )


# The command --------------------------------------------------------------------------------------


def main(config: Config, console: Console | None = None) -> Result:
    """Times all workloads and prints each table when it is complete.

    Args:
        config: what to time.
        console: where to print.

    Returns:
        All times, the summary, and the folder of the files.

    Raises:
        ArithmeticError: a result is not finite, or an engine's differs from that of `Sequential`.
    """
    console = console or Console(width=150)
    folder = config.out or Path("runs") / "benchmark" / config.grid
    folder.mkdir(parents=True, exist_ok=True)
    described = machine(
        ["jaxlib", "numpy", *dict.fromkeys(package for _, package in PEERS.values())]
    )
    described["config"] = dataclasses.asdict(config) | {"out": str(folder)}
    contenders = config.contenders()
    rows, lines = [], []
    for workload in grids.workloads(
        grids.GRIDS[config.grid],
        sizes=config.sizes(),
        cells=config.cells,
        nets=config.nets,
        dtypes=config.dtypes,
        scale=config.scale,
        tf32=config.tf32,
    ):
        rows.append(measure(workload, contenders, config, console))
        console.print(report.row_table(rows[-1]))
        # Written after every row, so that an interrupted run keeps its measurements.
        lines = summarise(rows)
        report.write_json(
            folder / "results.json",
            machine=described,
            rows=[row.as_json() for row in rows],
            summary=[line._asdict() for line in lines],
        )
        (folder / "table.md").write_text(report.markdown(rows), encoding="utf-8")
        report.plot_times(folder / "times.png", rows, described)
    console.print(report.summary_table(lines))
    console.print(f"Results, Markdown table and plot: {folder}")
    return Result(tuple(rows), tuple(lines), folder)
