"""The baseline of translation: every word by the word that most likely stands for it, in order.

Brown et al., "The mathematics of statistical machine translation", 1993, model 1: which target word
a source word stands for is hidden, and found by expectation-maximisation over the training pairs.
Here each source word hands out its probability, t(target | source), and the likeliest is taken.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments._subwords import SPACE, join, words


@dataclass(frozen=True)
class WordForWord:
    """The likeliest target word of each source word.

    Args:
        table: words with the spaces before them; sources in small letters.
    """

    table: dict[str, str]

    @classmethod
    def learn(cls, pairs: Sequence[tuple[str, str]], rounds: int = 5) -> "WordForWord":
        """Learns from pairs of texts.

        Example:
            >>> pairs = [("das Haus", "the house"), ("das Buch", "the book"), ("Buch", "book")]
            >>> WordForWord.learn(pairs).translate("das Haus")
            'the house'
        """
        sources: dict[str, int] = {}
        targets: dict[str, int] = {}
        left, right, group = [], [], []
        for text, other in pairs:
            reads = [sources.setdefault(word.lower(), len(sources)) for word in words(text)]
            writes = [targets.setdefault(word, len(targets)) for word in words(other)]
            for write in writes:
                base = group[-1] + 1 if group else 0
                left += reads
                right += [write] * len(reads)
                group += [base] * len(reads)
        # A link is a source word and a target word of one pair; a group is all links of one target
        # word there, which share its count of 1.
        links, which = np.unique(np.stack([left, right]), axis=1, return_inverse=True)
        chances = np.ones(links.shape[1])
        for _ in range(rounds):
            share = chances[which]
            share /= np.bincount(group, share)[np.array(group)]
            counts = np.bincount(which, share, links.shape[1])
            chances = counts / np.bincount(links[0], counts)[links[0]]
        best = np.lexsort((-chances, links[0]))
        first = best[np.unique(links[0][best], return_index=True)[1]]
        names, others = list(sources), list(targets)
        return cls({names[links[0, i]]: others[links[1, i]] for i in first})

    def translate(self, text: str) -> str:
        """The words of a text in their order; a word that is not known stays as it is.

        The first letter becomes a capital, if the source's is.
        """
        found = join(
            self.table.get(word.lower(), self.table.get(_other(word.lower()), word))
            for word in words(text)
        )
        return found[:1].upper() + found[1:] if text[:1].isupper() else found


def _other(word: str) -> str:
    """The same word with the space before it taken away, or put there."""
    return word[1:] if word.startswith(SPACE) else SPACE + word


def most_common(texts: Sequence[str]) -> str:
    """The text that occurs most often; of several, the first in alphabetical order."""
    counts = Counter(texts)
    return min(counts, key=lambda text: (-counts[text], text))
