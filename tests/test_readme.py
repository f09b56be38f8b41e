"""README.md: its examples run, its links lead somewhere, and it stays short."""

import pathlib
import re

from tests.support.pages import run

README = pathlib.Path(__file__).parents[1] / "README.md"
PATH = (README, README.parent / "docs/quickstart.md", README.parent / "docs/own_cell.md")
TEXT = README.read_text(encoding="utf-8")


def test_the_examples_run(capsys):
    names = run("../README.md")
    assert names["ys"].shape == (100, 32, 128)
    assert not names["ys"][80:].any()
    assert names["gradients"]["recurrent"].any()
    assert "all time at once, before the loop" in capsys.readouterr().out


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    assert [link for link in links if not (README.parent / link).is_file()] == []


def test_it_is_read_in_a_few_minutes():
    assert len(TEXT.encode()) <= 9000


def test_the_way_to_a_trained_cell_of_ones_own_is_read_in_nine_minutes():
    """Ten minutes with the time in which the code of the pages runs; words of code count, too."""
    words = re.findall(r"\S*[^\W_]\S*", " ".join(page.read_text("utf-8") for page in PATH))
    assert len(words) / 200 <= 9
