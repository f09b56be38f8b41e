"""A sequence autoencoder of weeks of electricity demand; what it cannot give back is odd.

N. Srivastava, E. Mansimov and R. Salakhutdinov, "Unsupervised learning of video representations
using LSTMs", 2015, and P. Malhotra et al., "LSTM-based encoder-decoder for multi-sensor anomaly
detection", 2016: one recurrent network reads a sequence into a short code, another writes the
sequence from the code; where it fails, the sequence is unlike those that it has learnt from.

Here: weeks of half-hourly demand in Victoria, one from every midnight, in a code of a few numbers.
The network reads and writes departures from the mean week, as principal components do.
The decoder also knows the calendar (time of day, day of the week, time of the year) but not the
holidays, and no label takes part in the training. It is compared with as many principal components
and with the mean week: how well held-out weeks come back, and how well the error of a day tells the
public holidays, by the area under the ROC curve (1/2 is chance). The linear references, measured:
eight components leave 0.040 of the variance of held-out weeks and tell holidays at 0.90 (held-out
ones at 0.88); the mean week leaves 0.39 and tells them at 0.96. The network, three seeds: it leaves
0.044, 0.044 and 0.042 of the weeks that it learns from and 0.096, 0.109 and 0.097 of those held
out, and tells holidays at 0.91, 0.93 and 0.93 (0.87, 0.89, 0.90). So it is a worse encoder of new
weeks than a linear one. After 3,000 steps, one seed, it is the better one of the weeks that it
learns from, 0.010 against 0.025, and leaves 0.101 of those held out: it learns them by heart. Tried
before: a code made of the encoder's last state left 0.213, one made of the mean of its outputs
0.170.

    python -m experiments.autoencode
    python -m experiments.autoencode --data mine.csv --target load --test 4000
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from rich.console import Console

from experiments.autoencode.data import Weeks, average, cut, principal
from experiments.autoencode.report import Codes, Measured, draw, measure, show
from experiments.common import checks as _checks
from experiments.common.choices import CellName, EngineName, make_cell, make_engine
from experiments.common.data.series import load_series
from experiments.common.options import Options, identity, run_folder
from experiments.common.seeds import fit_seeds, one_seed
from experiments.common.training import Outcome, Task
from jaxrnn.layers import Recurrent


@dataclass(frozen=True)
class Config:
    """What to encode, and with what."""

    cell: CellName = "gru"
    """The recurrent cell."""
    engine: EngineName = "auto"
    """The engine that runs it over time."""
    hidden: int = 64
    """Hidden size of the encoder and of the decoder."""
    code: int = 8
    """How many numbers stand for a week."""
    batch: int = 32
    """Weeks in a batch."""
    data: Path | None = None
    """A CSV file of your own (a column of times first; a column of true and false tells the odd
    days), or the wheel with the data if it cannot be fetched here. None: fetched once."""
    target: str | None = None
    """The column of your CSV to encode; None is the second."""
    test: int = 17520
    """How many steps at the end are held out for the test."""
    seeds: int = 1
    """How many networks to train side by side, for error bars."""
    training: Options = Options(
        steps=1000, learning_rate=4e-3, average=0.99, validate_every=100, checkpoint_every=100
    )

    def __post_init__(self):
        _checks.at_least(1, self, "hidden", "code", "batch", "test", "seeds")


# Model --------------------------------------------------------------------------------------------


class Params(NamedTuple):
    """Parameters of `Model`."""

    encoder: Any
    code: Any
    decoder: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """Two recurrent layers with a few numbers between them.

    The code is made of the mean over the week of what the encoder gives, not of its last state, in
    which Monday is faint; and the decoder weighs the code's numbers at every step, as principal
    components do, besides reading them.

    Args:
        encoder: reads the week.
        decoder: writes it, from the code and the calendar at every step.
        code: how many numbers there are.
    """

    encoder: Recurrent
    decoder: Recurrent
    code: int

    def init(self, key: jax.Array, features: int) -> Params:
        """Draws the parameters, for so many features of the calendar."""
        keys = jax.random.split(key, 4)
        return Params(
            self.encoder.init(keys[0], 1 + features),
            nn.Dense(self.code).init(keys[1], jnp.zeros(self.encoder.output_size)),
            self.decoder.init(keys[2], self.code + features),
            nn.Dense(1 + self.code).init(keys[3], jnp.zeros(self.decoder.output_size)),
        )

    def encode(self, params: Params, values: jax.Array, calendar: jax.Array) -> jax.Array:
        """Codes `[weeks, code]` of `values [time, weeks]`."""
        xs = jnp.concatenate([values[..., None], calendar], -1)
        _, ys = self.encoder.apply(params.encoder, None, xs)
        codes: Any = nn.Dense(self.code).apply(params.code, ys.mean(0))
        return codes

    def decode(self, params: Params, codes: jax.Array, calendar: jax.Array) -> jax.Array:
        """Values `[time, weeks]` of codes."""
        repeated = jnp.broadcast_to(codes, (len(calendar), *codes.shape))
        xs = jnp.concatenate([repeated, calendar], -1)
        _, ys = self.decoder.apply(params.decoder, None, xs)
        weights: Any = nn.Dense(1 + self.code).apply(params.readout, ys)
        return weights[..., 0] + (weights[..., 1:] * codes).sum(-1)


def make_model(config: Config) -> Model:
    """The model that the configuration describes."""
    layer = Recurrent(make_cell(config.cell, config.hidden), engine=make_engine(config.engine))
    return Model(layer, layer, config.code)


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, weeks: Weeks, model: Model) -> Task:
    """What the loop shall train: see `Task`."""
    train = np.flatnonzero(weeks.train)
    valid = np.flatnonzero(weeks.valid)

    def batch(step):
        rows = np.random.default_rng(step).choice(train, config.batch)
        return {"values": weeks.values[:, rows], "calendar": weeks.calendar[:, rows]}

    def loss(params, carry, batch, key):
        codes = model.encode(params, batch["values"], batch["calendar"])
        error = model.decode(params, codes, batch["calendar"]) - batch["values"]
        return (error.astype("float32") ** 2).mean(), carry

    def validate(params):
        _, values = reconstruct(model, params, weeks.values[:, valid], weeks.calendar[:, valid])
        return {"loss": float(((values - weeks.values[:, valid]) ** 2).mean())}

    return Task(
        name=f"{config.cell}, {config.hidden}, code of {config.code}",
        loss=loss,
        batch=batch,
        validate=validate,
        units=config.batch,
        unit="weeks",
        loss_unit="mean squared error, in variances",
    )


@partial(jax.jit, static_argnums=0)
def reconstruct(
    model: Model, params: Params, values: jax.Array, calendar: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Codes `[weeks, code]`, and the values that come back, `[time, weeks]`."""
    codes = model.encode(params, values, calendar)
    return codes, model.decode(params, codes, calendar)


# Report -------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """How training ended, and every method's figures, by seed for the network."""

    outcome: Outcome
    figures: Mapping[str, list[Measured]]


def main(config: Config) -> Result:
    """Trains, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    series = load_series("electricity", config.data, config.target)
    weeks, model = cut(series, config.test), make_model(config)
    mean = average(weeks)
    departures = weeks._replace(values=weeks.values - mean)
    digest = hashlib.sha256(series.values.tobytes()).hexdigest()
    same = identity(config, reporting=("data",), series_digest=digest)
    folder = run_folder(config.training, "autoencode", same)
    console.print(
        f"{series.name}: {weeks.train.sum()} weeks for training, {weeks.valid.sum()} for "
        f"validation, {weeks.test.sum()} held out; results go to {folder}"
    )
    outcome = fit_seeds(
        make_task(config, departures, model),
        lambda key: model.init(key, weeks.calendar.shape[-1]),
        lambda params: (),
        seeds=range(config.training.seed, config.training.seed + config.seeds),
        options=config.training,
        folder=folder,
        identity=same,
        console=console,
    )
    console.print(
        f"{outcome.step} steps in {outcome.seconds:.1f} s of training; best validation at step "
        f"{outcome.best['step']}: {outcome.best['loss']:.4f}"
    )
    if outcome.signal is not None:
        console.print(f"stopped by {outcome.signal.name}; the same command goes on from here")
        return Result(outcome, {})
    networks = [
        reconstruct(model, params, departures.values, weeks.calendar)
        for params in (one_seed(outcome.params, index) for index in range(config.seeds))
    ]
    networks = [Codes(np.array(codes), mean + np.array(values)) for codes, values in networks]
    given_back = {
        "mean week": [mean],
        f"{config.code} principal components": [principal(weeks, config.code)],
        f"network ({config.cell})": [codes.values for codes in networks],
    }
    figures = {
        name: [measure(series, weeks, values) for values in those]
        for name, those in given_back.items()
    }
    shown = show(series, figures)
    console.print(shown)
    (folder / "scores.txt").write_text(shown + "\n", encoding="utf-8")
    draw(folder / "weeks.png", series, weeks, networks[0])
    console.print(f"the map of the weeks: {folder / 'weeks.png'}")
    return Result(outcome, figures)
