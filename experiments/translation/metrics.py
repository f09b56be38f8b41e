"""BLEU and chrF, and the choice among beams by minimum Bayes risk.

M. Post, "A call for clarity in reporting BLEU scores", 2018 (sacrebleu).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import sacrebleu


class Metrics(NamedTuple):
    """Corpus BLEU and chrF by sacrebleu, from 0 to 100."""

    bleu: float
    chrf: float


def evaluate(hypotheses: list[str], references: list[str]) -> Metrics:
    """BLEU and chrF of translations, one per sentence."""
    bleu = sacrebleu.corpus_bleu(hypotheses, [references]).score
    return Metrics(bleu, sacrebleu.corpus_chrf(hypotheses, [references]).score)


def minimum_bayes_risk(candidates: Sequence[str]) -> str:
    """The first candidate that maximizes Σ_y' chrF(y, y') over all candidates y'.

    S. Kumar and W. Byrne, "Minimum Bayes-risk decoding for statistical machine translation", 2004,
    with equally likely candidates.
    """
    chrf = sacrebleu.CHRF().sentence_score
    gains = [sum(chrf(one, [other]).score for other in candidates) for one in candidates]
    return candidates[int(np.argmax(gains))]
