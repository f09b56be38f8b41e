"""Time and memory against the length of a sequence, for engines that walk and engines that do not.

Lim, Zhu, Selfridge and Kasim, "Parallelizing non-linear sequential models over the sequence length"
(DEER), 2024: a nonlinear recurrence solved for all time at once by Newton's method, on a GPU up to
some hundred times faster than the loop for a small GRU, one row and long sequences. Gonzalez,
Warrington, Smith and Linderman, "Towards scalable and stable parallelization of nonlinear RNNs"
(ELK), 2024: how that depends on the cell.

Here, for a cell with a dense Jacobian, one with a diagonal Jacobian and one that is affine: the
loop (`Sequential`, with several steps unrolled, and `Hoisted`) against `Associative`, in one scan
and in chunks, and `Newton`, and against what JAX has for affine recurrences, `associative_scan`
differentiated as it is; forward, and forward with all gradients. And how many iterations
Newton's method needs, against the largest Lyapunov exponent of the cell. `--grid affine` has works
of many sizes for affine cells alone, those with a matrix for a state among them.

Expected: on an accelerator the parallel engines win from some length on, for small states and few
rows; on a CPU, whose cores the loop's small steps keep busy, they lose at every length. The
iterations: a few where the exponent is negative, more and more towards zero, and no convergence
where the cell is chaotic.

    python -m experiments.benchmark.parallel_in_time
    python -m experiments.benchmark.parallel_in_time --cells gru --hidden 16 --lengths 1000 10000
    python -m experiments.benchmark.parallel_in_time --cells min-gru lru --lengths 4096 --batch 8
    python -m experiments.benchmark.parallel_in_time --grid affine
    python -m experiments.benchmark.parallel_in_time --quick
"""

import functools
import statistics
import time as clock
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import parallel_report as report
from experiments.benchmark.parallel_report import PASSES, Entry, Pass, Point, Row
from experiments.benchmark.peers.engines import Ours
from experiments.benchmark.peers.scan_tree import ScanTree
from experiments.benchmark.timing import compile_program, interleave, machine
from experiments.common.options import CellName, check_at_least, make_cell

# Configuration ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """What to run."""

    grid: Literal["lengths", "affine"] = "lengths"
    """lengths: what the options say, and iterations. affine: a table of works for affine cells,
    without Newton's method; of the options it takes rounds, seconds, patience and seed."""
    cells: tuple[CellName, ...] = ("gru", "para-gru", "min-gru")
    """Cells whose time is measured against the length. None given: none."""
    lengths: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """Lengths of the sequence."""
    batch: int = 1
    """Rows."""
    inputs: int = 8
    """Features of the input."""
    hidden: int = 8
    """Hidden size."""
    unrolls: tuple[int, ...] = (1, 8, 32)
    """Steps in one iteration of the loop of `Sequential` and `Hoisted`."""
    chunk: int = 128
    """Steps of a chunk of `Associative`."""
    rounds: int = 7
    """Rounds in which every engine has its turn."""
    seconds: float = 4.0
    """After so many seconds for one length no further round is begun, once five are done."""
    patience: float = 3.0
    """An engine that takes more seconds than this for one pass is timed once."""
    driven: tuple[CellName, ...] = ("elman", "gru", "lstm")
    """Cells whose iterations are counted. None given: none."""
    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0)
    """Factors on their recurrent kernels, drawn with a spectral radius of about 1."""
    driven_hidden: int = 32
    """Their hidden size."""
    driven_length: int = 1_000
    """The length of their sequence."""
    quick: bool = False
    """Seconds instead of minutes: two short lengths or works, three scales, two rounds."""
    seed: int = 0
    """Seed of parameters and inputs."""
    out: Path = Path("runs/parallel_in_time")
    """Folder for results.json, times.png and iterations.png; for affine, table.md."""

    def __post_init__(self):
        check_at_least(1, self, "batch", "inputs", "hidden", "chunk", "rounds", "driven_hidden")
        for name in ("lengths", "unrolls"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1 each, got {getattr(self, name)}")
        check_at_least(10, self, "driven_length")

    def shortened(self) -> "Config":
        """This, or what ``quick`` makes of it."""
        if not self.quick:
            return self
        small = dict(lengths=(32, 128), unrolls=(1, 4), chunk=16, rounds=2, seconds=0.0)
        driven = dict(scales=(0.5, 2.0, 8.0), driven_hidden=8, driven_length=100)
        return replace(self, **small, **driven)


class Result(NamedTuple):
    """What `main` returns."""

    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    folder: Path


# Time and memory ----------------------------------------------------------------------------------


class Work(NamedTuple):
    """A cell and what it is run on."""

    name: str
    cell: Any
    time: int
    batch: int
    inputs: int

    @property
    def size(self) -> str:
        """Time × batch × inputs × outputs."""
        return f"{self.time}×{self.batch}×{self.inputs}×{self.cell.output_size}"

    def draw(self, seed: int) -> tuple[Any, Any, jax.Array]:
        """Parameters, the state before the first step, and inputs."""
        params = self.cell.init(jax.random.key(seed), self.inputs)
        random = np.random.default_rng(seed)
        xs = random.standard_normal((self.time, self.batch, self.inputs), np.float32)
        return params, self.cell.init_state(params, (self.batch,)), jnp.asarray(xs)


AFFINE = (
    Work("MinGRU", rnn.MinGRU(64), 4096, 8, 64),
    Work("MinGRU", rnn.MinGRU(256), 4096, 8, 256),
    Work("LRU", rnn.LRU(64), 4096, 8, 64),
    Work("MinGRU", rnn.MinGRU(64), 4096, 1, 64),
    Work("MinGRU", rnn.MinGRU(256), 128, 32, 256),
    Work("MinGRU", rnn.MinGRU(128), 100, 1, 128),
    Work("LRU", rnn.LRU(128), 512, 1, 128),
    Work("GatedLinearAttention, 4 heads", rnn.GatedLinearAttention(128, num_heads=4), 1024, 4, 128),
    Work("MLSTM, 4 heads", rnn.MLSTM(128, num_heads=4), 1024, 4, 128),
    Work("DeltaNet, 4 heads", rnn.DeltaNet(128, num_heads=4), 1024, 4, 128),
    Work("MLSTM, 2 heads", rnn.MLSTM(256, num_heads=2), 512, 8, 256),
    Work("GatedLinearAttention, 2 heads", rnn.GatedLinearAttention(64, num_heads=2), 64, 8, 64),
)
"""Small and large states, long and short sequences, one row and many."""
QUICK_AFFINE = (
    Work("LRU", rnn.LRU(4), 16, 1, 3),
    Work("MLSTM, 2 heads", rnn.MLSTM(4, num_heads=2), 16, 2, 3),
)


def works(config: Config) -> tuple[Work, ...]:
    """What is timed."""
    if config.grid == "affine":
        return QUICK_AFFINE if config.quick else AFFINE
    cells = {name: make_cell(name, config.hidden) for name in config.cells}
    return tuple(
        Work(name, cell, time, config.batch, config.inputs)
        for name, cell in cells.items()
        for time in config.lengths
    )


def contenders(config: Config) -> dict[str, Any]:
    """The engines, by what they are called."""
    if config.grid == "affine":
        engines = [rnn.engines.Sequential(), rnn.engines.Hoisted(), rnn.engines.Associative()]
    else:
        engines = [rnn.engines.Sequential(unroll=n) for n in config.unrolls]
        engines += [rnn.engines.Hoisted(unroll=n) for n in config.unrolls]
        engines += [rnn.engines.Associative(), rnn.engines.Associative(chunk_size=config.chunk)]
        engines += [rnn.engines.Newton(), rnn.engines.Newton(quasi=True)]
    return {Ours(engine).name: engine for engine in engines} | {report.PEER: ScanTree()}


def draw_like(values: Any, seed: int) -> Any:
    """Normal draws, an array for each array (or its shape)."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        parts = random.standard_normal((2, *leaf.shape), np.float32)
        return jnp.asarray(parts[0] + 1j * parts[1] if jnp.iscomplexobj(leaf) else parts[0])

    return jax.tree.map(draw, values)


def forward(cell: Any, engine: Any, params: Any, state: Any, xs: jax.Array) -> Any:
    """The outputs, and the state after all steps."""
    return rnn.unroll(cell, params, xs, state, engine=engine)


def backward(cell: Any, engine: Any, cotangents: Any, *inputs: Any) -> Any:
    """With them, the gradients of all that goes in, for given cotangents of all that comes out.

    A loss would add its own time to everybody's.
    """
    results, pull = jax.vjp(functools.partial(forward, cell, engine), *inputs)
    return results, pull(cotangents)


def measure(config: Config, work: Work, which: Pass, console: Console) -> Row:
    """Every engine that takes the work."""
    inputs = work.draw(config.seed)
    arguments, task = inputs, forward
    if which == "forward+backward":
        shapes = jax.eval_shape(
            functools.partial(forward, work.cell, rnn.engines.Sequential()), *inputs
        )
        arguments, task = (draw_like(shapes, config.seed + 1), *inputs), backward
    where = f"{work.name}, {work.size}, {which}"
    programs, refused, errors, once = {}, {}, {}, {}
    want = None
    for title, engine in contenders(config).items():
        reason = engine.why_not(work.cell, *inputs)
        if reason is not None:
            refused[title] = reason
            continue
        console.print(f"{where}: compiling {title}", end="\r")
        program = compile_program(functools.partial(task, work.cell, engine), arguments, exact=True)
        begin = clock.perf_counter()
        try:
            values = program.values()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            refused[title] = f"{where}: out of memory"
            continue
        once[title] = clock.perf_counter() - begin
        want = values if want is None else want
        errors[title] = max(
            float(np.abs(got - right).max(initial=0) / max(1.0, np.abs(right).max(initial=0)))
            for got, right in zip(values, want, strict=True)
        )
        programs[title] = program
    runs = {
        title: program.run for title, program in programs.items() if once[title] <= config.patience
    }
    samples = {title: [seconds] for title, seconds in once.items()}
    samples |= interleave(runs, rounds=config.rounds, seconds=config.seconds)
    entries = tuple(
        Entry(
            title,
            1e3 * statistics.median(samples[title]),
            program.temporary_bytes,
            program.compile_seconds,
            errors[title],
        )
        for title, program in programs.items()
    )
    iterations = _iterations(work.cell, inputs) if config.grid == "lengths" else None
    return Row(work.name, work.time, work.size, which, entries, refused, iterations)


def _iterations(cell: Any, inputs: tuple[Any, Any, jax.Array]) -> int | None:
    """How many iterations Newton's method takes, where it converges."""
    engine = rnn.engines.Newton()
    if engine.why_not(cell, *inputs) is not None:
        return None
    info = jax.jit(functools.partial(engine.solve, cell))(*inputs)[2]
    return int(info.iterations) if bool(info.converged) else None


# Iterations against the Lyapunov exponent ---------------------------------------------------------


def scaled(params: Any, cell: Any, scale: float, seed: int) -> Any:
    """Parameters with a random recurrent kernel of spectral radius about ``scale`` a gate."""
    shape = params.recurrent_kernel.shape
    kernel = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return params._replace(recurrent_kernel=jnp.asarray(scale * kernel / np.sqrt(shape[0])))


def count(config: Config, name: str, scale: float) -> Point:
    """Exponent and iterations of one cell."""
    cell = make_cell(name, config.driven_hidden)
    params, state, xs = Work(name, cell, config.driven_length, 1, config.inputs).draw(config.seed)
    params, xs = scaled(params, cell, scale, config.seed), 0.5 * xs
    exponent = rnn.analysis.lyapunov_exponents(
        cell, params, xs, state, burn_in=config.driven_length // 10
    )
    counts = {}
    for title, engine in report.METHODS.items():
        info = jax.jit(functools.partial(engine.solve, cell))(params, state, xs)[2]
        counts[title] = int(info.iterations) if bool(info.converged) else None
    return Point(name, scale, float(exponent[0, 0]), counts)


def main(config: Config, console: Console | None = None) -> Result:
    """Measures, and reports."""
    console = console or Console(highlight=False)
    config = config.shortened()
    config.out.mkdir(parents=True, exist_ok=True)
    where = machine(("jax", "jaxlib", "numpy"))
    written, rows, points = config.out / "results.json", [], []
    for work in works(config):
        for which in PASSES:
            rows.append(measure(config, work, which, console))
            console.print(report.line(rows[-1]))
            report.write_json(written, where, config, rows, points)
    if config.grid == "affine":
        table = report.sizes_table(rows)
        (config.out / "table.md").write_text(table, encoding="utf-8")
        console.print(table, soft_wrap=True)
    else:
        for name in config.driven:
            points += [count(config, name, scale) for scale in config.scales]
        report.write_json(written, where, config, rows, points)
        report.print_lengths(console, rows, points)
        if rows:
            report.draw_times(config.out / "times.png", rows, where)
        if points:
            report.draw_iterations(config.out / "iterations.png", points, config.driven_length)
    console.print(f"results are in {config.out}")
    return Result(tuple(rows), tuple(points), config.out)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
