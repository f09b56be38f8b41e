r"""Probabilistic forecasts of electricity demand, one step and a day ahead.

The data are the half-hourly demand of Victoria, Australia, 2012 to 2014 (`vic_elec` in R. Hyndman
and G. Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition, 2021); the last year is
the test part. An ensemble of recurrent networks predicts the mean and five quantiles of each step
ahead, as corrections of a linear autoregression on the same features. It is trained with the
squared error and the pinball loss; its intervals are calibrated on the validation part.

    python -m experiments.forecast
    python -m experiments.forecast --horizon 1
    python -m experiments.forecast --future              # with a perfect weather forecast
    python -m experiments.forecast --series sunspots --horizon 1 --test 35 --valid 40 --time 24 \
        --lead 11 --batch 8 --layers 1 --hidden 8 --steps 300
    python -m experiments.forecast --data mine.csv --target load --test 2000 --valid 1000
"""

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.common import export, options
from experiments.common.data.series import Series, load_series
from experiments.common.ensemble import Ensemble
from experiments.common.run import Run
from experiments.common.seeds import fit_seeds, one_seed
from experiments.common.training import Outcome, Task
from experiments.forecast.conformal import calibrate
from experiments.forecast.features import Table, make_split, make_table, naive_forecasts
from experiments.forecast.linear import Linear, fit_linear
from experiments.forecast.model import LEVELS, Forecast, Model, Params, losses
from experiments.forecast.report import Results, evaluate, format_tables, plot_forecast, summarize
from jaxrnn.layers import Stack


@dataclass(frozen=True)
class Config:
    """Data, model and training."""

    cell: options.CellName = "gru"
    """Recurrent cell."""
    engine: options.EngineName = "auto"
    """Engine that runs the cell over time."""
    layers: int = 2
    """Recurrent layers."""
    hidden: int = 96
    """Hidden size of each layer."""
    dropout: float = 0.3
    """Dropout rate of the outputs of each recurrent layer."""
    members: int = 5
    """Networks of the ensemble, whose predictions are averaged."""
    horizon: int = 48
    """Steps ahead to forecast."""
    future: bool = False
    """Use the future of all covariates, as from a perfect weather forecast."""
    base: Literal["linear", "naive"] = "linear"
    """Forecast that the network corrects: ridge regression, or the last value plus last season."""
    batch: int = 16
    """Windows in a batch."""
    time: int = 192
    """Steps of a window."""
    lead: int = 96
    """Steps before each window, in which the state warms up."""
    every: int | None = None
    """Steps between the forecasts of a window that are trained on. None: horizon / 12."""
    series: Literal["electricity", "sunspots"] = "electricity"
    """Series, unless --data names a CSV file."""
    data: Path | None = None
    """CSV file with times first, or a local copy of the data's wheel. None: download it once."""
    target: str | None = None
    """Column of the CSV file to forecast. None: the second."""
    test: int = 17520
    """Steps of the test part, at the end."""
    valid: int = 3360
    """Steps of the validation part, before the test part."""
    seeds: int = 1
    """Ensembles to train side by side from different seeds, for error bars."""
    export: Path | None = None
    """ONNX file to write the trained model to, for serving."""
    training: options.Options = options.Options(
        steps=500,
        learning_rate=3e-3,
        weight_decay=0.05,
        average=0.99,
        validate_every=50,
        checkpoint_every=50,
    )

    def __post_init__(self):
        options.check_at_least(1, self, "layers", "hidden", "members", "horizon", "batch", "time")
        options.check_at_least(1, self, "test", "valid", "seeds", "every")
        options.check_rate(self, "dropout")
        options.check_not_negative(self, "lead")


def load(config: Config) -> tuple[Series, Table, Linear]:
    """Loads the series, computes the features, and fits the linear baseline.

    The base of the returned table is the forecast that the network corrects.
    """
    series = load_series(config.series, config.data, config.target)
    split = make_split(series, config.test, config.valid)
    table = make_table(series, config.horizon, split, future=config.future)
    linear = fit_linear(table, LEVELS)
    if config.base == "linear":
        table = replace(table, base=linear.trained, scale=linear.scale)
    return series, table, linear


def make_model(config: Config) -> Ensemble:
    """Builds the ensemble."""
    stack = Stack((options.make_layer(config),) * config.layers, dropout=config.dropout)
    return Ensemble(Model(stack, config.horizon, config.dropout), config.members)


# Training -----------------------------------------------------------------------------------------


def windows(table: Table, origins: np.ndarray, lead: int) -> dict[str, np.ndarray]:
    """Returns features `[lead + time, rows, ...]` and targets `[time, rows, ...]` of the origins.

    Before the first origin of the table, its features are repeated.
    """
    last = len(table.xs) - 1
    before = origins[:1] - np.arange(lead, 0, -1)[:, None]
    steps = np.clip(np.concatenate([before, origins]), table.first, last)
    return {"xs": table.xs[steps], "targets": table.targets[np.minimum(origins, last)]}


def all_windows(table: Table, begin: int, end: int, config: Config) -> dict[str, np.ndarray]:
    """Windows that hold each origin from `begin` to before `end` once; targets beyond are NaN."""
    rows = -(-(end - begin) // config.time)
    origins = begin + np.arange(config.time)[:, None] + config.time * np.arange(rows)
    parts = windows(table, origins, config.lead)
    parts["targets"][origins >= end] = np.nan
    return parts


def make_task(config: Config, table: Table, model: Ensemble) -> Task:
    """Defines the training of one seed."""
    # Far steps are many and hard to predict: with equal weights, the network overfits them before
    # it learns the near ones.
    weights = 1 / np.arange(1, config.horizon + 1)
    weights = jnp.asarray(weights / weights.mean(), jnp.float32)
    valid, test = table.split
    every = config.every or max(1, config.horizon // 12)

    def batch(step):
        last = valid - config.horizon - config.time
        starts = np.random.default_rng(step).integers(table.first, last + 1, config.batch)
        return windows(table, starts + np.arange(config.time)[:, None], config.lead)

    def loss(params, carry, batch, key):
        forecasts = model.apply(params, batch["xs"], slice(config.lead, None, every), key=key)
        return (losses(forecasts, batch["targets"][::every]) * weights).mean(), carry

    held_out = all_windows(table, valid, test - config.horizon, config)

    @jax.jit
    def metrics(params, held_out):
        forecast = model.apply(params, held_out["xs"], slice(config.lead, None)).mean(0)
        observed = jnp.isfinite(held_out["targets"])
        squares = jnp.where(observed, held_out["targets"] - forecast[..., 0], 0.0) ** 2
        rmse = jnp.sqrt(squares.sum((0, 1)) / observed.sum((0, 1)))
        loss = (losses(forecast, held_out["targets"]) * weights).sum() / observed.sum()
        return {"loss": loss, "next": rmse[0], "last": rmse[-1]}

    return Task(
        name=f"{config.cell}, {config.layers} x {config.hidden}",
        loss=loss,
        batch=batch,
        validate=lambda params: {k: float(v) for k, v in metrics(params, held_out).items()},
        units=config.batch * len(range(0, config.time, every)),
        unit="forecasts",
        loss_unit="squared error and pinball loss",
    )


def predict(config: Config, table: Table, model: Ensemble, params: Params) -> Forecast:
    """Forecasts from every origin from the validation part on, with calibrated intervals."""
    begin, end = table.split.valid, len(table.xs) - 1
    xs = all_windows(table, begin, end, config)["xs"]
    windowed = np.array(_mean_prediction(model, config.lead, params, xs))
    predicted = windowed.swapaxes(0, 1).reshape(-1, *windowed.shape[2:])[: end - begin]
    whole = np.full((len(table.xs), *predicted.shape[1:]), np.nan)
    whole[begin:end] = table.base[begin:end, :, None] + predicted * table.scale[:, None]
    calibration = slice(begin, table.split.test - config.horizon)
    return calibrate(Forecast(whole[..., 0], whole[..., 1:]), table.actual, calibration)


@partial(jax.jit, static_argnums=(0, 1))
def _mean_prediction(model: Ensemble, lead: int, params: Params, xs: jax.Array) -> jax.Array:
    return model.apply(params, xs, slice(lead, None)).mean(0)


# Report -------------------------------------------------------------------------------------------


def export_model(config: Config, features: int, params: Params, console: Console) -> None:
    """Writes the ensemble as `xs [time, rows, features] -> forecast [rows, horizon, outputs]`."""
    model = make_model(replace(config, engine="hoisted"))  # takes symbolic sizes
    time, rows = export.sizes()

    def forecast(xs):
        return {"forecast": _mean_prediction(model, -1, params, xs)[0]}

    assert config.export is not None
    export.write_onnx(
        config.export,
        console,
        forecast,
        {"outputs": "mean " + " ".join(f"{level:g}" for level in LEVELS)},
        xs=jax.ShapeDtypeStruct((time, rows, features), np.float32),
    )


class Result(NamedTuple):
    """The outcome of training, and the metrics of every method on the test part, by seed."""

    outcome: Outcome
    metrics: Results


def main(config: Config) -> Result:
    """Trains, evaluates and reports."""
    series, table, linear = load(config)
    model = make_model(config)
    digest = hashlib.sha256(series.values.tobytes() + series.past_covariates.tobytes()).hexdigest()
    run = Run("forecast", config, reporting=("data", "export"), series_digest=digest)
    run.console.print(
        f"{series.name}: {len(series.values):,} steps, {table.xs.shape[1]} features each, the last "
        f"{config.test:,} for the test; output folder {run.folder}"
    )
    features = table.xs.shape[1]
    task = make_task(config, table, model)
    outcome = fit_seeds(
        task, lambda key: model.init(key, features), seeds=run.seeds, **run.settings
    )
    if not outcome.reports:
        return Result(outcome, {})
    if config.export is not None:
        export_model(config, features, one_seed(outcome.params, 0), run.console)
    naive = naive_forecasts(series, config.horizon)
    forecasts = {name: [Forecast(point)] for name, point in naive.items()}
    forecasts["linear autoregression"] = [Forecast(linear.point, linear.quantiles)]
    forecasts[f"network ({config.cell})"] = networks = [
        predict(config, table, model, one_seed(outcome.params, i)) for i in range(config.seeds)
    ]
    metrics = {
        name: [evaluate(series, table.split, forecast) for forecast in seeds]
        for name, seeds in forecasts.items()
    }
    figures = summarize(config.horizon, metrics)
    own = figures.pop(f"network ({config.cell})")
    run.write_results(own, outcome.seconds, figures)
    run.write("test_metrics.txt", format_tables(series, config.horizon, metrics))
    plot_forecast(run.folder / "forecast.png", series, table.split, networks[0], metrics)
    return Result(outcome, metrics)
