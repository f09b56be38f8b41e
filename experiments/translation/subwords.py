r"""Subword units by byte-pair encoding (BPE), so that no word is unknown.

Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016, in
the form of Kudo and Richardson, "SentencePiece: a simple and language independent subword
tokenizer", 2018: a space belongs to the word that follows it and is written "▁", so that joined
units give the text back.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sentencepiece

SPACE = "▁"
_WORD = re.compile(rf"{SPACE}?(?:\w+|[^\w{SPACE}])")


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, each with the space before it.

    Example:
        >>> words("Ja, so ist's.")
        ['▁Ja', ',', '▁so', '▁ist', "'", 's', '.']
    """
    return _WORD.findall(SPACE + SPACE.join(text.split()))


def join(units: Iterable[str]) -> str:
    """The text of words or subword units.

    Example:
        >>> join(["▁Ja", ",", "▁s", "o"])
        'Ja, so'
    """
    return "".join(units).replace(SPACE, " ").strip()


@dataclass(frozen=True, eq=False)
class Subwords:
    """A subword tokenizer.

    Args:
        processor: SentencePiece's.
    """

    processor: Any

    @classmethod
    def learn(cls, texts: Iterable[str], merges: int) -> "Subwords":
        """Learns at most `merges` merges of the most frequent pair within words.

        Example:
            >>> Subwords.learn(["low lower lowest low"], 3).split("lowest lot")
            ['▁low', 'e', 's', 't', '▁', 'lo', 't']
        """
        spaced = ["".join(words(text)) for text in texts]
        special = 3  # unknown, begin and end
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(spaced),
            model_writer=model,
            model_type="bpe",
            vocab_size=merges + len(set().union(*spaced)) + special,
            hard_vocab_limit=False,  # fewer merges where no pair is left
            character_coverage=1.0,
            max_sentence_length=1 << 20,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        return cls(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()))

    def split(self, text: str) -> list[str]:
        """The subword units of a text."""
        return [unit for word in words(text) for unit in self.split_word(word)]

    def split_word(self, word: str) -> list[str]:
        """The subword units of one of the `words` of a text."""
        if word not in self._cache:
            self._cache[word] = self.processor.encode(word, out_type=str)
        return self._cache[word]

    @cached_property
    def _cache(self) -> dict[str, list[str]]:
        return {}
