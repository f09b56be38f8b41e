"""Synthetic tasks that need long memory, for any cell.

The tasks are adding, copy, selective copy, temporal order, parity, aⁿbⁿ and associative recall (S.
Hochreiter and J. Schmidhuber, "Long short-term memory", 1997, and the papers cited in `tasks.py`).

`--suite` tests claims of theory and papers with three seeds for each task and cell: LSTM with
chrono initialization, LEM and LRU solve adding over 500 steps; an orthogonal recurrent network
copies over 200; LSTM and GRU generalize parity beyond the 40 bits of training, cells that multiply
their state with positive numbers only (MinGRU, RG-LRU) do not; LSTM counts far beyond its n.

    python -m experiments.long_memory
    python -m experiments.long_memory --task copy --cell orthogonal-rnn --length 200
    python -m experiments.long_memory --suite
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common import options
from experiments.common.run import Run
from experiments.common.seeds import fit_seeds, one_seed
from experiments.common.training import Outcome, Task
from experiments.long_memory.model import Model, Params, make_memory_cell, mean_loss, weighted_mean
from experiments.long_memory.tasks import TASKS, Batch


@dataclass(frozen=True)
class Config:
    """Task, model and training."""

    task: Literal[
        "adding", "copy", "selective-copy", "temporal-order", "parity", "anbn", "associative-recall"
    ] = "adding"
    """Task."""
    cell: options.CellName = "lstm"
    """Recurrent cell."""
    length: int | None = None
    """Steps, n of the longest string, or pairs to recall. None: the task's default."""
    hidden: int = 64
    """Hidden size."""
    rows: int = 32
    """Sequences in a batch."""
    paper_start: bool = True
    """Initialize the cell for the steps of the task as its paper recommends."""
    engine: options.EngineName = "auto"
    """Engine that runs the cell over time."""
    seeds: int = 1
    """Seeds to train side by side."""
    suite: bool = False
    """Train all tasks and cells of the suite; overrides the options above, steps, learning rate."""
    suite_steps: int | None = None
    """Maximum steps for each row of the suite, for a quick trial."""
    training: options.Options = options.Options(
        steps=800, learning_rate=1e-2, validate_every=50, checkpoint_every=100
    )

    def __post_init__(self):
        options.check_at_least(1, self, "hidden", "rows", "seeds")
        options.check_at_least(3, self, "length")
        self.make_memory_task()  # raises for a length that the task does not have

    def make_memory_task(self) -> Any:
        """Makes the task."""
        kind = TASKS[self.task]
        return kind() if self.length is None else kind(length=self.length)


def make_model(config: Config) -> Model:
    """Builds the model."""
    task = config.make_memory_task()
    steps = task.batch(np.random.default_rng(0), 1).inputs.shape[0]
    memory = max(3, steps) if config.paper_start else None
    cell = make_memory_cell(config.cell, config.hidden, memory)
    return Model(cell, task.classes or 1, config.hidden, options.make_engine(config.engine))


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, model: Model) -> Task:
    """Defines the training of one seed."""
    task, seed = config.make_memory_task(), config.training.seed
    held_out = task.batch(np.random.default_rng((seed, 1)), 256)

    def loss(params, carry, batch, key):
        return mean_loss(task.classes, model.apply(params, batch.inputs), batch), carry

    return Task(
        name=f"{config.task}, {config.cell}",
        loss=loss,
        batch=lambda step: task.batch(np.random.default_rng((seed, 0, step)), config.rows),
        validate=lambda params: evaluate(model, task.classes, params, held_out),
        units=config.rows,
        unit="sequences",
        loss_unit="squared error" if task.classes is None else "nats a step",
    )


def evaluate(model: Model, classes: int | None, params: Params, batch: Batch) -> dict[str, float]:
    """The loss and, for classes, the accuracy."""
    outputs = _apply(model, params, batch.inputs)
    metrics = {"loss": float(mean_loss(classes, outputs, batch))}
    if classes is not None:
        correct = np.asarray(outputs).argmax(-1) == batch.targets
        metrics["accuracy"] = float(weighted_mean(correct, batch.weights))
    return metrics


def test(config: Config, model: Model, params: Params) -> dict[str, float]:
    """The metrics on 1,024 new sequences, and on longer ones if the task has such metrics."""
    task, random = config.make_memory_task(), np.random.default_rng((config.training.seed, 2))
    parts = [evaluate(model, task.classes, params, task.batch(random, 256)) for _ in range(4)]
    metrics = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}

    def predict(batch: Batch) -> np.ndarray:
        return np.asarray(_apply(model, params, batch.inputs)).argmax(-1)

    return metrics | {"chance": float(task.chance)} | task.longer_metrics(predict)


@partial(jax.jit, static_argnums=0)
def _apply(model: Model, params: Params, inputs: jax.Array) -> jax.Array:
    return model.apply(params, jnp.asarray(inputs))


# Report -------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """The outcome of the last training, and the test metrics of each seed (and row)."""

    outcome: Outcome
    metrics: tuple[dict[str, float], ...]


def main(config: Config) -> Result:
    """Trains, evaluates and reports."""
    model = make_model(config)
    run = Run("long_memory", config, reporting=("suite", "suite_steps"))
    run.console.print(f"{config.task} with {model.cell}; output folder {run.folder}")
    inputs = config.make_memory_task().inputs
    task, init = make_task(config, model), partial(model.init, inputs=inputs)
    outcome = fit_seeds(task, init, seeds=run.seeds, **run.settings)
    if not outcome.reports:
        return Result(outcome, ())
    metrics = tuple(test(config, model, one_seed(outcome.params, i)) for i in range(config.seeds))
    figures = {name: [values[name] for values in metrics] for name in metrics[0]}
    run.write_results(figures, outcome.seconds)
    for seed, values in zip(run.seeds, metrics, strict=True):
        shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        run.console.print(f"seed {seed}, test: {shown}")
    return Result(outcome, metrics)
