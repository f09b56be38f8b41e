"""Several seeds trained side by side, by `vmap` over the whole step: for error bars.

One compilation and one loop give as many trainings as there are seeds, each with first parameters,
randomness, clipping and moments of its own. All see the same batches. The best step is chosen by
the mean of their validations, so it is one step for all. Checkpoints, metrics and all else are
those of `fit`, and the run resumes as exactly.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.common.options import Options
from experiments.common.step import make_seeds_trainer
from experiments.common.training import Outcome, Run, Task

PyTree = Any


def fit_seeds(
    task: Task,
    init: Callable[[jax.Array], PyTree],
    carry: Callable[[PyTree], PyTree],
    *,
    seeds: Sequence[int],
    options: Options,
    folder: Path,
    identity: Mapping[str, Any],
    console: Console,
) -> Outcome:
    """Trains from each seed; all else as in `fit`, which gives each of them when called alone.

    Args:
        task: what to train, for one seed.
        init: `key -> params`, called with `jax.random.key(seed)`.
        carry: `params -> carry`, what the first batch finds.
        seeds: the seeds; `options.seed` is not used.
        options: how to train.
        folder: where checkpoints, metrics and curves are kept.
        identity: all that decides what the run computes, as JSON values.
        console: where to report.

    Returns:
        The outcome, whose parameters have a leading axis of seeds; its `best` holds the mean of
        each value over seeds, and beside it the standard deviation, as in `loss_spread`.

    Raises:
        ValueError: there are no seeds, or one occurs twice.
        DivergedError: a seed's loss or gradient is not finite.
        OtherRunError: the folder holds a run with another identity.
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more different numbers, got {seeds}")
    params = jax.vmap(init)(jnp.stack([jax.random.key(seed) for seed in seeds]))
    side_by_side = dataclasses.replace(
        task,
        validate=lambda params: over_seeds(task.validate, params, len(seeds)),
        units=task.units * len(seeds),
        carry_rows=jax.tree.map(lambda axis: axis + 1, task.carry_rows),
    )
    trainer = make_seeds_trainer(task.loss, options, seeds)
    same = {**identity, "seed": list(seeds)}
    run = Run(side_by_side, trainer, options, folder, same, console)
    return run.train(params, jax.vmap(carry)(params))


def over_seeds(
    measure: Callable[[PyTree], Mapping[str, float]], params: PyTree, count: int
) -> dict[str, float]:
    """The mean of what is measured for each seed's parameters, and its standard deviation."""
    measured = [measure(one_seed(params, index)) for index in range(count)]
    together = {name: np.array([values[name] for values in measured]) for name in measured[0]}
    means = {name: float(values.mean()) for name, values in together.items()}
    degrees = min(1, count - 1)  # of freedom that the mean has used up
    spreads = {f"{name}_spread": float(v.std(ddof=degrees)) for name, v in together.items()}
    return means | spreads


def one_seed(params: PyTree, index: int) -> PyTree:
    """The parameters of one seed among those of several."""
    return jax.tree.map(lambda leaf: leaf[index], params)
