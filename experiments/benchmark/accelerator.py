"""Checks and times the engines on an accelerator, in at most ten minutes.

Each part runs in a process of its own under a time limit, since a kernel whose blocks do not meet
hangs:

    agreement     Fused in every mode against Sequential, forward and backward, in bfloat16
    repeats       whether the same call gives the same bits every time
    split         the time of a step of Fused: exchange only, product only, neither, all
    speed         Fused, Hoisted, Sequential and CuDNN, forward and with gradients
    cudnn         CuDNN on whole networks with lengths, agreement and time, with TF32 and without
    parallel      Associative and Newton against the loop, for long sequences

Prints a table and writes JSON. On a CPU the sizes are small, Fused is its reference, and its
kernels are lowered but not run.

    python -m experiments.benchmark.accelerator
    python -m experiments.benchmark.accelerator --parts speed --out runs/accelerator.json
"""

import dataclasses
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxrnn as rnn
from experiments.common.results import machine

Part = Literal["agreement", "repeats", "split", "speed", "cudnn", "parallel"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Checks and times the engines on an accelerator."""

    parts: tuple[Part, ...] = get_args(Part)
    """Parts to run."""
    time: int = 1024
    """Steps of a sequence; 16 on a CPU."""
    batch: int = 16
    """Sequences per batch; 2 on a CPU."""
    hidden: int = 768
    """Hidden size; 64 on a CPU."""
    repeats: int = 200
    """Runs that are compared bit for bit; 3 on a CPU."""
    rounds: int = 20
    """Timed runs, of which the median is reported; 2 on a CPU."""
    lengths: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Lengths of long sequences; 100 on a CPU."""
    limit: float = 150.0
    """Seconds that a part may take."""
    total: float = 580.0
    """Seconds that all parts together may take."""
    out: Path = Path("runs/accelerator.json")
    """Where to write the results."""
    inside: bool = False
    """Run the one part in this process and print JSON."""


def on_this_machine(config: Config) -> Config:
    """The sizes that a CPU can do, if there is no accelerator."""
    if jax.default_backend() != "cpu":
        return config
    return dataclasses.replace(
        config, time=16, batch=2, hidden=64, repeats=3, rounds=2, lengths=(100,)
    )


DENSE = (rnn.LSTM, rnn.GRU, rnn.Elman, rnn.ResetBeforeGRU, rnn.PeepholeLSTM)
CELLS: dict[str, Callable] = {make.__name__: make for make in DENSE}
CELLS["SLSTM, 4 heads"] = functools.partial(rnn.SLSTM, num_heads=4)
TIMED = ("LSTM", "GRU", "Elman")


def work_of(cell: Any, config: Config, dtype: Any = jnp.bfloat16) -> tuple[Any, Any, Any]:
    """Parameters, state and inputs of a cell."""
    params = cell.init(jax.random.key(0), config.hidden, dtype)
    shape = (config.time, config.batch, config.hidden)
    xs = jax.random.normal(jax.random.key(1), shape, dtype)
    return params, cell.init_state(params, (config.batch,)), xs


def passes(run: Callable) -> tuple[Callable, Callable]:
    """A function, and the same with the gradients of a sum of its results."""

    def loss(*work):
        leaves = jax.tree.leaves(run(*work))
        return sum((leaf.astype(jnp.float32) ** 2).mean() for leaf in leaves)

    return jax.jit(run), jax.jit(jax.grad(loss, (0, 1, 2)))


def error(got: Any, want: Any) -> float:
    """The largest difference of a leaf relative to the largest element of that leaf."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    wide = [(np.asarray(g, np.float64), np.asarray(w, np.float64)) for g, w in pairs]
    return max(float(np.abs(g - w).max() / max(np.abs(w).max(), 1e-9)) for g, w in wide)


def agreement(config: Config) -> Iterator[Row]:
    """Fused against Sequential, in every mode that has room for the cell; on a CPU it has none."""
    modes = ("",) if jax.default_backend() == "cpu" else ("cluster", "grid")
    for name, make in CELLS.items():
        for hidden in sorted({min(256, config.hidden), config.hidden}):
            cell = make(hidden)
            work = work_of(cell, dataclasses.replace(config, hidden=hidden))
            wanted = [f(*work) for f in passes(loop(cell, rnn.engines.Sequential()))]
            for mode in modes:

                def run(params, state, xs, cell=cell, mode=mode):
                    return rnn.engines.Fused()._run(cell, params, state, xs, False, mode)

                row: Row = {"cell": name, "hidden": hidden, "mode": mode or "loop"}
                try:
                    got = [f(*work) for f in passes(run)]
                    row |= {
                        "values": error(got[0], wanted[0]),
                        "gradients": error(got[1], wanted[1]),
                    }
                except ValueError as refusal:
                    row["refused"] = str(refusal)
                yield row


def repeats(config: Config) -> Iterator[Row]:
    """The number of runs whose results differ from the first run's in a bit."""
    cell = rnn.LSTM(config.hidden)
    work = work_of(cell, config)
    for name, function in zip(
        ("forward", "gradients"), passes(loop(cell, rnn.engines.Fused())), strict=True
    ):
        first = jax.tree.map(np.asarray, function(*work))
        differing = 0
        for _ in range(config.repeats):
            again = jax.tree.map(np.asarray, function(*work))
            same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), first, again)
            differing += not all(jax.tree.leaves(same))
        yield {"pass": name, "runs": config.repeats, "differing": differing}


def loop(cell: Any, engine: Any) -> Callable:
    """The cell over time by an engine."""
    return lambda params, state, xs: engine(cell, params, state, xs)


def timed(function: Callable, work: tuple, rounds: int) -> Row:
    """The median time in milliseconds, and the time to compile."""
    began = time.perf_counter()
    compiled = function.lower(*work).compile()
    seconds, times = time.perf_counter() - began, []
    jax.block_until_ready(compiled(*work))
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*work))
        times.append(1e3 * (time.perf_counter() - began))
    return {"ms": float(np.median(times)), "compile_s": seconds}


def speed(config: Config) -> Iterator[Row]:
    """Forward, and forward with gradients, of each engine that accepts the work."""
    for cell_name in TIMED:
        cell = CELLS[cell_name](config.hidden)
        for engine, dtype in (
            (rnn.engines.Fused(), jnp.bfloat16),
            (rnn.engines.Hoisted(), jnp.bfloat16),
            (rnn.engines.Sequential(), jnp.bfloat16),
            (rnn.engines.CuDNN(), jnp.float32),
        ):
            work = work_of(cell, config, dtype)
            kind = jnp.dtype(dtype).name
            row: Row = {"cell": cell_name, "engine": repr(engine), "dtype": kind}
            refused = engine.why_not(cell, *work)
            if refused is not None:
                yield row | {"refused": refused}
                continue
            for name, function in zip(
                ("forward", "gradients"), passes(loop(cell, engine)), strict=True
            ):
                yield row | {"pass": name} | timed(function, work, config.rounds)


def split(config: Config) -> Iterator[Row]:
    """The time of a step by what is left out of the kernel, whose results are then wrong."""
    for cell_name in TIMED[:2]:
        cell = CELLS[cell_name](config.hidden)
        work = work_of(cell, config)
        for skip in ((), ("product",), ("exchange",), ("exchange", "product")):

            def run(params, state, xs, cell=cell, skip=skip):
                return rnn.engines.Fused()._run(cell, params, state, xs, False, skip=skip)

            for name, function in zip(("forward", "gradients"), passes(run), strict=True):
                row: Row = {"cell": cell_name, "without": " and ".join(skip), "pass": name}
                if jax.default_backend() == "cpu":
                    lowered = function.trace(*work).lower(lowering_platforms=("cuda",))
                    yield row | {"kernels": lowered.as_text().count("@mosaic_gpu_v2(")}
                    continue
                row |= timed(function, work, config.rounds)
                yield row | {"us_per_step": 1e3 * row["ms"] / config.time}


def networks(engine: Any, hidden: int) -> dict[str, Any]:
    """Networks that CuDNN runs in one call."""
    one = rnn.layers.Recurrent(rnn.LSTM(hidden), engine=engine)
    both = rnn.layers.Bidirectional(one, one)
    return {
        "reverse": dataclasses.replace(one, reverse=True),
        "3 bidirectional layers": rnn.layers.Stack((both,) * 3),
    }


def cudnn(config: Config) -> Iterator[Row]:
    """CuDNN on whole networks against Sequential, with rows of lengths from 0 to all of time."""
    lengths = jnp.linspace(0, config.time, config.batch).astype(jnp.int32)
    for name in networks(None, config.hidden):
        wanted = None
        for engine in (
            rnn.engines.Sequential(),
            rnn.engines.Hoisted(),
            rnn.engines.CuDNN(),
            rnn.engines.CuDNN(tf32=True),
        ):
            network = networks(engine, config.hidden)[name]
            work = work_of(network, config, jnp.float32)

            def run(params, state, xs, network=network):
                return network.apply(params, state, xs, lengths=lengths)

            with jax.default_matmul_precision("highest"):
                functions = dict(zip(("forward", "gradients"), passes(run), strict=True))
                got = {which: function(*work) for which, function in functions.items()}
                wanted = wanted or got
                for which, function in functions.items():
                    row: Row = {"network": name, "engine": repr(engine), "pass": which}
                    row["error"] = error(got[which], wanted[which])
                    yield row | timed(function, work, config.rounds)


def parallel(config: Config) -> Iterator[Row]:
    """Engines that are parallel in time against the loop, with gradients, in float32."""
    for make, engine in (
        (rnn.MinGRU, rnn.engines.Associative()),
        (rnn.ParaGRU, rnn.engines.Newton()),
    ):
        for length in config.lengths:
            cell, sizes = make(64), dataclasses.replace(config, time=length, batch=1, hidden=64)
            work = work_of(cell, sizes, jnp.float32)
            for chosen in (engine, rnn.engines.Sequential()):
                row: Row = {"cell": make.__name__, "length": length, "engine": repr(chosen)}
                yield row | timed(passes(loop(cell, chosen))[1], work, min(config.rounds, 5))


PARTS: dict[str, Callable[[Config], Iterator[Row]]] = {
    "agreement": agreement,
    "repeats": repeats,
    "split": split,
    "speed": speed,
    "cudnn": cudnn,
    "parallel": parallel,
}


def run_part(part: str, config: Config, limit: float) -> list[Row]:
    """Runs a part in a process of its own; what it printed before the limit is kept."""
    if limit <= 0:
        return [{"failed": "not started: the other parts took all of the time"}]
    command = [sys.executable, "-m", "experiments.benchmark.accelerator", "--inside"]
    for field in dataclasses.fields(config):
        if field.name in ("inside", "out", "parts"):
            continue
        value = getattr(config, field.name)
        values = value if isinstance(value, tuple) else (value,)
        command += [f"--{field.name}", *map(str, values)]
    command += ["--parts", part]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    note = ""
    try:
        output, errors = process.communicate(timeout=limit)
        note = "" if process.returncode == 0 else errors.strip()[-500:]
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        note = f"stopped after {limit:.0f} s"
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [*rows, {"failed": note}] if note else rows


def main(config: Config) -> dict[str, list[Row]]:
    """Runs the parts, prints their rows and writes them."""
    if config.inside:
        for row in PARTS[config.parts[0]](on_this_machine(config)):
            print(json.dumps(row), flush=True)
        return {}
    end, results = time.monotonic() + config.total, {}
    for part in config.parts:
        results[part] = run_part(part, config, min(config.limit, end - time.monotonic()))
    for part, rows in results.items():
        print(f"\n{part}")
        for row in rows:
            shown = (f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values())
            print("  " + "  ".join(shown))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))
    return results


if __name__ == "__main__":
    main(tyro.cli(Config))
