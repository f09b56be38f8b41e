r"""Parts of words: rare words are spelled with frequent parts, so that no word is unknown.

Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016:
begin with characters, and again and again join the pair of neighbours that is most frequent within
the words of a text. A space belongs to the word that follows it, and is written "▁", so the text
comes back by putting the parts together.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

SPACE = "▁"
_WORD = re.compile(rf"{SPACE}?(?:\w+|[^\w{SPACE}])")


def words(text: str) -> list[str]:
    """The words and signs of a text, each with the space before it.

    Example:
        >>> words("Ja, so ist's.")
        ['▁Ja', ',', '▁so', '▁ist', "'", 's', '.']
    """
    return _WORD.findall(SPACE + SPACE.join(text.split()))


def join(parts: Iterable[str]) -> str:
    """The text that parts make.

    Example:
        >>> join(["▁Ja", ",", "▁s", "o"])
        'Ja, so'
    """
    return "".join(parts).replace(SPACE, " ").strip()


@dataclass(frozen=True)
class Subwords:
    """What was learned: which neighbours to join, the most urgent first.

    Args:
        merges: pairs of parts.
    """

    merges: tuple[tuple[str, str], ...]

    @classmethod
    def learn(cls, texts: Iterable[str], count: int) -> "Subwords":
        """Learns so many merges, or fewer if no pair occurs twice any more.

        Example:
            >>> Subwords.learn(["low lower lowest low"], 3).merges
            (('l', 'o'), ('lo', 'w'), ('▁', 'low'))
        """
        counts = Counter(word for text in texts for word in words(text))
        spelled = [list(word) for word in counts]
        weights = list(counts.values())
        totals: Counter[tuple[str, str]] = Counter()
        where = defaultdict(set)
        for number, parts in enumerate(spelled):
            for pair in zip(parts, parts[1:], strict=False):
                totals[pair] += weights[number]
                where[pair].add(number)
        # Entries of the heap grow old as totals change; only one that is up to date counts.
        heap = [(-total, pair) for pair, total in totals.items()]
        heapq.heapify(heap)
        merges = []
        while heap and len(merges) < count:
            negative, pair = heapq.heappop(heap)
            if totals[pair] != -negative or negative > -2:
                continue
            merges.append(pair)
            changed = set()
            for number in where.pop(pair):
                before = spelled[number]
                after = spelled[number] = _joined(before, pair)
                for parts, sign in ((before, -1), (after, 1)):
                    for other in zip(parts, parts[1:], strict=False):
                        totals[other] += sign * weights[number]
                        changed.add(other)
                for other in zip(after, after[1:], strict=False):
                    where[other].add(number)
            for other in changed:
                heapq.heappush(heap, (-totals[other], other))
        return cls(tuple(merges))

    def split(self, text: str) -> list[str]:
        """The parts of a text.

        Example:
            >>> Subwords((("l", "o"), ("lo", "w"))).split("lowest")
            ['▁', 'low', 'e', 's', 't']
        """
        return [part for word in words(text) for part in self._split_word(word)]

    def _split_word(self, word: str) -> list[str]:
        if word not in self._known:
            parts = list(word)
            while len(parts) > 1:
                pairs = zip(parts, parts[1:], strict=False)
                pair = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
                if pair not in self._ranks:
                    break
                parts = _joined(parts, pair)
            self._known[word] = parts
        return self._known[word]

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _known(self) -> dict[str, list[str]]:
        return {}


def _joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts, with every occurrence of a pair joined, from the left."""
    result, place = [], 0
    while place < len(parts):
        both = place + 1 < len(parts) and (parts[place], parts[place + 1]) == pair
        result.append(parts[place] + parts[place + 1] if both else parts[place])
        place += 1 + both
    return result
