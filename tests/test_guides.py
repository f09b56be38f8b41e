"""The code of the guides runs, and prints what they show.

The blocks of a page are one program. Where a page shows output, in a block of the language `text`,
the program prints it. Pages with assertions of their own have a test of their own.
"""

import jax
import pytest

from tests.support.pages import DOCS, blocks, pages, run
from tests.support.pictures import assert_same_picture

ELSEWHERE = {
    "devices.md": "tests/test_site.py",
    "fixed_points.md": "tests/test_analysis_guides.py",
    "learn/backpropagation.md": "tests/test_learn.py",
    "online_learning.md": "tests/test_online_guide.py",
    "parallel_in_time.md": "tests/test_site.py",
    "quickstart.md": "tests/test_guides.py",
    "recurrent_policies.md": "tests/test_analysis_guides.py",
    "serving.md": "tests/export/test_serving.py",
}
NEEDS = {"accelerators.md": (0, 11)}
"""The JAX release that a page needs."""
GUIDES = [
    name
    for name in pages()
    if blocks(name) and name not in ELSEWHERE and not name.startswith("coming_from/")
]


def test_pages_with_tests_of_their_own_are_named_there():
    for page, test in ELSEWHERE.items():
        text = (DOCS.parent / test).read_text(encoding="utf-8")
        assert page in text and (DOCS / page).is_file()
        assert blocks(page)


@pytest.mark.thorough
@pytest.mark.parametrize("page", GUIDES)
def test_the_code_runs_and_prints_what_the_page_shows(page, capsys, tmp_path, monkeypatch):
    if jax.__version_info__ < NEEDS.get(page, ()):
        pytest.skip(f"{page} needs JAX {NEEDS[page]}")
    monkeypatch.chdir(tmp_path)
    run(page)
    printed = capsys.readouterr().out
    for shown in blocks(page, "text"):
        assert shown in printed


def test_the_quickstart_learns():
    names = run("quickstart.md")
    assert names["losses"][-20:].mean() < 0.1 < names["losses"][:10].mean()
    assert names["mine_losses"][-20:].mean() < 0.15


def test_the_picture_of_the_contract_shows_what_the_contract_says():
    from docs.tools.sequences_plot import ROWS, counts

    shown = {name: counts(arguments).T.tolist() for name, arguments in ROWS.items()}
    assert shown == {
        "lengths = [8, 5]": [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 0, 0, 0]],
        "mask": [[1, 2, 0, 0, 3, 4, 5, 6], [1, 2, 3, 4, 5, 0, 0, 6]],
        "starts": [[1, 2, 3, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6, 1, 2]],
        "both": [[1, 2, 3, 4, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]],
    }


def test_the_picture_is_current(tmp_path):
    from docs.tools.sequences_plot import PICTURE, draw

    draw(tmp_path / "picture.svg")
    assert_same_picture(tmp_path / "picture.svg", PICTURE, "python -m docs.tools.sequences_plot")
