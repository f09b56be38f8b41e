"""What texts are likely, letter by letter: a small model of language for the beams of speech.

A recurrent network reads a letter and says which may follow; `BLANK` stands before each text and
after it. It is a cell that reads labels, so that `unroll` trains it and the beams step it. Texts
are easier to come by than speech, so it may also learn from others than those that were spoken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from rich.console import Console
from scipy import ndimage

import jaxrnn as rnn
from experiments.common.data import dictionaries as _dictionaries
from experiments.common.options import Options
from experiments.common.training import Outcome, Task, fit
from experiments.speech.corpora import Utterance, spoken
from experiments.speech.data import BLANK, LETTERS, encode
from experiments.speech.decode import Heard, error_rate, write_down
from jaxrnn.decoding import LanguageModel

_LABELS = len(LETTERS) + 1
_TIME, _ROWS = 64, 32
WEIGHTS = (0.3, 0.6, 0.9, 1.2, 1.5, 1.8)
BONUSES = (0.0, 1.0, 2.0, 3.0)
"""What `weigh` chooses from."""


class Params(NamedTuple):
    """Parameters of `Letters`."""

    cell: Any
    readout: Any


@dataclass(frozen=True)
class Letters:
    """A cell that reads labels and gives logits of the label that follows.

    Args:
        cell: what remembers the text so far.
    """

    cell: rnn.Cell
    input_rank: int = 0

    @property
    def output_size(self) -> int:
        """The number of labels."""
        return _LABELS

    def init(self, key: jax.Array, input_size: int = _LABELS, dtype: Any = None) -> Params:
        """Draws the parameters."""
        keys = jax.random.split(key)
        features = jnp.zeros(self.cell.output_size or 1, dtype)
        return Params(
            self.cell.init(keys[0], input_size, dtype), self._readout.init(keys[1], features)
        )

    def init_state(self, params: Params, batch_shape: tuple[int, ...] = ()) -> Any:
        """The state of the cell."""
        return self.cell.init_state(params.cell, batch_shape)

    def step(self, params: Params, state: Any, label: jax.Array) -> tuple[Any, Any]:
        """Reads a label."""
        state, y = self.cell.step(params.cell, state, jax.nn.one_hot(label, _LABELS))
        return state, self._readout.apply(params.readout, y)

    @property
    def _readout(self) -> nn.Dense:
        return nn.Dense(_LABELS)


def english(package: Path | None, left_out: Iterable[str]) -> list[str]:
    """The English phrases and sentences of a dictionary as they are spoken, but for some texts."""
    pairs = _dictionaries.german_english(
        package=package, option="--dictionary, or leave it out by --no-english"
    )
    phrases = (
        text for _, text in pairs if len(text.split()) > 1 and text.replace("’", "").isascii()
    )
    return sorted({spoken(text) for text in phrases} - {"", *left_out})


def train_letters(
    model: Letters,
    train: Sequence[str],
    more: Sequence[str],
    valid: Sequence[str],
    *,
    options: Options,
    folder: Path,
    identity: dict[str, Any],
    console: Console,
) -> Outcome:
    """Trains on some texts, and on more texts if there are any: three rows in four are theirs.

    The best parameters are those for the texts of `valid`.
    """
    steps = min(3000 if more else 600, options.steps)
    average = 0.99 if more else 0.95
    changes = dict(steps=steps, learning_rate=4e-3, weight_decay=0.1, average=average, warmup=20)
    options = replace(options, **changes, validate_every=100, checkpoint_every=100)
    held_out = _stream(valid, range(len(valid)))[:, None]
    rows_of_more = 3 * _ROWS // 4 if more else 0
    shuffled = np.random.default_rng(options.seed).permutation(len(more))
    others = _stream(more, np.resize(shuffled, max(len(more), _TIME)) if more else ())

    def loss_of(params, labels):
        before, after = labels[:-1], labels[1:]
        _, logits = rnn.unroll(model, params, before, starts=before == BLANK)
        logits = logits.astype("float32")
        return optax.softmax_cross_entropy_with_integer_labels(logits, after).mean()

    def batch(step: int) -> np.ndarray:
        random = np.random.default_rng((options.seed, step))
        order = [random.permutation(len(train)) for _ in range(1 + _ROWS * _TIME // len(train))]
        rows = [(others, rows_of_more)] if more else []
        rows.append((_stream(train, np.concatenate(order)), _ROWS - rows_of_more))
        begins = [
            (stream, random.integers(0, len(stream) - _TIME, count)) for stream, count in rows
        ]
        time = np.arange(_TIME + 1)[:, None]
        return np.concatenate([stream[begin + time] for stream, begin in begins], axis=1)

    validate = jax.jit(loss_of)
    task = Task(
        name="letters of the texts",
        loss=lambda params, carry, batch, key: (loss_of(params, batch), carry),
        batch=batch,
        validate=lambda params: {"loss": float(validate(params, held_out))},
        units=_TIME * _ROWS,
        unit="letters",
        loss_unit="nats a letter",
    )
    params = jax.jit(model.init)(jax.random.key(options.seed))
    return fit(task, params, (), options=options, folder=folder, identity=identity, console=console)


def weigh(
    model: Letters,
    params: Params,
    heard: Sequence[Heard],
    utterances: Sequence[Utterance],
    width: int,
) -> tuple[LanguageModel, float]:
    """The weight and the bonus that serve the beams best, and the error rate with them.

    Some dozens of utterances tell a choice from the one beside it by chance alone, so each is
    judged by the mean over itself and those around it.
    """
    offers = [
        [LanguageModel(model, params, None, weight, bonus) for bonus in BONUSES]
        for weight in WEIGHTS
    ]
    rates = np.array(
        [
            [error_rate(write_down(heard, width, offer), utterances) for offer in row]
            for row in offers
        ]
    )
    row, column = best_surrounded(rates)
    return offers[row][column], float(rates[row, column])


def best_surrounded(rates: np.ndarray) -> tuple[int, int]:
    """Where a table is least, in the mean with all around; a border lies beside itself."""
    means = ndimage.uniform_filter(rates, 3, mode="nearest")
    row, column = np.unravel_index(np.argmin(means), means.shape)
    return int(row), int(column)


def _stream(texts: Sequence[str], order: Any) -> np.ndarray:
    """The labels of texts, one after another, with `BLANK` before, between and after."""
    labels = [BLANK]
    for index in order:
        labels += [*encode(texts[int(index)]), BLANK]
    return np.array(labels, np.int32)
