"""BLEU and chrF of translations, and the choice among several by the second of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.common.errors import UserError


class Scores(NamedTuple):
    """How good translations are, by sacrebleu: both from 0 to 100, more is better."""

    bleu: float
    chrf: float


def score(found: list[str], wanted: list[str]) -> Scores:
    """BLEU and chrF of translations, one of each sentence, over all of them."""
    sacrebleu = _sacrebleu()
    bleu = sacrebleu.corpus_bleu(found, [wanted]).score
    return Scores(bleu, sacrebleu.corpus_chrf(found, [wanted]).score)


def consensus(candidates: Sequence[str]) -> str:
    """The candidate that is most like all of them, the first of these if there are several.

        argmax_y Σ_y' chrF(y, y')

    It is the choice of least risk where each of them is as likely to be what was wanted as the
    others: S. Kumar and W. Byrne, "Minimum Bayes-risk decoding for statistical machine
    translation", 2004. What the likeliest translation leaves out, most of the others may hold.
    """
    likeness = _sacrebleu().CHRF().sentence_score
    gains = [sum(likeness(one, [other]).score for other in candidates) for one in candidates]
    return candidates[int(np.argmax(gains))]


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise UserError(
            "translations are scored by sacrebleu, which is not installed here: "
            "run `python -m pip install sacrebleu`, and the same command again"
        ) from error
    return sacrebleu
