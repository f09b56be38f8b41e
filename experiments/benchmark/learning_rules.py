"""Times learning rules on a stream against back-propagation, and measures their memory.

A GRU, whose Jacobian is dense: the gradient of a loss at each step of a stream, by each rule of
`jaxrnn.learning`, and by back-propagation through the whole stream, for streams of several lengths.
Then one step of cells with a diagonal Jacobian: the operations and the bytes of RTRL's influence,
compared with a step of the cell.

Expected: back-propagation is faster per step, and its memory grows with the stream; a rule's memory
does not. RTRL of the dense cell takes state² × parameters operations a step. That of a cell with a
diagonal Jacobian takes a few operations for each parameter.

    python -m experiments.benchmark.learning_rules
    python -m experiments.benchmark.learning_rules --lengths 100 1000 --hidden 32
    python -m experiments.benchmark.learning_rules --quick

References:
    Williams and Zipser, "A learning algorithm for continually running fully recurrent neural
    networks", 1989. Zucchet et al., "Online learning of long-range dependencies", 2023.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

import jaxrnn as rnn
from experiments.benchmark.report import digits, make_figure, make_markdown
from experiments.benchmark.timing import compile_program, interleave
from experiments.common.options import check_at_least
from experiments.common.plots import COLORS, End, label_curves, style_axes
from experiments.common.results import machine, write_json
from jaxrnn.learning import RFLO, RTRL, TBPTT, UORO, EProp, Online, SnAp


@dataclass(frozen=True)
class Config:
    """Times learning rules on a stream against back-propagation."""

    lengths: tuple[int, ...] = (100, 1_000, 10_000)
    """Steps of the stream."""
    hidden: int = 64
    """Hidden size of the GRU."""
    inputs: int = 16
    """Features of its input."""
    window: int = 100
    """Window of truncated back-propagation."""
    diagonal: int = 256
    """Hidden and input size of the cells with a diagonal Jacobian."""
    rounds: int = 3
    """Rounds; every rule has one turn in each, of which the median counts."""
    quick: bool = False
    """Seconds instead of minutes: two short streams of small cells."""
    seed: int = 0
    """Seed of parameters and inputs."""
    out: Path = Path("runs/learning_rules")
    """Folder for results.json (for docs.tools.learning_rules_table), table.md and memory.png."""

    def __post_init__(self):
        check_at_least(1, self, "hidden", "inputs", "window", "diagonal", "rounds")
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"lengths must be at least 1 each, got {self.lengths}")

    def shortened(self) -> "Config":
        """The configuration with the effect of ``quick``."""
        if not self.quick:
            return self
        small = dict(lengths=(10, 40), hidden=4, inputs=3, window=5, diagonal=8)
        return dataclasses.replace(self, **small, rounds=1)


class Row(NamedTuple):
    """One rule on a stream of one length."""

    rule: str
    steps: int
    seconds: float  # of a step
    temporary_bytes: int | None  # of the whole program


class Cost(NamedTuple):
    """RTRL of a cell with a diagonal Jacobian; ratios are to the operations of ``cell.step``."""

    cell: str
    parameters: int
    influence: int  # numbers
    operations: float  # of a step that moves the influence on
    with_gradient: float  # and of the gradient


class Result(NamedTuple):
    """All measurements."""

    rows: tuple[Row, ...]
    costs: tuple[Cost, ...]


# A stream -----------------------------------------------------------------------------------------


def drawn(key: Any, t: Any, inputs: int) -> Any:
    """The input of one step, drawn where it is needed."""
    return jax.random.normal(jax.random.fold_in(key, t), (inputs,))


def by_back_propagation(cell: Any, steps: int, inputs: int, engine: Any) -> Callable:
    """The gradient of half the squared outputs, summed over the stream."""

    def gradient(params, key):
        xs = jax.vmap(lambda t: drawn(key, t, inputs))(jnp.arange(steps))
        return jax.grad(lambda p: 0.5 * (rnn.unroll(cell, p, xs, engine=engine)[1] ** 2).sum())(
            params
        )

    return gradient


def by_stream(cell: Any, steps: int, inputs: int, rule: Any) -> Callable:
    """The same step by step, without a sequence."""
    learner = Online(cell, rule)

    def gradient(params, key):
        draws = key if rule == UORO() else None
        carry = learner.init(params, cell.init_state(params, ()), draws, x=drawn(key, 0, inputs))

        def body(_, loop):
            carry, total = loop
            carry, y = learner.step(params, carry, drawn(key, carry.count, inputs))
            found = learner.gradient(params, carry, y)
            return carry, jax.tree.map(jnp.add, total, found)

        zeros = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.fori_loop(0, steps, body, (carry, zeros))[1]

    return gradient


def measure(config: Config, steps: int) -> list[Row]:
    """All rules on a stream of one length."""
    cell = rnn.GRU(config.hidden)
    arguments = cell.init(jax.random.key(config.seed), config.inputs), jax.random.key(1)
    window = TBPTT(config.window)
    functions = {
        "back-propagation": by_back_propagation(cell, steps, config.inputs, None),
        repr(window): by_back_propagation(cell, steps, config.inputs, window),
    }
    for rule in (RTRL(), SnAp(1), UORO(), RFLO(), EProp()):
        functions[repr(rule)] = by_stream(cell, steps, config.inputs, rule)
    programs = {
        name: compile_program(function, arguments, exact=True)
        for name, function in functions.items()
    }
    runs = {name: program.run for name, program in programs.items()}
    samples = interleave(runs, rounds=config.rounds, seconds=math.inf)
    return [
        Row(name, steps, statistics.median(samples[name]) / steps, program.temporary_bytes)
        for name, program in programs.items()
    ]


def costs(size: int, seed: int) -> list[Cost]:
    """Operations of a step of RTRL for diagonal cells, counted in the compiled programs."""
    found = []
    cells: tuple[Any, ...] = (rnn.LRU(size), rnn.MinGRU(size), rnn.IndRNN(size))
    for cell in cells:
        params, x = cell.init(jax.random.key(seed), size), jnp.ones((size,))
        learner, state = Online(cell, RTRL()), cell.init_state(params, ())
        carry = learner.init(params, state)

        def both(params, carry, x, learner=learner):
            carry, y = learner.step(params, carry, x)
            return carry, learner.gradient(params, carry, y)

        def operations(function, *arguments):
            analysis: Any = jax.jit(function).lower(*arguments).compile().cost_analysis()
            return analysis["flops"]

        own = operations(cell.step, params, state, x)
        found.append(
            Cost(
                type(cell).__name__,
                sum(leaf.size for leaf in jax.tree.leaves(params)),
                sum(leaf.size for leaf in jax.tree.leaves(carry.memory)),
                operations(learner.step, params, carry, x) / own,
                operations(both, params, carry, x) / own,
            )
        )
    return found


# Report -------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Row], costs: Sequence[Cost]) -> str:
    """Both tables: the rules by the length of the stream, and the diagonal cells."""
    lengths = list(dict.fromkeys(row.steps for row in rows))
    by_rule: dict[str, list[str]] = {row.rule: [f"`{row.rule}`"] for row in rows}
    for row in rows:
        by_rule[row.rule].append(digits(1e6 * row.seconds))
    for row in rows:
        memory = None if row.temporary_bytes is None else row.temporary_bytes / 2**20
        by_rule[row.rule].append(digits(memory))
    headings = [f"{unit}, T = {n:,}" for unit in ("µs a step", "MiB") for n in lengths]
    by_cell = [
        [f"`{c.cell}`", *(f"{n:,}" for n in c[1:3]), *(f"{ratio:.2f}" for ratio in c[3:])]
        for c in costs
    ]
    columns = ["cell", "parameters", "numbers of influence", "step", "step and gradient"]
    first = make_markdown(["rule", *headings], list(by_rule.values()))
    return f"{first}\n{make_markdown(columns, by_cell)}"


def plot(rows: Sequence[Row], described: dict[str, Any]) -> Figure:
    """Time of a step and memory of the program against the length of the stream."""
    figure = make_figure(described, 11, 4.2)
    panels: Any = figure.subplots(1, 2)
    names = list(dict.fromkeys(row.rule for row in rows))
    for axes, label in zip(panels, ("microseconds a step", "temporary MiB"), strict=True):
        style_axes(axes, xscale="log", yscale="log", xlabel="steps of the stream", ylabel=label)
    for axes, value in (
        (panels[0], lambda row: 1e6 * row.seconds),
        (panels[1], lambda row: (row.temporary_bytes or 0) / 2**20),
    ):
        ends = []
        for name, color in zip(names, COLORS, strict=False):
            own = [row for row in rows if row.rule == name]
            axes.plot([row.steps for row in own], list(map(value, own)), "o-", color=color)
            ends.append(End(value(own[-1]), name, color))
        label_curves(axes, ends)
    return figure


def main(config: Config, console: Console | None = None) -> Result:
    """Measures, prints both tables and writes all files."""
    console = console or Console(highlight=False)
    config = config.shortened()
    config.out.mkdir(parents=True, exist_ok=True)
    described, rows = machine(), []
    for steps in config.lengths:
        rows += measure(config, steps)
    found = costs(config.diagonal, config.seed)
    text = markdown(rows, found)
    console.print(Markdown(text))
    (config.out / "table.md").write_text(text, encoding="utf-8")
    write_json(
        config.out / "results.json",
        machine=described,
        config=dataclasses.asdict(config),
        rows=[row._asdict() for row in rows],
        costs=[cost._asdict() for cost in found],
    )
    plot(rows, described).savefig(config.out / "memory.png", dpi=150)
    console.print(f"Results: {config.out}")
    return Result(tuple(rows), tuple(found))


if __name__ == "__main__":
    main(tyro.cli(Config))
