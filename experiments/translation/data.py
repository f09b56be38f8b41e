"""Pairs of sentences: which are held out, and how they become numbers."""

from collections.abc import Callable
from typing import NamedTuple

from experiments.common.data.batching import UNKNOWN, Vocabulary
from experiments.common.data.splits import digest
from experiments.common.errors import UserError
from experiments.translation.ibm_model1 import WordForWord
from experiments.translation.subwords import Subwords, words

Text = tuple[str, str]
GLOSS = "→"


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


class Glosses(NamedTuple):
    """What a dictionary has for each word of a source.

    A table learned from a pair knows that pair too well, better than it knows any that is held out.
    So in training the words of a pair are looked up in a table learned from other pairs: those of
    single words, and that half of all others to which it does not belong.

    Fields:
        whole: learned from all pairs for training.
        halves: for the pairs of each half, learned without them.
    """

    whole: WordForWord
    halves: tuple[WordForWord, WordForWord]

    @classmethod
    def of(cls, texts: Texts, whole: WordForWord) -> "Glosses":
        """Learned from the pairs for training, as `whole` was from all of them."""
        halves: tuple[list[Text], list[Text]] = ([], [])
        for pair in texts.train + texts.phrases:
            halves[1 - _half(pair[0])].append(pair)
        one, other = (WordForWord.learn(half + texts.words) for half in halves)
        return cls(whole, (one, other))

    def table(self, source: str, training: bool) -> WordForWord:
        """The one in which the words of a source are looked up."""
        return self.halves[_half(source)] if training else self.whole


def _half(source: str) -> int:
    return digest(_alike(source)) % 2


class Symbols(NamedTuple):
    """How texts become numbers: that of each part of a word.

    A source has after the parts of each word those of its gloss, where there are glosses, as other
    symbols than the same parts would be in a source (Dinu et al., "Training neural machine
    translation to apply terminology constraints", 2019, for some terms; here for every word).
    """

    subwords: Subwords
    source: Vocabulary
    target: Vocabulary
    glosses: Glosses | None

    @classmethod
    def of(cls, texts: Texts, merges: int, glosses: Glosses | None = None) -> "Symbols":
        """Learned from the pairs for training."""
        pairs = texts.train + texts.phrases
        subwords = Subwords.learn((text for pair in pairs for text in pair), merges)
        sides = [[subwords.split(pair[side]) for pair in pairs] for side in (0, 1)]
        source, target = map(Vocabulary.of, sides)
        if glosses is not None:
            source = Vocabulary((*source.symbols, *map(GLOSS.__add__, target.symbols)))
        return cls(subwords, source, target, glosses)

    @property
    def first_gloss(self) -> int | None:
        """The number of a source's first symbol that is a target's; the others follow in order."""
        return None if self.glosses is None else len(self.source) - len(self.target) + UNKNOWN + 1

    def parts(self, text: str, training: bool = False) -> list[str]:
        """The symbols of a source."""
        if self.glosses is None:
            return self.subwords.split(text)
        table, parts = self.glosses.table(text, training), []
        for word in words(text):
            parts += self.subwords.split_word(word)
            if any(map(str.isalnum, word)):
                parts += map(GLOSS.__add__, self.subwords.split_word(table.gloss(word)))
        return parts

    def number(
        self, pairs: list[Text], training: bool = False
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The numbers of both sides."""
        return (
            [self.source.encode(self.parts(source, training)) for source, _ in pairs],
            [self.target.encode(self.subwords.split(target)) for _, target in pairs],
        )
