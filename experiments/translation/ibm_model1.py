"""The baseline of translation: every word by the word that most likely stands for it, in order.

Brown et al., "The mathematics of statistical machine translation", 1993, model 1: which target word
a source word stands for is hidden, and found by expectation-maximisation over the training pairs.
Each source word hands out its probability, t(target | source), and the likeliest is taken. Each
source also has an empty word, for what stands for none of its words, like the "to" of "to take".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.translation.subwords import SPACE, join, words

NOTHING = 0  # the number of the empty word


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
        sources: dict[str, int] = {"": NOTHING}
        targets: dict[str, int] = {}
        left, right, group = [], [], []
        for text, other in pairs:
            reads = [sources.setdefault(word.lower(), len(sources)) for word in words(text)]
            reads.append(NOTHING)
            writes = [targets.setdefault(word, len(targets)) for word in words(other)]
            for write in writes:
                base = group[-1] + 1 if group else 0
                left += reads
                right += [write] * len(reads)
                group += [base] * len(reads)
        # A link is a source word and a target word of one pair; a group is all links of one target
        # word there, which share its count of 1.
        both = np.array(left, np.int64) * len(targets) + np.array(right, np.int64)
        names, which = np.unique(both, return_inverse=True)
        links, groups = np.divmod(names, len(targets)), np.array(group, np.int64)
        chances = np.ones(len(names))
        for _ in range(rounds):
            share = chances[which]
            share /= np.bincount(groups, share)[groups]
            counts = np.bincount(which, share, len(names))
            chances = counts / np.bincount(links[0], counts)[links[0]]
        best = np.lexsort((-chances, links[0]))
        first = best[np.unique(links[0][best], return_index=True)[1]]
        reads, writes = list(sources), list(targets)
        return cls({reads[links[0][i]]: writes[links[1][i]] for i in first[1:]})

    def translate(self, text: str) -> str:
        """The words of a text in their order; a word that is not known stays as it is.

        The first letter becomes a capital, if the source's is.
        """
        found = join(map(self.gloss, words(text)))
        return found[:1].upper() + found[1:] if text[:1].isupper() else found

    def gloss(self, word: str) -> str:
        """The target word of one of the `words` of a text."""
        return self.table.get(word.lower(), self.table.get(_other(word.lower()), word))


def _other(word: str) -> str:
    """The same word with the space before it taken away, or put there."""
    return word[1:] if word.startswith(SPACE) else SPACE + word
