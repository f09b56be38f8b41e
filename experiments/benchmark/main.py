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

On a CPU with several cores, JAX has a device for each. As it comes, a contender runs on one device,
whose products use all cores; "a device a core" has the batch sharded over all, the peers alike.

Every framework is used in its best form; see `experiments/benchmark/peers`. Before the timing, the
results of this library's engines, of the plain scan and of the cells hoisted by hand are compared
with those of `Sequential`, and all other results must be finite.

Expected on a CPU: no JAX peer is faster than `Auto`, at any size.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console

import jaxrnn as rnn
from experiments.benchmark import report
from experiments.benchmark.grids import Config
from experiments.benchmark.peers import PASSES, Contender, Pass, Workload, engines
from experiments.benchmark.results import OWN_KINDS, Entry, Line, Row, Timing, summarise
from experiments.benchmark.timing import difference, interleave, matrix_product
from experiments.common.results import machine, write_json


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
    if contender.kind in OWN_KINDS or (contender.same_weights and one_layer):
        error, tolerance = difference(values, wanted), _TOLERANCE[workload.dtype]
        if not error <= tolerance:
            raise ArithmeticError(
                f"{name}: expected the results of Sequential to {tolerance:.0e} of the largest "
                f"element of each array, got a difference of {error:.1e}"
            )


# The command --------------------------------------------------------------------------------------


def main(config: Config, console: Console | None = None) -> Result:
    """Times all workloads and prints each table when it is complete.

    Raises:
        ArithmeticError: a result is not finite, or an engine's differs from that of `Sequential`.
    """
    console = console or Console(width=150)
    folder = config.out or Path("runs") / "benchmark" / config.grid
    folder.mkdir(parents=True, exist_ok=True)
    described = machine()
    described["config"] = dataclasses.asdict(config) | {"out": str(folder)}
    contenders = config.contenders()
    rows, lines = [], []
    for workload in config.workloads():
        rows.append(measure(workload, contenders, config, console))
        console.print(report.row_table(rows[-1]))
        # Written after every row, so that an interrupted run keeps its measurements.
        lines = summarise(rows)
        write_json(
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
