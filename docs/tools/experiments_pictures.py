"""The pictures of docs/learn/practice.md and experiments/README.md that runs have drawn.

    python -m docs.tools.experiments_pictures    writes those that are there, between their marks

`docs.tools.experiments_data` keeps a picture of a run with its command and date, which stand below
it on the page.
"""

import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from docs.tools.experiments_data import PICTURES
from docs.tools.experiments_table import PAGE
from docs.tools.pages import DOCS, write_section

PRACTICE = DOCS / "learn" / "practice.md"


class Picture(NamedTuple):
    """A picture on a page: its file without ending, a description, and the text below it."""

    name: str
    page: Path
    alt: str
    text: str


ALL = (
    Picture(
        "char_lm",
        PRACTICE,
        "Training and validation loss of the character language model by step",
        "The training loss is that of 64 characters a row with dropout, the validation loss that "
        "of the last tenth of the text without.",
    ),
    Picture(
        "speech",
        PRACTICE,
        "Log-mel features of a held-out prompt above the probabilities of letters and blank",
        "A held-out prompt: each letter is a short peak between blanks, at a time that no "
        "transcript gave.",
    ),
    Picture(
        "translation",
        PRACTICE,
        "Attention weights of four held-out sentences",
        "Attention weights of four held-out sentences: a row for each subword of the translation, "
        "a column for each of the source and its glosses.",
    ),
    Picture(
        "forecast",
        PRACTICE,
        "A week of forecasts with intervals, and errors and coverage by step ahead",
        "Above, forecasts of a week of the held-out year, each a day ahead, with intervals of 80 "
        "and 95 %. Below, error and coverage by step ahead, of the network and of baselines; the "
        "gray bands are 3 points around 80 and 95 %.",
    ),
    Picture(
        "autoencode",
        PAGE,
        "Codes of weeks, errors by day, and two reconstructed weeks",
        "The codes of all weeks, the error of every day, and two held-out weeks.",
    ),
    Picture(
        "classify",
        PAGE,
        "Confusion matrix and distribution of the margins",
        "Japanese vowels: errors of all seeds on the test part, and how sure the predictions are.",
    ),
    Picture(
        "flip_flop",
        PAGE,
        "States and fixed points of the flip-flop network in three dimensions",
        "States of the network of the first seed, its fixed points with their unstable directions, "
        "and the eigenvalues of their Jacobians.",
    ),
    Picture(
        "memory_rl",
        PAGE,
        "Return by environment steps of every policy in both environments",
        "Mean and range of the return over seeds.",
    ),
)


def section(picture: Picture, pictures: Path = PICTURES) -> str:
    """What stands on the page; nothing where the file is missing."""
    path = pictures / f"{picture.name}.png"
    if not path.exists():
        return ""
    with Image.open(path) as image:
        facts = image.info
    where = Path(os.path.relpath(path, picture.page.parent)).as_posix()
    made = f"`{facts['command']}`, {facts['date']}."
    return f"![{picture.alt}]({where})\n\n{picture.text} {made}"


if __name__ == "__main__":
    for each in ALL:
        write_section(each.page, f"picture of {each.name}", section(each))
