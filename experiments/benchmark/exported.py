"""Exported models in onnxruntime against jaxrnn, on the CPU, forward.

    python -m experiments.benchmark.exported
    python -m experiments.benchmark.exported --time 512 --rows 8
    python -m experiments.benchmark.exported --out docs/data/exported_cpu.json

LSTM and GRU as ONNX's operators and as a Scan, and a user's cell as a Scan, of one and the same
parameters. The times are medians of interleaved rounds, with as many threads for each; ratios are
paired. docs.tools.serving_table writes the results of --out into docs/serving.md.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxrnn as rnn
from experiments.benchmark import timing
from experiments.common.processes import cores
from experiments.common.results import machine, write_json


@dataclass(frozen=True)
class Config:
    """Sizes and rounds."""

    time: int = 128
    """Steps."""
    rows: int = 32
    """Rows of the batch."""
    inputs: int = 128
    """Features of the inputs."""
    hidden: int = 256
    """Hidden size."""
    rounds: int = 20
    """Rounds of the timing."""
    seconds: float = 20.0
    """Seconds of each comparison, after which no round starts."""
    tolerance: float = 1e-4
    """Difference of results above which nothing is timed."""
    out: Path | None = None
    """JSON file to write the results to."""


def coupled(params: Any, hidden: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A user's cell: a leaky unit whose gate and candidate share one product."""
    z = x @ params["input"] + hidden @ params["recurrent"] + params["bias"]
    gate, candidate = jnp.split(z, 2, axis=-1)
    hidden = hidden + jax.nn.sigmoid(gate) * (jnp.tanh(candidate) - hidden)
    return hidden, hidden


def user_cell(hidden: int) -> Any:
    """The cell of `coupled`."""

    def init(key, inputs, dtype=None):
        keys = jax.random.split(key, 2)
        draw = jax.nn.initializers.lecun_normal()
        return {
            "input": draw(keys[0], (inputs, 2 * hidden), dtype),
            "recurrent": draw(keys[1], (hidden, 2 * hidden), dtype),
            "bias": jnp.full((2 * hidden,), 0.1, dtype),
        }

    def init_state(params, batch_shape=()):
        return jnp.zeros((*batch_shape, hidden), params["bias"].dtype)

    return rnn.from_step(coupled, init=init, init_state=init_state, output_size=hidden)


def served(model: Any, xs: np.ndarray) -> timing.Program:
    """A model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session: Any = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run() -> Any:
        return session.run(None, {"xs": xs})

    return timing.Program(run, run)


def compare(config: Config) -> Iterator[tuple[str, str, timing.Comparison]]:
    """The cell, the form of the model, and jaxrnn's time against onnxruntime's."""
    xs = np.random.default_rng(0).normal(size=(config.time, config.rows, config.inputs))
    xs = xs.astype(np.float32)
    cells: dict[str, Any] = {"LSTM": rnn.LSTM(config.hidden), "GRU": rnn.GRU(config.hidden)}
    for name, cell in (cells | {"user's cell": user_cell(config.hidden)}).items():
        params = cell.init(jax.random.key(0), config.inputs, jnp.float32)

        def run(xs, cell=cell, params=params):
            final, ys = rnn.unroll(cell, params, xs)
            return [ys, *jax.tree.leaves(final)]

        ours = timing.compile_program(run, (jnp.asarray(xs),), exact=True)
        for form in ("operator", "Scan")[name not in cells :]:
            model = rnn.export.to_onnx(cell, params, x=xs[0], operators=form == "operator")
            limits: Any = dict(rounds=config.rounds, seconds=config.seconds)
            theirs = served(model, xs)
            yield name, form, timing.compare(ours, theirs, tolerance=config.tolerance, **limits)


def main(config: Config) -> list[str]:
    """Prints the table."""
    shape = f"{config.time}x{config.rows}x{config.inputs}x{config.hidden}"
    print(f"{shape}, float32, {machine()['processor']}, {cores()} threads")
    print(f"{'cell':<14}{'ONNX':<10}{'jaxrnn ms':>11}{'onnxruntime ms':>16}{'ratio':>8}")
    lines, rows = [], []
    for name, form, found in compare(config):
        rows.append({"cell": name, "form": form} | found._asdict())
        lines.append(
            f"{name:<14}{form:<10}{1e3 * found.first:>11.2f}{1e3 * found.second:>16.2f}"
            f"{found.ratio:>8.2f}"
        )
        print(lines[-1])
    if config.out is not None:
        write_json(config.out, machine=machine(), config=asdict(config), rows=rows)
    return lines


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m experiments.benchmark.exported"))
