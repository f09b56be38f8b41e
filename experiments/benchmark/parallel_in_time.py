"""Times engines that are sequential and parallel in time against the length of the sequence.

For a cell with a dense Jacobian, one with a diagonal Jacobian and one that is affine: the loop
(`Sequential`, with several steps unrolled, and `Hoisted`), `Associative` in one scan and in chunks,
`Newton`, and `jax.lax.associative_scan` with JAX's automatic derivative; forward, and forward with
all gradients. Also the iterations that Newton's method needs, against the largest Lyapunov exponent
of the cell. `--grid affine` measures affine cells of many sizes, including those with a matrix
state.

Expected: on an accelerator the parallel engines win for long sequences, small states and few rows;
on a CPU they lose at every length. Newton's method needs a few iterations where the exponent is
negative, more towards zero, and does not converge where the cell is chaotic.

    python -m experiments.benchmark.parallel_in_time
    python -m experiments.benchmark.parallel_in_time --cells gru --hidden 16 --lengths 1000 10000
    python -m experiments.benchmark.parallel_in_time --cells min-gru lru --lengths 4096 --batch 8
    python -m experiments.benchmark.parallel_in_time --grid affine
    python -m experiments.benchmark.parallel_in_time --quick

References:
    Lim, Zhu, Selfridge and Kasim, "Parallelizing non-linear sequential models over the sequence
    length", 2024 (DEER). Gonzalez, Warrington, Smith and Linderman, "Towards scalable and stable
    parallelization of nonlinear RNNs", 2024 (ELK).
"""

import dataclasses
import functools
import statistics
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import parallel_report as report
from experiments.benchmark.parallel_report import Entry, Point, Row
from experiments.benchmark.peers import PASSES, Pass, engines
from experiments.benchmark.peers.scan_tree import ScanTree
from experiments.benchmark.timing import compile_program, difference, interleave
from experiments.common.options import CellName, check_at_least, make_cell
from experiments.common.results import machine, write_json

# Configuration ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Times engines that are sequential and parallel in time."""

    grid: Literal["lengths", "affine"] = "lengths"
    """lengths: the cells and lengths given by the options, and iterations. affine: a fixed set of
    affine cells, without Newton's method; it uses rounds, seconds, patience and seed only."""
    cells: tuple[CellName, ...] = ("gru", "para-gru", "min-gru")
    """Cells to time; may be empty."""
    lengths: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """Lengths of the sequence."""
    batch: int = 1
    """Sequences per batch."""
    inputs: int = 8
    """Features of the input."""
    hidden: int = 8
    """Hidden size."""
    unrolls: tuple[int, ...] = (1, 8, 32)
    """Steps per iteration of the loop of `Sequential` and `Hoisted`; 1 is their default."""
    chunk: int = 128
    """Steps per chunk of `Associative`."""
    rounds: int = 7
    """Rounds; every engine has one turn in each."""
    seconds: float = 4.0
    """Time limit for one problem, after which no round starts; at least five are completed."""
    patience: float = 3.0
    """An engine that takes more seconds than this for one pass is timed once."""
    driven: tuple[CellName, ...] = ("elman", "gru", "lstm")
    """Cells whose iterations are counted; may be empty."""
    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0)
    """Factors on their recurrent kernels, drawn with a spectral radius of about 1."""
    driven_hidden: int = 32
    """Their hidden size."""
    driven_length: int = 1_000
    """The length of their sequence."""
    quick: bool = False
    """Seconds instead of minutes: two short lengths or problems, three scales, two rounds."""
    seed: int = 0
    """Seed of parameters and inputs."""
    out: Path = Path("runs/parallel_in_time")
    """Folder for results.json, table.md, times.png and iterations.png."""

    def __post_init__(self):
        check_at_least(1, self, "batch", "inputs", "hidden", "chunk", "rounds", "driven_hidden")
        for name in ("lengths", "unrolls"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1 each, got {getattr(self, name)}")
        check_at_least(10, self, "driven_length")

    def shortened(self) -> "Config":
        """The configuration with the effect of ``quick``."""
        if not self.quick:
            return self
        small = dict(lengths=(32, 128), unrolls=(1, 4), chunk=16, rounds=2, seconds=0.0)
        driven = dict(scales=(0.5, 2.0, 8.0), driven_hidden=8, driven_length=100)
        return dataclasses.replace(self, **small, **driven)


class Result(NamedTuple):
    """All measurements, and the folder of the files."""

    rows: tuple[Row, ...]
    points: tuple[Point, ...]
    folder: Path


# Time and memory ----------------------------------------------------------------------------------


class Problem(NamedTuple):
    """A cell and the size of its inputs."""

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
        """Parameters, initial state and inputs."""
        params = self.cell.init(jax.random.key(seed), self.inputs)
        random = np.random.default_rng(seed)
        xs = random.standard_normal((self.time, self.batch, self.inputs), np.float32)
        return params, self.cell.init_state(params, (self.batch,)), jnp.asarray(xs)


def problems(config: Config) -> list[Problem]:
    """The problems of a configuration."""
    if config.grid == "lengths":
        return [
            Problem(name, make_cell(name, config.hidden), time, config.batch, config.inputs)
            for name in config.cells
            for time in config.lengths
        ]
    if config.quick:
        mlstm = Problem("MLSTM, 2 heads", rnn.MLSTM(4, num_heads=2), 16, 2, 3)
        return [Problem("LRU", rnn.LRU(4), 16, 1, 3), mlstm]
    gla, heads = rnn.GatedLinearAttention, "GatedLinearAttention, {} heads".format
    return [
        Problem("MinGRU", rnn.MinGRU(64), 4096, 8, 64),
        Problem("MinGRU", rnn.MinGRU(256), 4096, 8, 256),
        Problem("LRU", rnn.LRU(64), 4096, 8, 64),
        Problem("MinGRU", rnn.MinGRU(64), 4096, 1, 64),
        Problem("MinGRU", rnn.MinGRU(256), 128, 32, 256),
        Problem("MinGRU", rnn.MinGRU(128), 100, 1, 128),
        Problem("LRU", rnn.LRU(128), 512, 1, 128),
        Problem(heads(4), gla(128, num_heads=4), 1024, 4, 128),
        Problem("MLSTM, 4 heads", rnn.MLSTM(128, num_heads=4), 1024, 4, 128),
        Problem("DeltaNet, 4 heads", rnn.DeltaNet(128, num_heads=4), 1024, 4, 128),
        Problem("MLSTM, 2 heads", rnn.MLSTM(256, num_heads=2), 512, 8, 256),
        Problem(heads(2), gla(64, num_heads=2), 64, 8, 64),
    ]


def contenders(config: Config) -> dict[str, Any]:
    """The engines by title."""
    affine, kinds = config.grid == "affine", (rnn.engines.Sequential, rnn.engines.Hoisted)
    unrolls = (1,) if affine else config.unrolls
    # Without unrolling, the defaults: on an accelerator Hoisted unrolls by itself.
    loops = [kind(unroll=n) if n > 1 else kind() for kind in kinds for n in unrolls]
    found = [*loops, rnn.engines.Associative()]
    if not affine:
        found += [rnn.engines.Associative(chunk_size=config.chunk)]
        found += [rnn.engines.Newton(), rnn.engines.Newton(quasi=True)]
    return {engines.title(engine): engine for engine in found} | {report.PEER: ScanTree()}


def draw_like(values: Any, seed: int) -> Any:
    """Normal numbers, one array for each array or shape."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        parts = random.standard_normal((2, *leaf.shape), np.float32)
        return jnp.asarray(parts[0] + 1j * parts[1] if jnp.iscomplexobj(leaf) else parts[0])

    return jax.tree.map(draw, values)


def forward(cell: Any, engine: Any, params: Any, state: Any, xs: jax.Array) -> Any:
    """The final state and the outputs."""
    return rnn.unroll(cell, params, xs, state, engine=engine)


def backward(cell: Any, engine: Any, cotangents: Any, *inputs: Any) -> Any:
    """The results, and the gradients of all inputs for given cotangents of all results.

    A loss would add its own time to all engines.
    """
    results, pull = jax.vjp(functools.partial(forward, cell, engine), *inputs)
    return results, pull(cotangents)


def measure(
    config: Config, problem: Problem, which: Pass, iterations: int | None, console: Console
) -> Row:
    """Times all engines that support the problem."""
    inputs = problem.draw(config.seed)
    run, arguments = forward, inputs
    if which == "forward+backward":
        shapes = jax.eval_shape(
            functools.partial(forward, problem.cell, rnn.engines.Sequential()), *inputs
        )
        run, arguments = backward, (draw_like(shapes, config.seed), *inputs)
    programs, once, errors, refused, wanted = {}, {}, {}, {}, None
    where = f"{problem.size}, {which}"
    for title, engine in contenders(config).items():
        if reason := engine.why_not(problem.cell, *inputs):
            refused[title] = reason
            continue
        with console.status(f"{where}: compiling {title}"):
            function = functools.partial(run, problem.cell, engine)
            program = compile_program(function, arguments, exact=True)
        begin = clock.perf_counter()
        try:
            values = program.values()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            refused[title] = f"{where}: out of memory"
            continue
        once[title] = clock.perf_counter() - begin
        wanted = values if wanted is None else wanted
        errors[title] = difference(values, wanted, least=1.0)
        programs[title] = program
    runs = {title: p.run for title, p in programs.items() if once[title] <= config.patience}
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
    return Row(problem.name, problem.time, problem.size, which, entries, refused, iterations)


# Iterations of Newton's method --------------------------------------------------------------------


def solver(engine: Any, cell: Any) -> Any:
    """The number of iterations as a function of ``(params, state, xs)``; None: no convergence."""
    solve = jax.jit(lambda *inputs: engine.solve(cell, *inputs)[2])

    def count(*inputs: Any) -> int | None:
        info = solve(*inputs)
        return int(info.iterations) if info.converged else None

    return count


def scaled(params: Any, scale: float, seed: int) -> Any:
    """Parameters with a random recurrent kernel whose gates have spectral radius ``scale``."""
    shape = params.recurrent_kernel.shape
    kernel = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return params._replace(recurrent_kernel=jnp.asarray(scale * kernel / np.sqrt(shape[0])))


def count_iterations(config: Config, name: str) -> Iterator[Point]:
    """Exponent and iterations of one cell at all scales."""
    cell, length = make_cell(name, config.driven_hidden), config.driven_length
    params, state, xs = Problem(name, cell, length, 1, config.inputs).draw(config.seed)
    xs = 0.5 * xs
    exponents = jax.jit(
        lambda params: rnn.analysis.lyapunov_exponents(
            cell, params, xs, state, burn_in=length // 10
        )
    )
    solvers = {title: solver(engine, cell) for title, engine in report.METHODS.items()}
    for scale in config.scales:
        params = scaled(params, scale, config.seed)
        counts = {title: count(params, state, xs) for title, count in solvers.items()}
        yield Point(name, scale, float(exponents(params)[0, 0]), counts)


# The command --------------------------------------------------------------------------------------


def main(config: Config, console: Console | None = None) -> Result:
    """Measures, prints tables and writes all files."""
    console = console or Console(highlight=False)
    config = config.shortened()
    config.out.mkdir(parents=True, exist_ok=True)
    described = machine()
    rows, points = [], []

    def write():
        write_json(
            config.out / "results.json",
            machine=described,
            config=dataclasses.asdict(config),
            rows=[row._asdict() | {"entries": [e._asdict() for e in row.entries]} for row in rows],
            points=[point._asdict() for point in points],
        )

    for problem in problems(config):
        newton, inputs, iterations = rnn.engines.Newton(), problem.draw(config.seed), None
        if config.grid == "lengths" and newton.why_not(problem.cell, *inputs) is None:
            iterations = solver(newton, problem.cell)(*inputs)
        rows += [measure(config, problem, which, iterations, console) for which in PASSES]
        console.print(report.problem_table(rows[-2:]))
        write()  # so that an interrupted run keeps its measurements
    if config.grid == "lengths":
        for name in config.driven:
            points += count_iterations(config, name)
    write()
    if rows:
        (config.out / "table.md").write_text(report.markdown(rows), encoding="utf-8")
        if config.grid == "lengths":
            report.plot_lengths(config.out / "times.png", rows, described)
    if points:
        console.print(report.iterations_table(points))
        report.plot_iterations(config.out / "iterations.png", points, config.driven_length)
    console.print(f"Results: {config.out}")
    return Result(tuple(rows), tuple(points), config.out)


if __name__ == "__main__":
    main(tyro.cli(Config))
