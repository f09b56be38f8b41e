"""Greedy decoding, prefix beam search, and shallow fusion with a character language model.

Gulcehre et al., "On using monolingual corpora in neural machine translation", 2015 (shallow
fusion: the weighted log-probability of each letter under a language model is added to the score of
a beam); Hannun et al., "First-pass large vocabulary continuous speech recognition using
bi-directional recurrent DNNs", 2014 (with a bonus for each letter).
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
from rapidfuzz.distance import Levenshtein
from scipy import ndimage

import jaxrnn as rnn
from experiments.common.data import dictionaries
from experiments.common.options import Options
from experiments.common.training import Outcome, Task, fit
from experiments.speech import model as acoustic
from experiments.speech.corpora import Utterance, normalize
from experiments.speech.data import BLANK, LETTERS, Batch, decode_letters, encode_letters
from jaxrnn.decoding import LanguageModel, ctc_beam_search, ctc_greedy


class Emissions(NamedTuple):
    """Outputs of the acoustic model: the utterances' indices, `[time, batch, labels]`, lengths."""

    indices: np.ndarray
    log_probs: jax.Array
    lengths: np.ndarray


def compute_emissions(
    model: acoustic.Model, params: acoustic.Params, batches: Sequence[tuple[np.ndarray, Batch]]
) -> list[Emissions]:
    """Runs the acoustic model once, for several ways of decoding."""
    return [
        Emissions(indices, acoustic.log_probabilities(model, params, batch), batch.lengths[0])
        for indices, batch in batches
    ]


def transcribe(
    emissions: Sequence[Emissions],
    width: int | None = None,
    language_model: LanguageModel | None = None,
) -> list[str]:
    """The texts of utterances by greedy decoding, or by prefix beam search of a width."""
    texts = [""] * sum(len(each.indices) for each in emissions)
    for indices, log_probs, lengths in emissions:
        if width is None:
            decoded = ctc_greedy(log_probs, lengths=lengths)
        else:
            beams = ctc_beam_search(
                log_probs, width=width, lengths=lengths, language_model=language_model
            )
            decoded = jax.tree.map(lambda leaf: leaf[..., 0], beams)
        tokens, counts = np.asarray(decoded.tokens), np.asarray(decoded.lengths)
        for row, index in enumerate(indices):
            texts[index] = decode_letters(tokens[: counts[row], row])
    return texts


def character_error_rate(hypotheses: Sequence[str], utterances: Sequence[Utterance]) -> float:
    """Edit distance to the reference texts, per letter of these."""
    pairs = zip(hypotheses, utterances, strict=True)
    edits = sum(Levenshtein.distance(hypothesis, each.text) for hypothesis, each in pairs)
    return edits / sum(len(utterance.text) for utterance in utterances)


# Language model -----------------------------------------------------------------------------------

PyTree = Any

_LABELS = len(LETTERS) + 1
_TIME, _ROWS = 64, 32


@dataclass(frozen=True)
class CharLM:
    """A character language model: a cell that reads a label and returns logits of the next one.

    `BLANK` stands before and after each text.

    Args:
        cell: recurrent cell.
    """

    cell: rnn.Cell
    input_rank: int = 0
    output_size: int = _LABELS

    def init(self, key: jax.Array, input_size: int = _LABELS, dtype: Any = None) -> PyTree:
        """Draws the parameters."""
        keys = jax.random.split(key)
        features = jnp.zeros(self.cell.output_size or 1, dtype)
        readout = nn.Dense(_LABELS).init(keys[1], features)
        return {"cell": self.cell.init(keys[0], input_size, dtype), "readout": readout}

    def init_state(self, params: PyTree, batch_shape: tuple[int, ...] = ()) -> Any:
        """The state of the cell."""
        return self.cell.init_state(params["cell"], batch_shape)

    def step(self, params: PyTree, state: Any, label: jax.Array) -> tuple[Any, Any]:
        """Reads one label: `(params, state, label) -> (state, logits)`."""
        state, y = self.cell.step(params["cell"], state, jax.nn.one_hot(label, _LABELS))
        return state, nn.Dense(_LABELS).apply(params["readout"], y)


def load_phrases(package: Path | None, held_out: Iterable[str]) -> list[str]:
    """The normalized English phrases and sentences of a dictionary, without held-out texts."""
    pairs = dictionaries.load_german_english(
        package=package, option="--dictionary, or leave it out by --no-english"
    )
    phrases = (
        text for _, text in pairs if len(text.split()) > 1 and text.replace("’", "").isascii()
    )
    return sorted({normalize(text) for text in phrases} - {"", *held_out})


def train_language_model(
    model: CharLM,
    train: Sequence[str],
    phrases: Sequence[str],
    valid: Sequence[str],
    *,
    options: Options,
    **settings: Any,
) -> Outcome:
    """Trains on texts, and on phrases if there are any, which then make three quarters of a batch.

    The best parameters are those for the texts of `valid`; `settings` are those of `fit`.
    """
    steps, average = (3000, 0.99) if phrases else (600, 0.95)
    changes = dict(steps=min(steps, options.steps), learning_rate=4e-3, weight_decay=0.1)
    changes |= dict(average=average, warmup=20, validate_every=100, checkpoint_every=100)
    options = replace(options, **changes)
    held_out = _join(valid, range(len(valid)))[:, None]
    phrase_rows = 3 * _ROWS // 4 if phrases else 0
    shuffled = np.random.default_rng(options.seed).permutation(len(phrases))
    phrase_stream = _join(phrases, np.resize(shuffled, max(len(phrases), _TIME)) if phrases else ())

    def loss_of(params, labels):
        inputs, targets = labels[:-1], labels[1:]
        _, logits = rnn.unroll(model, params, inputs, starts=inputs == BLANK)
        logits = logits.astype("float32")
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    def batch(step: int) -> np.ndarray:
        random = np.random.default_rng((options.seed, step))
        order = [random.permutation(len(train)) for _ in range(1 + _ROWS * _TIME // len(train))]
        streams = [(phrase_stream, phrase_rows)] if phrases else []
        streams.append((_join(train, np.concatenate(order)), _ROWS - phrase_rows))
        begins = [random.integers(0, len(stream) - _TIME, rows) for stream, rows in streams]
        time = np.arange(_TIME + 1)[:, None]
        pieces = zip(streams, begins, strict=True)
        return np.concatenate([stream[begin + time] for (stream, _), begin in pieces], axis=1)

    validate = jax.jit(loss_of)
    task = Task(
        name="character language model",
        loss=lambda params, carry, batch, key: (loss_of(params, batch), carry),
        batch=batch,
        validate=lambda params: {"loss": float(validate(params, held_out))},
        units=_TIME * _ROWS,
        unit="letters",
        loss_unit="nats per letter",
    )
    params = jax.jit(model.init)(jax.random.key(options.seed))
    return fit(task, params, (), options=options, **settings)


def _join(texts: Sequence[str], order: Iterable[int]) -> np.ndarray:
    """The labels of texts in an order, with `BLANK` before, between and after them."""
    labels = [BLANK]
    for index in order:
        labels += [*encode_letters(texts[index]), BLANK]
    return np.array(labels, np.int32)


# Shallow fusion -----------------------------------------------------------------------------------

WEIGHTS = (0.3, 0.6, 0.9, 1.2, 1.5, 1.8)
BONUSES = (0.0, 1.0, 2.0, 3.0)


def tune_fusion(
    model: CharLM,
    params: PyTree,
    emissions: Sequence[Emissions],
    utterances: Sequence[Utterance],
    width: int,
) -> tuple[LanguageModel, float]:
    """The best weight and bonus by the character error rate on utterances, and that rate.

    On a few dozen utterances neighboring choices differ by chance, so the error rates are smoothed
    over the grid first.
    """
    grid = [[LanguageModel(model, params, None, w, bonus) for bonus in BONUSES] for w in WEIGHTS]
    rate = lambda fusion: character_error_rate(transcribe(emissions, width, fusion), utterances)  # noqa: E731
    rates = np.array([[rate(fusion) for fusion in row] for row in grid])
    row, column = smoothed_argmin(rates)
    return grid[row][column], float(rates[row, column])


def smoothed_argmin(table: np.ndarray) -> tuple[int, int]:
    """Where the mean over a 3 x 3 neighborhood is least; the border repeats its nearest values."""
    means = ndimage.uniform_filter(table, 3, mode="nearest")
    row, column = np.unravel_index(np.argmin(means), means.shape)
    return int(row), int(column)
