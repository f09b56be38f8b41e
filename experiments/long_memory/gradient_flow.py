"""Gradient flow: why gates exist, in one picture.

Y. Bengio, P. Simard and P. Frasconi, "Learning long-term dependencies with gradient descent is
difficult", 1994: an error at the end of a sequence comes back to its beginning through a product of
Jacobians, whose size falls or grows exponentially with the lag. S. Hochreiter and J. Schmidhuber,
1997: a gate that holds a cell open keeps it at 1.

The experiment measures the size of ∂s_T/∂s_(T-k) against the lag k, at initialisation and after
training on the adding problem, for the simple recurrent network, LSTM with several forget biases
and with chrono initialisation, GRU, and cells made against vanishing gradients.

What theory expects: at initialisation the gradient of the simple recurrent network and of LSTM
without a forget bias vanishes (σ(0)^200 is 10⁻⁶⁰), that of LSTM with chrono initialisation, of LRU
and of the orthogonal network reaches the beginning; an LSTM's follows σ(forget bias)^k; and the
networks whose gradients arrive learn the task.

What was found (lag 200, one seed, three minutes on one CPU core): at first 10^-0.1 for the
orthogonal network, 10^-0.2 for LRU, 10^-0.7 for LSTM with chrono initialisation, 10^-4 to 10^-6 for
Elman, LEM and LSTM with forget bias 1, 10^-25 for GRU and LSTM with forget bias 0: less is lost
than σ(bias)^k says, as the recurrent weights carry some of it. After training the four that solve
the task have 10^-1.3 (GRU), 10^-0.5 (LEM), 10^-0.2 (LRU) and 10^0.1 (LSTM, chrono), all others less
than 10^-6. So the size at first does not decide alone: GRU opens its way back, and the orthogonal
network, whose learning rate is that of the others, loses its own.

    python -m experiments.gradient_flow
    python -m experiments.gradient_flow --length 100 --steps 300
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jaxrnn as rnn
from experiments.common.options import (
    EngineName,
    Options,
    check_at_least,
    identity,
    make_engine,
    run_folder,
)
from experiments.common.training import Outcome, fit
from experiments.long_memory import gradient_flow_plot as _gradient_flow_picture
from experiments.long_memory import train as long_memory
from experiments.long_memory.model import Model, Params, cell_for
from experiments.long_memory.tasks import Adding
from jaxrnn import initializers


@dataclass(frozen=True)
class Config:
    """What to measure, and how to train."""

    length: int = 200
    """Steps of the adding problem, and the longest lag."""
    hidden: int = 48
    """Hidden size."""
    rows: int = 32
    """Sequences of a batch."""
    engine: EngineName = "auto"
    """The engine that runs the cells over time."""
    measured: int = 16
    """Sequences along which gradients are measured; their median is drawn."""
    forget_biases: tuple[float, ...] = (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    """Forget biases of the LSTMs that are measured at initialisation only."""
    training: Options = Options(
        steps=800, learning_rate=1e-2, validate_every=50, checkpoint_every=100
    )

    def __post_init__(self):
        check_at_least(3, self, "length")
        check_at_least(1, self, "hidden", "rows", "measured")


# What each curve is called, and its cell for a hidden size and a longest lag.
CELLS: dict[str, Callable[[int, int], Any]] = {
    "Elman": lambda n, lag: rnn.Elman(n),
    "GRU": lambda n, lag: rnn.GRU(n),
    "LSTM, forget bias 0": lambda n, lag: rnn.LSTM(n, forget_bias=0.0),
    "LSTM, forget bias 1": lambda n, lag: rnn.LSTM(n),
    "LSTM, chrono": lambda n, lag: rnn.LSTM(n, bias_init=initializers.Chrono(lag)),
    "OrthogonalRNN": lambda n, lag: rnn.OrthogonalRNN(n),
    "LEM": lambda n, lag: cell_for("lem", n, lag),
    "LRU": lambda n, lag: cell_for("lru", n, lag),
}


class Flow(NamedTuple):
    """What was found for one cell."""

    name: str
    before: np.ndarray  # [lags], the logarithm of the size, at initialisation
    after: np.ndarray  # [lags], after training
    error: float  # mean squared error on fresh sequences


class Result(NamedTuple):
    """How the last training ended, and what was found."""

    outcome: Outcome
    flows: tuple[Flow, ...]
    by_bias: dict[str, np.ndarray]


def measure(model: Model, params: Params, inputs: Any) -> np.ndarray:
    """The logarithm of the size against the lag: the median over sequences ``[time, rows, 2]``."""
    xs = model.encode(params, jnp.asarray(inputs))
    flow = rnn.analysis.gradient_flow(model.cell, params.cell, xs, probes=32, key=jax.random.key(0))
    return np.median(np.asarray(flow.log_rms), axis=1)


def main(config: Config) -> Result:
    """Measures, trains, measures again, and draws."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    same = identity(config, reporting=("measured", "forget_biases"))
    base = run_folder(config.training, "gradient_flow", same)
    console.print(f"adding problem over {config.length} steps; results go to {base}")
    inputs = Adding(config.length).batch(np.random.default_rng(7), config.measured).inputs
    key = jax.random.key(config.training.seed)
    flows, outcome = [], None
    for name, make in CELLS.items():
        engine = make_engine(config.engine)
        model = Model(make(config.hidden, config.length), 1, config.hidden, engine)
        run = long_memory.Config(
            "adding",
            length=config.length,
            hidden=config.hidden,
            rows=config.rows,
            training=config.training,
        )
        params = jax.jit(model.init, static_argnums=1)(key, 2)
        outcome = fit(
            replace(long_memory.make_task(run, model), name=name),
            params,
            (),
            options=config.training,
            folder=base / name.lower().replace(",", "").replace(" ", "-"),
            identity=same | {"variant": name},
            console=console,
        )
        if outcome.signal is not None:
            console.print(f"stopped by {outcome.signal.name}; the same command goes on from here")
            return Result(outcome, tuple(flows), {})
        error = long_memory.test(run, model, outcome.params)["loss"]
        before, after = (measure(model, each, inputs) for each in (params, outcome.params))
        flows.append(Flow(name, before, after, error))
    by_bias = {}
    for bias in (*config.forget_biases, None):
        start: dict[str, Any] = {} if bias is None else {"forget_bias": bias}
        if bias is None:
            start = {"bias_init": initializers.Chrono(config.length)}
        model = Model(rnn.LSTM(config.hidden, **start), 1, config.hidden)
        name = "chrono" if bias is None else f"{bias:g}"
        by_bias[name] = measure(model, model.init(key, 2), inputs)
    assert outcome is not None
    console.print(describe(flows, config.length))
    found = [flow._asdict() | {"before": list(flow.before), "after": list(flow.after)}
             for flow in flows]  # fmt: skip
    (base / "flows.json").write_text(json.dumps(found, default=float) + "\n", encoding="utf-8")
    _gradient_flow_picture.draw(base / "gradient_flow.png", flows, by_bias)
    return Result(outcome, tuple(flows), by_bias)


def describe(flows: list[Flow], lag: int) -> str:
    """A table: sizes at the longest lag, and what was learnt."""
    lines = [f"{'cell':<22}{'at first':>12}{'trained':>12}{'error':>10}   (sizes at lag {lag})"]
    for flow in flows:
        sizes = "".join(f"{_power(values[-1]):>12}" for values in (flow.before, flow.after))
        lines.append(f"{flow.name:<22}{sizes}{flow.error:>10.4f}")
    return "\n".join(lines)


def _power(log: float) -> str:
    return f"1e{log / np.log(10):+.1f}"
