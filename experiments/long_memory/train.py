"""Long memory: tasks that are easy to whoever remembers, for any cell.

S. Hochreiter and J. Schmidhuber, "Long short-term memory", 1997, and the papers named beside each
task in `_memory_tasks.py`. The data are generated: adding, copy, selective copy, temporal order,
parity, aⁿbⁿ and associative recall.

The claims of theory and papers, which the one table of `--suite` tests with three seeds a row, and
what was measured:

- adding, T = 500: LSTM with chrono initialisation, LEM and LRU get below a mean squared error of
  0.01, a simple recurrent network stays at that of always answering 1, 0.167. Measured: LSTM 0.0019
  to 0.0028, LEM 0.0041 to 0.0052, LRU 0.00003 to 0.0036, Elman 0.164 to 0.167. LRU needs the most
  steps: after 1,500 and not 4,000 its three seeds got 0.0052, 0.0122 and 0.161;
- copy, T = 200: an orthogonal recurrent network gets below the loss of guessing, 10 ln 8 / 220 =
  0.0945. Measured: 0.002, 0.014 and 0.079; Elman 0.098 to 0.099;
- parity: LSTM and GRU solve it and go on beyond the 40 bits they were trained on, cells whose state
  is multiplied by positive numbers only (MinGRU, RG-LRU) guess there. Measured: of bits 41 to 200
  LSTM and GRU get 100 % right, MinGRU 49.8 to 50.2 %, RG-LRU 49.8 to 49.9 %;
- aⁿbⁿ: LSTM counts beyond the n it was trained on, GRU hardly does (Weiss, Goldberg and Yahav, "On
  the practical computational power of finite precision RNNs for language recognition", 2018).
  Measured, trained up to n = 50: LSTM is right for every n up to 99, 108 and 91, GRU up to 60, 59
  and 57. After 4,000 of the 12,000 steps it was 65, 96 and 84 against 57, 57 and 56.

    python -m experiments.long_memory
    python -m experiments.long_memory --task copy --cell orthogonal-rnn --length 200
    python -m experiments.long_memory --suite
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.common.options import (
    CellName,
    EngineName,
    Options,
    check_at_least,
    identity,
    make_engine,
    run_folder,
)
from experiments.common.seeds import fit_seeds, one_seed
from experiments.common.training import Outcome, Task
from experiments.long_memory.model import Model, Params, cell_for, losses, weighted_mean
from experiments.long_memory.suite import ROWS, SEEDS, Run, report
from experiments.long_memory.tasks import TASKS, Batch


@dataclass(frozen=True)
class Config:
    """What to train, and on which task."""

    task: Literal[
        "adding",
        "copy",
        "selective-copy",
        "temporal-order",
        "parity",
        "anbn",
        "associative-recall",
    ] = "adding"
    """The task."""
    cell: CellName = "lstm"
    """The recurrent cell."""
    length: int | None = None
    """What has to be bridged: steps, n of the longest string, pairs to recall. None: the task's own
    (500 for adding, 200 for copy)."""
    hidden: int = 64
    """Hidden size."""
    rows: int = 32
    """Sequences of a batch."""
    paper_start: bool = True
    """Start a cell for as many steps as the task has, where its paper says how: chrono biases
    (LSTM, GRU), a ring of eigenvalues (LRU), a short time step (LEM). Otherwise as always."""
    engine: EngineName = "auto"
    """The engine that runs the cell over time."""
    seeds: int = 1
    """How many seeds are trained side by side, from the training's seed on."""
    suite: bool = False
    """Train all rows of the table, each with three seeds, and draw it. Each has settings of its
    own: the options above, the steps and the learning rate do not matter then."""
    suite_steps: int | None = None
    """At most so many steps a row of the suite, to try it out."""
    training: Options = Options(
        steps=800, learning_rate=1e-2, validate_every=50, checkpoint_every=100
    )

    def __post_init__(self):
        check_at_least(1, self, "hidden", "rows", "seeds")
        check_at_least(3, self, "length")
        self.generated  # noqa: B018  its own errors come now, too

    @property
    def generated(self) -> Any:
        """The task as a value."""
        kind = TASKS[self.task]
        return kind() if self.length is None else kind(length=self.length)


def make_model(config: Config) -> Model:
    """The network that the configuration describes."""
    task = config.generated
    steps = task.batch(np.random.default_rng(0), 1).inputs.shape[0]
    remember = max(3, steps) if config.paper_start else None
    cell = cell_for(config.cell, config.hidden, remember)
    return Model(cell, task.classes or 1, config.hidden, make_engine(config.engine))


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, model: Model) -> Task:
    """What the loop shall train: see `Task`."""
    task, seed = config.generated, config.training.seed
    held_out = task.batch(np.random.default_rng((seed, 1)), 256)

    def loss(params, carry, batch, key):
        answers = model.apply(params, batch.inputs)
        return weighted_mean(losses(task.classes, answers, batch), batch.weights), carry

    return Task(
        name=f"{config.task}, {config.cell}",
        loss=loss,
        batch=lambda step: task.batch(np.random.default_rng((seed, 0, step)), config.rows),
        validate=lambda params: score(model, task.classes, params, held_out),
        units=config.rows,
        unit="sequences",
        loss_unit="squared error" if task.classes is None else "nats an answer",
    )


def score(model: Model, classes: int | None, params: Params, batch: Batch) -> dict[str, float]:
    """The loss, and where answers are classes the share of right ones."""
    answers = _answers(model, params, batch.inputs)
    values = {"loss": float(weighted_mean(losses(classes, answers, batch), batch.weights))}
    if classes is not None:
        right = np.asarray(answers).argmax(-1) == batch.targets
        values["accuracy"] = float(weighted_mean(right, batch.weights))
    return values


def test(config: Config, model: Model, params: Params) -> dict[str, float]:
    """The scores on 1,024 fresh sequences, and on longer ones where that is the point."""
    task, random = config.generated, np.random.default_rng((config.training.seed, 2))
    parts = [score(model, task.classes, params, task.batch(random, 256)) for _ in range(4)]
    values = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}

    def predict(batch: Batch) -> np.ndarray:
        return np.asarray(_answers(model, params, batch.inputs)).argmax(-1)

    return values | {"guess": float(task.guess)} | task.beyond(predict)


@partial(jax.jit, static_argnums=0)
def _answers(model: Model, params: Params, inputs: jax.Array) -> jax.Array:
    return model.apply(params, jnp.asarray(inputs))


# Report -------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """How training ended, and the scores of the best parameters on fresh data.

    Fields:
        outcome: that of the last run.
        test: the scores of each seed; of `--suite`, of each row and seed.
    """

    outcome: Outcome
    test: tuple[dict[str, float], ...]


def main(config: Config) -> Result:
    """Trains, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if config.suite:
        return _suite(config, console)
    began = time.perf_counter()
    model = make_model(config)
    same = identity(config, reporting=("suite", "suite_steps"))
    folder = run_folder(config.training, "long_memory", same)
    console.print(f"{config.task} with {model.cell}; results go to {folder}")
    inputs, seed = config.generated.inputs, config.training.seed
    outcome = fit_seeds(
        make_task(config, model),
        lambda key: model.init(key, inputs),
        lambda params: (),
        seeds=range(seed, seed + config.seeds),
        options=config.training,
        folder=folder,
        identity=same,
        console=console,
    )
    if outcome.signal is not None:
        console.print(f"stopped by {outcome.signal.name}; the same command goes on from here")
        return Result(outcome, ())
    scores = tuple(test(config, model, one_seed(outcome.params, i)) for i in range(config.seeds))
    (folder / "test.json").write_text(json.dumps(scores) + "\n", encoding="utf-8")
    for number, values in enumerate(scores, seed):
        shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        console.print(f"seed {number}, on fresh sequences: {shown}")
    console.print(
        f"{outcome.seconds:.0f} s of training, {time.perf_counter() - began:.0f} s in all"
    )
    return Result(outcome, scores)


def _suite(config: Config, console: Console) -> Result:
    """Every row is a run of its own, so that a suite that was stopped goes on."""
    base = config.training.out or Path("runs/long_memory/suite")
    runs, result = [], None
    for row in ROWS:
        training = dataclasses.replace(
            config.training,
            steps=min(row.steps, config.suite_steps or row.steps),
            learning_rate=row.learning_rate,
            out=base / row.name,
        )
        result = main(Config(**row.options, seeds=SEEDS, training=training))
        if result.outcome.signal is not None:
            return result
        runs.append(Run(row, result.test, base / row.name, result.outcome.seconds))
    assert result is not None
    report(runs, base, console)
    return Result(result.outcome, tuple(scores for run in runs for scores in run.test))
