"""Every engine of this library against every framework that is installed, on the same work.

    python -m experiments.benchmark                                # on a CPU
    python -m experiments.benchmark --grid gpu                     # the published FlashRNN settings
    python -m experiments.benchmark --grid memory                  # long sequences
    python -m experiments.benchmark --points 1 64,8,32,32 --cells lstm gru --peers torch linen

For every cell and size: the time of the forward pass, and of the forward pass with the gradient of
a loss on every output with respect to inputs, initial state and all weights; the time to compile;
memory; and the share of the rate at which this machine multiplies two large matrices in the same
rounds. All contenders are compiled ahead and take turns in one process; times are medians, ratios
are medians of the ratios within a round. Weights are arguments, as in training.

Every library is used in its best form, which the files of `experiments/_peers` state. The results
of this library's engines, of the plain scan and of the cells hoisted by hand are compared with
those of `Sequential` before anything is timed, and every other result must be finite.

Expected on a CPU: no JAX peer is faster than `Auto`, at any point.
"""

import dataclasses
from collections.abc import Mapping, Sequence
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
    LISTED,
    PASSES,
    Contender,
    Pass,
    Work,
    installed,
    load,
)
from experiments.benchmark.peers.engines import Ours
from experiments.benchmark.results import Entry, Line, Row, Timing, summarise
from experiments.benchmark.timing import Program, interleave, machine, matrix_product
from experiments.common.options import EngineName, check_at_least, check_positive, make_engine

# Configuration ------------------------------------------------------------------------------------

if TYPE_CHECKING:
    CellName = str
    PeerName = str
else:
    CellName = tyro.extras.literal_type_from_choices(list(GATES))
    PeerName = tyro.extras.literal_type_from_choices([*LISTED, "none"])


@dataclass(frozen=True)
class Config:
    """What to time, and for how long."""

    grid: grids.GridName = "cpu"
    """cpu, gpu (the published FlashRNN settings), memory (long sequences), or tiny (a trial)."""
    points: tuple[str, ...] = ()
    """Sizes of the grid by number, counted from 1, or your own as time,batch,inputs,hidden. None:
    all of the grid."""
    cells: tuple[CellName, ...] = ()
    """Cells; two-speed is this benchmark's own, unknown to every library. None: all of the grid."""
    nets: tuple[grids.NetName, ...] = ()
    """Networks. None: one layer, and at the first point deeper ones of LSTM and GRU."""
    engines: tuple[EngineName, ...] = ()
    """Engines of this library. None: those that Auto chooses from, and Auto itself."""
    peers: tuple[PeerName, ...] = ()
    """Whom to time beside them; none for nobody. None given: all that are installed."""
    dtypes: tuple[grids.DtypeName, ...] = ()
    """Number formats. None: those of the grid."""
    tf32: bool = False
    """On a GPU, let float32 products be TensorFloat-32 ones, for everybody alike."""
    rounds: int = 20
    """Rounds in which every contender has its turn."""
    seconds: float = 300.0
    """After so many seconds for one pass of one work no further round is begun; five are done all
    the same."""
    scale: float = 1.0
    """A factor on all sizes: a grid that is too large for a machine can be tried there."""
    matrix: int | None = None
    """Rows of the square matrices whose product gives the machine's rate. None: 2048, on a GPU
    8192, times the scale."""
    out: Path | None = None
    """Folder for results.json, table.md and times.png. None: runs/benchmark/, by grid."""

    def __post_init__(self):
        check_at_least(1, self, "rounds")
        check_positive(self, "seconds", "scale")
        for name in self.peers:
            if name != "none" and not installed(name):
                package = LISTED[name].package
                raise ValueError(f"peers has {name}, but {package} is not installed")
        grids.read_sizes(grids.GRIDS[self.grid], self.points)


class Result(NamedTuple):
    """What `main` returns."""

    rows: tuple[Row, ...]
    summary: tuple[Line, ...]
    folder: Path


# Contenders ---------------------------------------------------------------------------------------


class Named(NamedTuple):
    """A contender with the name it has in tables."""

    title: str
    kind: str
    contender: Contender


def contenders(config: Config) -> list[Named]:
    """The engines and peers of a configuration."""
    grid = grids.GRIDS[config.grid]
    sizes = grids.read_sizes(grid, config.points)
    engines = [make_engine(name) for name in config.engines]
    ours = [Ours(engine) for engine in engines or grids.usual_engines(grid, sizes, config.scale)]
    names = config.peers or grids.usual_peers(grid)
    return [Named(engine.name, "jaxrnn", engine) for engine in ours] + [
        Named(LISTED[name].title, LISTED[name].kind, load(name)) for name in names if name != "none"
    ]


# Measuring ----------------------------------------------------------------------------------------

_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
_PRODUCT = "matrix product"


def measure(work: Work, everybody: Sequence[Named], config: Config, console: Console) -> Row:
    """Builds, checks and times everybody who can do a work."""
    refused, taking = {}, []
    for named in everybody:
        reason = named.contender.why_not(work)
        if reason is None:
            taking.append(named)
        else:
            refused[named.title] = reason
    networks = {named.title: named.contender.build(work) for named in taking}
    reference = Ours(rnn.engines.Sequential()).build(work)
    timings: dict[str, dict[Pass, Timing]] = {named.title: {} for named in taking}
    rates: dict[Pass, float] = {}
    size = config.matrix or _matrix_size(config.scale)
    product = matrix_product(size, work.dtype, exact=work.exact)
    with console.status("") as status:
        for which in PASSES:
            # First of all, so that nobody's compile time has JAX's own start in it.
            wanted = reference.program(which).values()
            programs = {}
            for title, network in networks.items():
                status.update(f"{work.name}: {which}: {title} is compiled")
                programs[title] = network.program(which)
            status.update(f"{work.name}: {which}: results are compared")
            _check(work, which, taking, programs, wanted)
            runs = {title: program.run for title, program in programs.items()}
            samples = interleave(
                runs | {_PRODUCT: product.run},
                rounds=config.rounds,
                seconds=config.seconds,
                note=lambda done, which=which: status.update(
                    f"{work.name}: {which}: round {done} of {config.rounds}"
                ),
            )
            rates[which] = 2 * size**3 / float(np.median(samples[_PRODUCT]))
            for title, program in programs.items():
                rate = work.operations(which) / float(np.median(samples[title]))
                timings[title][which] = Timing(
                    tuple(samples[title]),
                    rate / rates[which],
                    program.compile_seconds,
                    program.temporary_bytes,
                    program.total_bytes,
                )
    entries = tuple(Entry(named.title, named.kind, timings[named.title]) for named in taking)
    return Row(work, entries, refused, rates)


def _matrix_size(scale: float) -> int:
    return max(128, round(scale * (8192 if jax.default_backend() == "gpu" else 2048)))


def _check(
    work: Work,
    which: Pass,
    taking: Sequence[Named],
    programs: Mapping[str, Program],
    wanted: Sequence[np.ndarray],
) -> None:
    """Raises if a result is not finite, or is not that of `Sequential` though it should be."""
    one_layer = work.layers == 1 and not work.bidirectional
    for named in taking:
        values = programs[named.title].values()
        if not all(np.isfinite(value).all() for value in values):
            raise ArithmeticError(f"{named.title}, {work.name}, {which}: a result is not finite")
        # The plain scan and the hand-written cells are given the weights of the engines.
        ours = named.kind == "jaxrnn"
        if not ours and not (named.title in _SAME_WEIGHTS and one_layer):
            continue
        for value, want in zip(values, wanted, strict=True):
            # Over a long time a gradient vanishes altogether.
            error = np.abs(value - want).max() / max(np.abs(want).max(), 1e-30)
            if not error <= _TOLERANCE[work.dtype]:
                raise ArithmeticError(
                    f"{named.title}, {work.name}, {which}: a result differs from Sequential's by "
                    f"{error:.1e} of its largest element"
                )


_SAME_WEIGHTS = (LISTED["scan"].title, LISTED["by-hand"].title)


# The command --------------------------------------------------------------------------------------


def main(config: Config, console: Console | None = None) -> Result:
    """Times everything, printing each table when it is complete.

    Args:
        config: what to time.
        console: where to print.

    Returns:
        All times, the summary, and the folder of the files.

    Raises:
        ArithmeticError: a result is not finite, or an engine's is not that of `Sequential`.
    """
    console = console or Console(width=150)
    folder = config.out or Path("runs") / "benchmark" / config.grid
    folder.mkdir(parents=True, exist_ok=True)
    packages = [listed.package for listed in LISTED.values() if listed.package]
    described = machine(["jax", "jaxlib", "numpy", *dict.fromkeys(packages)])
    described["config"] = dataclasses.asdict(config) | {"out": str(folder)}
    everybody = contenders(config)
    grid = grids.GRIDS[config.grid]
    rows, lines = [], []
    for work in grids.works(
        grid,
        sizes=grids.read_sizes(grid, config.points),
        cells=config.cells,
        nets=config.nets,
        dtypes=config.dtypes,
        scale=config.scale,
        tf32=config.tf32,
    ):
        rows.append(measure(work, everybody, config, console))
        console.print(report.row_table(rows[-1]))
        # Written after every row, so that a run that is cut short leaves what it has measured.
        lines = summarise(rows)
        report.write_json(folder / "results.json", described, rows, lines)
        (folder / "table.md").write_text(report.markdown(rows), encoding="utf-8")
        report.draw(folder / "times.png", rows, described)
    console.print(report.summary_table(lines))
    console.print(f"Results, Markdown table and picture: {folder}")
    return Result(tuple(rows), tuple(lines), folder)
