r"""Parts of words: rare words are spelled with frequent parts, so that no word is unknown.

Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", 2016:
begin with characters, and again and again join the pair of neighbours that is most frequent within
the words of a text; as SentencePiece does it (Kudo and Richardson, "SentencePiece: a simple and
language independent subword tokenizer", 2018). A space belongs to the word that follows it, and is
written "▁", so the text comes back by putting the parts together.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.common.errors import UserError

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


@dataclass(frozen=True, eq=False)
class Subwords:
    """What was learned.

    Args:
        processor: SentencePiece's.
    """

    processor: Any

    @classmethod
    def learn(cls, texts: Iterable[str], merges: int) -> "Subwords":
        """Learns so many merges, or fewer if there are no more pairs to join.

        Example:
            >>> Subwords.learn(["low lower lowest low"], 3).split("lowest lot")
            ['▁low', 'e', 's', 't', '▁', 'lo', 't']
        """
        try:
            import sentencepiece
        except ImportError as error:
            raise UserError(
                "parts of words are learned by SentencePiece, which is not installed here: "
                "run `python -m pip install sentencepiece`, and the same command again"
            ) from error
        spaced = ["".join(words(text)) for text in texts]
        signs = 3  # unknown, begin and end, which it always has
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(spaced),
            model_writer=model,
            model_type="bpe",
            vocab_size=merges + len(set().union(*spaced)) + signs,
            hard_vocab_limit=False,  # fewer, where nothing is left to join
            character_coverage=1.0,
            max_sentence_length=1 << 20,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        return cls(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()))

    def split(self, text: str) -> list[str]:
        """The parts of a text."""
        return [part for word in words(text) for part in self.split_word(word)]

    def split_word(self, word: str) -> list[str]:
        """The parts of one of the `words` of a text."""
        if word not in self._known:
            self._known[word] = self.processor.encode(word, out_type=str)
        return self._known[word]

    @cached_property
    def _known(self) -> dict[str, list[str]]:
        return {}
