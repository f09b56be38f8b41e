"""The flip-flop learned online: every learning rule on one endless stream of pulses.

A parameter update follows every step of the stream (BPTT: every sequence), in memory that does not
grow with the length of the stream. Expected: SnAp and a window of ten steps learn the task; RTRL
does so with small learning rates only, because its influence mixes derivatives at former
parameters over a long memory; UORO is slow because its estimate is noisy; BPTT is slow because it
updates once a sequence.

    python -m experiments.flip_flop.online
    python -m experiments.flip_flop.online --steps 2000 --seeds 1
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.console import Console

import jaxrnn as rnn
from experiments.common import options
from experiments.common.cli import parse
from experiments.common.plots import COLORS, End, label_curves, style_axes
from experiments.common.results import write_results
from experiments.common.seeds import mean_and_std
from experiments.flip_flop.task import make_batch
from experiments.flip_flop.train import Model, Params

RULES: dict[str, Any] = {
    "RTRL": rnn.learning.RTRL(),
    "SnAp(1)": rnn.learning.SnAp(1),
    "SnAp(2)": rnn.learning.SnAp(2),
    "UORO": rnn.learning.UORO(),
    "RFLO": rnn.learning.RFLO(),
    "e-prop": rnn.learning.EProp(),
    "TBPTT(1)": rnn.learning.TBPTT(1),
    "TBPTT(10)": rnn.learning.TBPTT(10),
}
BPTT = "BPTT"


@dataclass(frozen=True)
class Config:
    """Stream, model and learning."""

    rules: tuple[str, ...] = (*RULES, BPTT)
    """Learning rules."""
    cell: options.CellName = "gru"
    """Recurrent cell."""
    hidden: int = 16
    """Hidden size."""
    bits: int = 3
    """Channels, each of which stores one bit."""
    rate: float = 0.05
    """Probability of a pulse, for each channel and step."""
    rows: int = 8
    """Streams side by side; each has its own state and influence."""
    steps: int = 10_000
    """Steps of the stream."""
    chunk: int = 100
    """Steps that are reported together, and the sequence length of BPTT."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    seeds: int = 3
    """Seeds, one after the other."""
    out: Path = Path("runs/flip_flop_online")
    """Output folder."""

    def __post_init__(self):
        options.check_at_least(1, self, "hidden", "bits", "rows", "chunk", "seeds")
        options.check_at_least(self.chunk, self, "steps")
        options.check_positive(self, "learning_rate")
        options.check_rate(self, "rate")
        if unknown := set(self.rules) - {*RULES, BPTT}:
            raise ValueError(f"rules must be among {[*RULES, BPTT]}, got {sorted(unknown)}")


class Learned(NamedTuple):
    """What one rule has learned.

    Attributes:
        rule: its name.
        losses: the mean squared error of the outputs in each chunk `[seeds, chunks]`, before the
            updates of their steps.
        nbytes: what a learner keeps between two steps, its states and influence; for BPTT, the
            temporary memory of the gradient of one sequence.
        seconds: the time of one step of the stream.
    """

    rule: str
    losses: np.ndarray
    nbytes: int
    seconds: float

    @property
    def last(self) -> np.ndarray:
        """The mean loss of the last tenth of the stream `[seeds]`."""
        return self.losses[:, -max(1, self.losses.shape[1] // 10) :].mean(axis=1)


def squared_error(model: Model, readout: Any, y: jax.Array, target: jax.Array) -> Any:
    """The squared error of the outputs, the mean over rows and bits."""
    return jnp.mean(optax.losses.squared_error(model.read(Params((), readout), y), target))


def make_online(model: Model, rule: Any, optimizer: Any) -> tuple[Callable, Callable]:
    """`init(params, rows, key)` and `learn(carry, xs, targets)` of an update after every step."""
    learner = rnn.learning.Online(model.cell, rule)

    def init(params: Params, rows: int, key: jax.Array):
        state = model.cell.init_state(params.cell, (rows,))
        return params, optimizer.init(params), learner.init(params.cell, state, key)

    def step(carry, step):
        params, opt_state, stream = carry
        x, target = step
        stream, y = learner.step(params.cell, stream, x)
        value, (by_readout, by_output) = jax.value_and_grad(
            lambda readout, y: squared_error(model, readout, y, target), (0, 1)
        )(params.readout, y)
        gradient = Params(learner.gradient(params.cell, stream, by_output), by_readout)
        change, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, change), opt_state, stream), value

    def learn(carry, xs, targets):
        carry, losses = jax.lax.scan(step, carry, (xs, targets))
        return carry, losses.mean()

    return init, learn


def make_bptt(model: Model, optimizer: Any) -> tuple[Callable, Callable]:
    """The same for back-propagation, with one update a sequence; the state is carried over."""

    def init(params: Params, rows: int, key: jax.Array):
        return params, optimizer.init(params), model.cell.init_state(params.cell, (rows,))

    def loss(params, state, xs, targets):
        state, ys = rnn.unroll(model.cell, params.cell, xs, state)
        return squared_error(model, params.readout, ys, targets), state

    def learn(carry, xs, targets):
        params, opt_state, state = carry
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(
            params, state, xs, targets
        )
        change, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, change), opt_state, state), value

    return init, learn


def run_rule(config: Config, name: str) -> Learned:
    """Learns from the stream of every seed."""
    cell = options.make_cell(config.cell, config.hidden)
    model = Model(cell, config.bits)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))
    bptt = name == BPTT
    init, learn = (
        make_bptt(model, optimizer) if bptt else make_online(model, RULES[name], optimizer)
    )
    losses, program, nbytes, seconds = [], None, 0, 0.0
    for seed in range(config.seeds):
        first, second = jax.random.split(jax.random.key(seed))
        carry = init(jax.jit(model.init)(first), config.rows, second)
        chunks = make_stream(config, seed)
        if program is None:
            program = jax.jit(learn).lower(carry, *next(chunks)).compile()
            chunks = make_stream(config, seed)
            nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(carry[2]))
            if bptt:
                statistics: Any = program.memory_analysis()
                nbytes = statistics.temp_size_in_bytes
        began, values = time.perf_counter(), []
        for xs, targets in chunks:
            carry, value = program(carry, xs, targets)
            values.append(value)
        losses.append(np.asarray(jax.block_until_ready(values)))
        seconds += time.perf_counter() - began
    steps = config.seeds * (config.steps // config.chunk) * config.chunk
    return Learned(name, np.stack(losses), nbytes, seconds / steps)


def make_stream(config: Config, seed: int):
    """Yields the stream of a seed chunk by chunk: pulses and targets `[chunk, rows, bits]`."""
    random, memory = np.random.default_rng((seed, 4)), None
    for _ in range(config.steps // config.chunk):
        batch = make_batch(random, config.chunk, config.rows, config.bits, config.rate, memory)
        memory = batch.targets[-1]
        yield batch


def main(config: Config) -> list[Learned]:
    """Learns by every rule, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    config.out.mkdir(parents=True, exist_ok=True)
    console.print(f"{'rule':<10}{'squared error':>18}{'memory, KiB':>14}{'ms a step':>12}")
    results = []
    for name in config.rules:
        result = run_rule(config, name)
        results.append(result)
        error = mean_and_std(result.last.tolist(), "{:.4f}", "{:.4f}")
        console.print(
            f"{name:<10}{error:>18}{result.nbytes / 1024:>14.1f}{1e3 * result.seconds:>12.3f}"
        )
    figures: dict[str, Any] = {result.rule: result.last.tolist() for result in results}
    figures |= {f"{result.rule}, bytes": result.nbytes for result in results}
    seconds = sum(result.seconds for result in results) * config.seeds * config.steps
    write_results(config.out, "flip_flop.online", config, figures, seconds)
    plot_rules(config.chunk, results).savefig(config.out / "online.png", dpi=120)
    return results


def group(results: list[Learned]) -> list[list[Learned]]:
    """The results, those of rules that are the same for the cell together."""
    groups: list[list[Learned]] = []
    for result in results:
        for own in groups:
            alike = np.allclose(own[0].losses, result.losses, rtol=1e-2)
            if alike and own[0].nbytes == result.nbytes:
                own.append(result)
                break
        else:
            groups.append([result])
    return groups


def plot_rules(chunk: int, results: list[Learned]) -> Figure:
    """Plots the loss by steps of the stream, and the last loss by memory."""
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    by_steps, by_memory = figure.subplots(1, 2)
    curves = []
    for own, color in zip(group(results), COLORS, strict=False):
        result, label = own[0], ", ".join(each.rule for each in own)
        mean = result.losses.mean(axis=0)
        width = max(1, len(mean) // 50)
        smooth = mean[: len(mean) // width * width].reshape(-1, width).mean(axis=1)
        steps = chunk * width * np.arange(1, len(smooth) + 1)
        by_steps.plot(steps, smooth, color=color)
        point = result.nbytes / 1024, result.last.mean()
        by_memory.scatter(*point, color=color, s=60)
        by_memory.annotate(label, point, (7, 4), textcoords="offset points", color=color)
        curves.append(End(smooth[-1], label, color))
    style_axes(by_steps, xlabel="steps of the stream", ylabel="squared error", yscale="log")
    style_axes(by_memory, xlabel="memory of the learner, KiB", xscale="log", yscale="log")
    by_memory.set(ylabel="squared error at the end")
    by_steps.margins(x=0)
    label_curves(by_steps, curves)
    return figure


if __name__ == "__main__":
    main(parse(Config, sys.argv[1:], __doc__))
