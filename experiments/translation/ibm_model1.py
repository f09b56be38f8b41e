"""IBM Model 1: the word-by-word baseline of translation.

Brown et al., "The mathematics of statistical machine translation", 1993. The alignment of target
words to source words is hidden, and expectation-maximization estimates t(target | source). Each
source has an empty word, for target words that translate none of its words, like the "to" of
"to take".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.translation.subwords import SPACE, join, words

EMPTY = 0  # the id of the empty word


@dataclass(frozen=True)
class IBMModel1:
    """The most probable target word of each source word.

    Args:
        table: words with the spaces before them; lowercase source words.
    """

    table: dict[str, str]

    @classmethod
    def fit(cls, pairs: Sequence[tuple[str, str]], iterations: int = 5) -> "IBMModel1":
        """Estimates the table from pairs of texts.

        Example:
            >>> pairs = [("das Haus", "the house"), ("das Buch", "the book"), ("Buch", "book")]
            >>> IBMModel1.fit(pairs).translate("das Haus")
            'the house'
        """
        source_ids: dict[str, int] = {"": EMPTY}
        target_ids: dict[str, int] = {}
        left, right, group = [], [], []
        for source, target in pairs:
            sources = [source_ids.setdefault(w.lower(), len(source_ids)) for w in words(source)]
            sources.append(EMPTY)
            for word in words(target):
                occurrence = group[-1] + 1 if group else 0
                left += sources
                right += [target_ids.setdefault(word, len(target_ids))] * len(sources)
                group += [occurrence] * len(sources)
        # A link joins a source and a target word of one pair. The links of one target word there
        # form a group, which shares a count of 1.
        links = np.array(left, np.int64) * len(target_ids) + np.array(right, np.int64)
        links, which = np.unique(links, return_inverse=True)
        (source, target), groups = np.divmod(links, len(target_ids)), np.array(group, np.int64)
        probabilities = np.ones(len(links))
        for _ in range(iterations):
            share = probabilities[which]
            share /= np.bincount(groups, share)[groups]
            counts = np.bincount(which, share, len(links))
            probabilities = counts / np.bincount(source, counts)[source]
        order = np.lexsort((-probabilities, source))
        best = order[np.unique(source[order], return_index=True)[1]]
        source_words, target_words = list(source_ids), list(target_ids)
        return cls({source_words[source[i]]: target_words[target[i]] for i in best[1:]})

    def translate(self, text: str) -> str:
        """Translates word by word; unknown words and a capital first letter are kept."""
        found = join(map(self.gloss, words(text)))
        return found[:1].upper() + found[1:] if text[:1].isupper() else found

    def gloss(self, word: str) -> str:
        """The target word of one of the `words` of a text, listed with or without a space."""
        lower = word.lower()
        other = lower[1:] if lower.startswith(SPACE) else SPACE + lower
        return self.table.get(lower, self.table.get(other, word))
