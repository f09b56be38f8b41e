"""Pairs of sentences: which are held out, and how they become numbers."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from experiments._errors import UserError
from experiments._sequences import Vocabulary
from experiments._subwords import Subwords

Text = tuple[str, str]


class Texts(NamedTuple):
    """Pairs of texts; those of `phrases` are for training, too."""

    train: list[Text]
    phrases: list[Text]
    words: list[Text]
    valid: list[Text]
    test: list[Text]


def split(pairs: list[Text], chosen: Callable[[Text], bool]) -> Texts:
    """Sentences to train, to choose (2.5 %) and to test (5 %), and what else there is to train."""
    texts = Texts([], [], [], [], [])
    sentences = [pair for pair in pairs if chosen(pair)]
    for pair in sentences:
        thousandth = digest(_alike(pair[0])) % 1000
        if thousandth < 75:
            (texts.test if thousandth < 50 else texts.valid).append(pair)
    if not texts.valid or not texts.test:
        raise UserError(
            f"data: of {len(sentences)} sentences none is left to choose or to test; give more"
        )
    held_out = texts.valid + texts.test
    sides = [{_alike(pair[side]) for pair in held_out} for side in (0, 1)]
    whole = set(sentences)
    for pair in pairs:
        if any(_alike(text) in seen for text, seen in zip(pair, sides, strict=True)):
            continue
        if pair in whole:
            texts.train.append(pair)
        else:
            single = any(len(text.split()) == 1 for text in pair)
            (texts.words if single else texts.phrases).append(pair)
    # A sentence may also stand on both sides of the split by its translation.
    test = {_alike(pair[1]) for pair in texts.test}
    return texts._replace(valid=[pair for pair in texts.valid if _alike(pair[1]) not in test])


def is_sentence(pair: Text) -> bool:
    """Whether both sides end as sentences do."""
    return all(text[-1] in ".!?" for text in pair) and len(pair[0].split()) > 2


def _alike(text: str) -> str:
    """A text without what does not count when texts are compared."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def digest(text: str) -> int:
    """A number that depends on a text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class Symbols(NamedTuple):
    """How texts become numbers."""

    subwords: Subwords
    source: Vocabulary
    target: Vocabulary

    @classmethod
    def of(cls, texts: Texts, merges: int) -> "Symbols":
        """Learned from the pairs for training."""
        pairs = texts.train + texts.phrases
        subwords = Subwords.learn((text for pair in pairs for text in pair), merges)
        sides = [[subwords.split(pair[side]) for pair in pairs] for side in (0, 1)]
        return cls(subwords, *map(Vocabulary.of, sides))

    def number(self, pairs: list[Text]) -> tuple[list[list[int]], list[list[int]]]:
        """The numbers of both sides."""
        return (
            [self.source.encode(self.subwords.split(source)) for source, _ in pairs],
            [self.target.encode(self.subwords.split(target)) for _, target in pairs],
        )
