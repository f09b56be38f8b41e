"""Gradient flow: how the gradient decays with the lag, for cells with and without gates.

The size of ∂s_T/∂s_(T-k) decays or grows exponentially with the lag k (Y. Bengio, P. Simard and P.
Frasconi, "Learning long-term dependencies with gradient descent is difficult", 1994); an open gate
keeps it near 1 (S. Hochreiter and J. Schmidhuber, "Long short-term memory", 1997). It is measured
at initialization and after training on the adding problem. Theory predicts that it vanishes at
first for the simple recurrent network, follows σ(forget bias)^k for LSTM, and persists for LSTM
with chrono initialization, LRU and the orthogonal network; and that such cells learn the task.

    python -m experiments.gradient_flow
    python -m experiments.gradient_flow --length 100 --steps 300
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from experiments.common import options
from experiments.common.run import Run
from experiments.common.training import Outcome
from experiments.long_memory import train
from experiments.long_memory.gradient_flow_plot import plot_flows
from experiments.long_memory.model import Model, Params, make_memory_cell
from experiments.long_memory.tasks import Adding
from jaxrnn import initializers


@dataclass(frozen=True)
class Config:
    """Measurement, model and training."""

    length: int = 200
    """Steps of the adding problem, and the longest lag."""
    hidden: int = 48
    """Hidden size."""
    rows: int = 32
    """Sequences in a batch."""
    engine: options.EngineName = "auto"
    """Engine that runs the cells over time."""
    measured: int = 16
    """Sequences along which gradients are measured; the plot shows their median."""
    forget_biases: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    """Forget biases of the LSTMs that are measured at initialization only."""
    training: options.Options = options.Options(
        steps=800, learning_rate=1e-2, validate_every=50, checkpoint_every=100
    )

    def __post_init__(self):
        options.check_at_least(3, self, "length")
        options.check_at_least(1, self, "hidden", "rows", "measured")


# The cells by name, for a hidden size and a longest lag.
CELLS: dict[str, Callable[[int, int], Any]] = {
    "Elman": lambda n, lag: rnn.Elman(n),
    "GRU": lambda n, lag: rnn.GRU(n),
    "LSTM, forget bias 0": lambda n, lag: rnn.LSTM(n, forget_bias=0.0),
    "LSTM, forget bias 1": lambda n, lag: rnn.LSTM(n),
    "LSTM, chrono": lambda n, lag: rnn.LSTM(n, bias_init=initializers.Chrono(lag)),
    "OrthogonalRNN": lambda n, lag: rnn.OrthogonalRNN(n),
    "LEM": lambda n, lag: make_memory_cell("lem", n, lag),
    "LRU": lambda n, lag: make_memory_cell("lru", n, lag),
}


class Flow(NamedTuple):
    """The logarithms of the gradient's size `[lags]` of one cell, and its error after training."""

    name: str
    before: np.ndarray
    after: np.ndarray
    error: float


class Result(NamedTuple):
    """The outcome of the last training, the results, and the sizes by forget bias."""

    outcome: Outcome
    flows: tuple[Flow, ...]
    by_bias: dict[str, np.ndarray]


def measure(model: Model, params: Params, inputs: Any) -> np.ndarray:
    """The logarithm of the gradient's size by lag, the median over sequences `[time, rows, 2]`."""
    xs = model.encode(params, jnp.asarray(inputs))
    flow = rnn.analysis.gradient_flow(model.cell, params.cell, xs, probes=32, key=jax.random.key(0))
    return np.median(np.asarray(flow.log_rms), axis=1)


def measure_forget_biases(config: Config, inputs: Any) -> dict[str, np.ndarray]:
    """Measures LSTMs at initialization: by forget bias, and with chrono initialization."""
    cells = {
        f"{bias:g}": rnn.LSTM(config.hidden, forget_bias=bias) for bias in config.forget_biases
    }
    cells["chrono"] = rnn.LSTM(config.hidden, bias_init=initializers.Chrono(config.length))
    models = {name: Model(cell, 1, config.hidden) for name, cell in cells.items()}
    key = jax.random.key(config.training.seed)
    return {name: measure(model, model.init(key, 2), inputs) for name, model in models.items()}


def main(config: Config) -> Result:
    """Measures, trains, measures again, and reports."""
    run = Run("gradient_flow", config, reporting=("measured", "forget_biases"))
    run.console.print(f"adding problem over {config.length} steps; output folder {run.folder}")
    inputs = Adding(config.length).batch(np.random.default_rng(7), config.measured).inputs
    key = jax.random.key(config.training.seed)
    names = ("length", "hidden", "rows", "training")
    adding = train.Config("adding", **{name: getattr(config, name) for name in names})
    flows, outcome, seconds = [], None, 0.0
    for name, make_cell in CELLS.items():
        cell = make_cell(config.hidden, config.length)
        model = Model(cell, 1, config.hidden, options.make_engine(config.engine))
        init = jax.jit(partial(model.init, inputs=2))
        part = run.part(name.lower().replace(",", "").replace(" ", "-"), variant=name)
        outcome = part.fit(replace(train.make_task(adding, model), name=name), init)
        seconds += outcome.seconds
        if outcome.signal is not None:
            return Result(outcome, tuple(flows), {})
        error = train.test(adding, model, outcome.params)["loss"]
        before, after = (measure(model, each, inputs) for each in (init(key), outcome.params))
        flows.append(Flow(name, before, after, error))
    assert outcome is not None
    if not outcome.reports:
        return Result(outcome, tuple(flows), {})
    by_bias = measure_forget_biases(config, inputs)
    run.console.print(format_table(flows, config.length))
    figures = {}
    for flow in flows:
        sizes = (values[-1] / np.log(10) for values in (flow.before, flow.after))
        for name, value in zip(("initial", "trained", "error"), (*sizes, flow.error), strict=True):
            figures[f"{flow.name}, {name}"] = [value]
    run.write_results(figures, seconds)
    plot_flows(run.folder / "gradient_flow.png", flows, by_bias)
    return Result(outcome, tuple(flows), by_bias)


def format_table(flows: Sequence[Flow], lag: int) -> str:
    """Formats the sizes at the longest lag and the errors."""
    lines = [f"{'cell':<22}{'initial':>12}{'trained':>12}{'error':>10}   (sizes at lag {lag})"]
    for flow in flows:
        powers = (f"1e{values[-1] / np.log(10):+.1f}" for values in (flow.before, flow.after))
        sizes = "".join(f"{power:>12}" for power in powers)
        lines.append(f"{flow.name:<22}{sizes}{flow.error:>10.4f}")
    return "\n".join(lines)
