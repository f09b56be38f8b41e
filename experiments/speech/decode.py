"""From what the network heard to texts, greedily or by prefix beams, and how wrong they are."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common.metrics import edit_distance
from experiments.speech.corpora import Utterance
from experiments.speech.data import Batch, decode
from experiments.speech.model import Model, Params, log_probabilities
from jaxrnn.decoding import LanguageModel, ctc_beam_search, ctc_greedy


class Heard(NamedTuple):
    """A batch of utterances: their numbers, and log-probabilities `[time, rows, labels]`."""

    which: Any
    log_probs: jax.Array
    lengths: np.ndarray


def hear(model: Model, params: Params, batches: Sequence[tuple[Any, Batch]]) -> list[Heard]:
    """What the network makes of utterances; they can be written down in many ways."""
    return [
        Heard(which, log_probabilities(model, params, batch), batch.lengths[0])
        for which, batch in batches
    ]


def write_down(
    heard: Sequence[Heard], width: int | None = None, language_model: LanguageModel | None = None
) -> list[str]:
    """The texts of utterances: greedily, or by a prefix beam of a width."""
    found = [""] * sum(len(each.which) for each in heard)
    for which, log_probs, lengths in heard:
        if width is None:
            decoded = ctc_greedy(log_probs, lengths=lengths)
        else:
            best = ctc_beam_search(
                log_probs, width=width, lengths=lengths, language_model=language_model
            )
            decoded = jax.tree.map(lambda leaf: leaf[..., 0], best)
        tokens, counts = np.asarray(decoded.tokens), np.asarray(decoded.lengths)
        for row, index in enumerate(which):
            found[index] = decode(tokens[: counts[row], row])
    return found


def error_rate(found: Sequence[str], utterances: Sequence[Utterance]) -> float:
    """Edits for each letter of all texts."""
    edits = sum(edit_distance(f, u.text) for f, u in zip(found, utterances, strict=True))
    return edits / sum(len(utterance.text) for utterance in utterances)
