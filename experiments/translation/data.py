"""Pairs of sentences: the split, glosses, and token ids."""

from collections.abc import Callable
from typing import NamedTuple

from experiments.common.data.batching import UNKNOWN, Vocabulary
from experiments.common.data.dictionaries import Pair
from experiments.common.data.splits import digest
from experiments.common.errors import UserError
from experiments.translation.ibm_model1 import IBMModel1
from experiments.translation.subwords import Subwords, words

GLOSS = "→"


class Parts(NamedTuple):
    """Sentence pairs to train, validate and test; `phrases` and single `words` only train."""

    train: list[Pair]
    phrases: list[Pair]
    words: list[Pair]
    valid: list[Pair]
    test: list[Pair]


def split(pairs: list[Pair], chosen: Callable[[Pair], bool]) -> Parts:
    """Splits by a hash of the source: 2.5 % of the chosen pairs for validation, 5 % for the test.

    No pair for training shares a side with a held-out one, whatever the case and punctuation.
    """
    parts = Parts([], [], [], [], [])
    sentences = {pair: None for pair in pairs if chosen(pair)}
    for pair in sentences:
        thousandth = digest(_normalize(pair[0])) % 1000
        if thousandth < 75:
            (parts.test if thousandth < 50 else parts.valid).append(pair)
    if not parts.valid or not parts.test:
        raise UserError(
            f"data: {len(sentences)} sentences give {len(parts.valid)} for validation and "
            f"{len(parts.test)} for the test; pass more pairs"
        )
    held_out = parts.valid + parts.test
    sides = [{_normalize(pair[side]) for pair in held_out} for side in (0, 1)]
    for pair in pairs:
        if any(_normalize(text) in side for text, side in zip(pair, sides, strict=True)):
            continue
        if pair in sentences:
            parts.train.append(pair)
        else:
            single = any(len(text.split()) == 1 for text in pair)
            (parts.words if single else parts.phrases).append(pair)
    test = {_normalize(pair[1]) for pair in parts.test}
    return parts._replace(valid=[pair for pair in parts.valid if _normalize(pair[1]) not in test])


def is_sentence(pair: Pair) -> bool:
    """Whether both sides end with a full stop, an exclamation mark or a question mark."""
    return all(text[-1] in ".!?" for text in pair) and len(pair[0].split()) > 2


def _normalize(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())


class Glosses(NamedTuple):
    """Word-by-word translations of a source by IBM Model 1.

    A table fitted to a pair predicts it better than a held-out pair. So in training the words of a
    pair are looked up in a table fitted to other pairs: single words, and the half of all other
    pairs that it does not belong to.

    Attributes:
        whole: fitted to all training pairs.
        halves: for the pairs of each half, fitted without them.
    """

    whole: IBMModel1
    halves: tuple[IBMModel1, IBMModel1]

    @classmethod
    def fit(cls, parts: Parts, whole: IBMModel1) -> "Glosses":
        """Fits the tables of the halves to the training pairs."""
        halves: tuple[list[Pair], list[Pair]] = ([], [])
        for pair in parts.train + parts.phrases:
            halves[1 - _half(pair[0])].append(pair)
        first, second = (IBMModel1.fit(half + parts.words) for half in halves)
        return cls(whole, (first, second))

    def table(self, source: str, training: bool) -> IBMModel1:
        """The table for the words of a source."""
        return self.halves[_half(source)] if training else self.whole


def _half(source: str) -> int:
    return digest(_normalize(source)) % 2


class Tokenizer(NamedTuple):
    """Token ids of texts.

    With glosses, the subword units of each source word are followed by those of its gloss, as
    symbols of their own (Dinu et al., "Training neural machine translation to apply terminology
    constraints", 2019, for some terms; here for every word).
    """

    subwords: Subwords
    source: Vocabulary
    target: Vocabulary
    glosses: Glosses | None

    @classmethod
    def fit(cls, parts: Parts, merges: int, glosses: Glosses | None = None) -> "Tokenizer":
        """Learns subwords and vocabularies from the training pairs."""
        pairs = parts.train + parts.phrases
        subwords = Subwords.learn((text for pair in pairs for text in pair), merges)
        sides = [[subwords.split(pair[side]) for pair in pairs] for side in (0, 1)]
        source, target = map(Vocabulary.build, sides)
        if glosses is not None:
            source = Vocabulary((*source.symbols, *map(GLOSS.__add__, target.symbols)))
        return cls(subwords, source, target, glosses)

    @property
    def first_gloss(self) -> int | None:
        """The first source symbol that is a gloss; the others follow in the target's order."""
        return None if self.glosses is None else len(self.source) - len(self.target) + UNKNOWN + 1

    def split_source(self, text: str, training: bool = False) -> list[str]:
        """The symbols of a source."""
        if self.glosses is None:
            return self.subwords.split(text)
        table, symbols = self.glosses.table(text, training), []
        for word in words(text):
            symbols += self.subwords.split_word(word)
            if any(map(str.isalnum, word)):
                symbols += map(GLOSS.__add__, self.subwords.split_word(table.gloss(word)))
        return symbols

    def encode(
        self, pairs: list[Pair], training: bool = False
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The token ids of both sides."""
        return (
            [self.source.encode(self.split_source(source, training)) for source, _ in pairs],
            [self.target.encode(self.subwords.split(target)) for _, target in pairs],
        )
