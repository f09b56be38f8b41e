"""Several seeds trained side by side, by `vmap` over the whole step: for error bars.

One compilation and one loop train every seed, each with its own parameters, randomness, clipping
and optimizer state. All see the same batches. The best step is chosen by the mean of the metrics
over seeds. Checkpoints, metrics and resuming work as in `fit`.
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
from experiments.common.training import Outcome, Task, fit

PyTree = Any


def fit_seeds(
    task: Task,
    init: Callable[[jax.Array], PyTree],
    carry: Callable[[PyTree], PyTree] = lambda params: (),
    *,
    seeds: Sequence[int],
    options: Options,
    folder: Path,
    identity: Mapping[str, Any],
    console: Console,
) -> Outcome:
    """Trains each seed as `fit` trains it alone.

    Args:
        task: what to train, for one seed.
        init: `key -> params`, called with `jax.random.key(seed)`.
        carry: `params -> carry`, the carry of the first batch.
        seeds: the seeds; `options.seed` is not used.
        options: how to train.
        folder: the folder of checkpoints, metrics and curves.
        identity: all that decides what the run computes, as JSON values.
        console: where to print.

    Returns:
        The outcome. Its parameters have a leading axis of seeds; its `best` holds the mean of each
        metric over seeds, and the standard deviation with the suffix `_std`.

    Raises:
        ValueError: there are no seeds, or one occurs twice.
        UserError: as in `fit`.
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more different numbers, got {seeds}")
    params = jax.vmap(init)(jnp.stack([jax.random.key(seed) for seed in seeds]))
    one = task.validate
    task = dataclasses.replace(
        task,
        validate=lambda params: over_seeds(one, params, len(seeds)),
        units=task.units * len(seeds),
        carry_axes=jax.tree.map(lambda axis: axis + 1, task.carry_axes),
    )
    own = {**identity, "seed": list(seeds)}
    settings: dict[str, Any] = dict(options=options, folder=folder, identity=own, console=console)
    return fit(task, params, jax.vmap(carry)(params), seeds=seeds, **settings)


def over_seeds(
    validate: Callable[[PyTree], Mapping[str, float]], params: PyTree, count: int
) -> dict[str, float]:
    """The mean of each metric over seeds, and its standard deviation with the suffix `_std`."""
    metrics = [validate(one_seed(params, index)) for index in range(count)]
    together = {name: np.array([values[name] for values in metrics]) for name in metrics[0]}
    means = {name: float(values.mean()) for name, values in together.items()}
    ddof = min(1, count - 1)
    return means | {f"{name}_std": float(v.std(ddof=ddof)) for name, v in together.items()}


def one_seed(params: PyTree, index: int) -> PyTree:
    """The parameters of one of several seeds."""
    return jax.tree.map(lambda leaf: leaf[index], params)


def mean_and_std(values: Sequence[float], mean: str, std: str) -> str:
    """Formats the mean over seeds, with the standard deviation of several; "-" if there is none.

    Example:
        >>> mean_and_std([1.0, 2.0], "{:.4g}", "{:.1g}")
        '1.5 ±0.7'
    """
    if not len(values):
        return "-"
    deviation = f" ±{std}".format(np.std(values, ddof=1)) if len(values) > 1 else ""
    return mean.format(np.mean(values)) + deviation
