"""The text uses the field's terms: phrases that were once written here stay out."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in (
        "jaxrnn/**/*.py",
        "experiments/**/*.py",
        "docs/**/*.py",
        "docs/**/*.md",
        "*/README.md",
    )
    for path in ROOT.glob(pattern)
) + [ROOT / "README.md"]
INSTEAD = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again, from scratch",
    r"whoever|who wants": "anyone who",
    r"by heart": "memorize",
    r"likeliest": "most probable",
    r"read-outs?": "output layer, readout",
    r"laid (over|out|open)|lies on": "sharded over; inlined",
    r"taken apart|put together": "split; concatenated",
    r"beside it": "compared with, next to",
    r"what it says|says itself|always says": "predicts; explains",
    r"letters wrong|words wrong|wrong letters": "CER, WER",
    r"words? one by one": "word-by-word baseline (IBM Model 1)",
    r"running averages? of (the )?(parameters|weights)": "exponential moving average (EMA)",
    r"stops early": "early stopping",
    r"model of (texts|letters|the letters)": "character language model",
    r"beams? (listen|advise)\w*": "shallow fusion",
    r"nothing better since": "early stopping",
    r"can(not)? bear": "undefined at",
    r"eat the caller": "donate",
    r"worth nothing": "not worth",
    r"taken for whom": "confusion matrix",
    r"in decibels' kin": "log-mel",
}


@pytest.mark.parametrize("phrase", INSTEAD)
def test_the_text_uses_the_terms_of_the_field(phrase):
    pattern = re.compile(rf"\b({phrase})\b", re.IGNORECASE)
    found = [
        f"{page.relative_to(ROOT)}:{number}: {line.strip()}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, f"write {INSTEAD[phrase]!r} instead:\n" + "\n".join(found)
