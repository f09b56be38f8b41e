"""docs/learn/: the gradients by hand, and figures that show what the pages say of them.

The code of the other pages runs in tests/test_guides.py.
"""

import json
import re

import pytest

from docs.tools import (
    cells_memory,
    learn_cells,
    learn_comparisons,
    learn_convolution,
    learn_diagrams,
    learn_efficiency,
    learn_gradients,
    learn_practice,
    learn_tree,
)
from docs.tools.cells_table import all_cells
from docs.tools.experiments_data import load
from tests.support.pages import DOCS, blocks, pages, run
from tests.support.pictures import assert_same_picture


def test_the_gradients_by_hand_agree_with_jax(capsys):
    run("learn/backpropagation.md")
    printed = capsys.readouterr().out
    assert printed == "".join(blocks("learn/backpropagation.md", "text"))
    assert printed.count("within 1e-6 of jax.grad") == 3


def test_what_the_page_says_of_gradients_is_in_the_data():
    data = _gradients()
    cells, longest = data["cells"], data["length"]
    assert all(len(cell["initial"]) == longest + 1 for cell in cells.values())
    solved = {name for name, cell in cells.items() if cell["error"] < 0.01}
    assert solved == {name for name, cell in cells.items() if cell["trained"][-1] > -2}
    assert solved == {"GRU", "LSTM, chrono", "LEM", "LRU"}
    kept = {name for name, cell in cells.items() if cell["initial"][-1] > -1}
    assert kept == {"OrthogonalRNN", "LRU", "LSTM, chrono"}
    biases = data["forget_biases"]
    assert min(biases["chrono"]) > -1 and max(biases["chrono"]) <= 0
    assert [bias for bias, sizes in biases.items() if sizes[-1] > 1] == ["3", "4", "5"]


def test_records_of_what_cells_remember_are_those_of_the_cells():
    records, made = cells_memory.load()["cells"], cells_memory.memory_cells()
    for name, record in records.items():
        assert record["cell"] == repr(made[name])
        assert record["steps"] == cells_memory.steps_of(name)
    brc = records["BRC"]  # the example of the page
    assert -5 < brc["initial"] < -3.5 and -0.6 < brc["trained"] and brc["adding"] < 0.02


@pytest.mark.slow
def test_every_cell_has_a_record_of_what_it_remembers():
    assert cells_memory.missing(cells_memory.load()["cells"]) == []


def test_a_pixel_reaches_one_point_further_with_each_step():
    size = learn_convolution.SIZE
    for t, change in enumerate(learn_convolution.changes(), 1):
        reach = size // 2 - (change > 0).argmax(0)[size // 2]
        assert reach == t


def test_every_cell_is_in_the_picture_of_new_structures():
    drawn = {text.get_text() for text in learn_tree.draw().axes.texts}
    assert set(all_cells()) <= drawn
    assert set(map(str, learn_tree.years().values())) <= drawn


def test_the_bars_are_the_results_of_the_experiments():
    values = {
        (panel.title, bar.label): load(bar.row)[bar.figure].mean
        for panel in learn_practice.PANELS
        for bar in panel.bars
    }
    mape = {label: value for (title, label), value in values.items() if "MAPE" in title}
    assert mape["GRU"] < mape["linear autoregression"] < mape["same time yesterday"]
    assert mape["GRU, weather known"] < mape["linear, weather known"] < mape["GRU"]
    drawn = (learn_diagrams.PICTURES / "practice.svg").read_text("utf-8")
    for panel in learn_practice.PANELS:
        for bar in panel.bars:
            mean = panel.scale * values[panel.title, bar.label]
            assert f"<!-- {mean:{panel.precision}} -->" in drawn  # the text of its paths


def _gradients():
    return json.loads(learn_gradients.DATA.read_text(encoding="utf-8"))


PICTURES = {
    "practice": learn_practice.plot,
    "tree": lambda path: learn_diagrams.save(learn_tree.draw().figure, path),
    "gradient_flow": lambda path: learn_gradients.plot_cells(_gradients(), path),
    "forget_bias": lambda path: learn_gradients.plot_forget_biases(_gradients(), path),
    "every_cell": cells_memory.plot,
    "conv_lstm": learn_convolution.plot,
} | {
    name: lambda path, draw=draw: learn_diagrams.save(draw().figure, path)
    for tool in (learn_diagrams, learn_cells, learn_comparisons, learn_efficiency)
    for name, draw in tool.DIAGRAMS.items()
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_those_of_the_code_and_the_data(name, tmp_path):
    PICTURES[name](tmp_path / "picture.svg")
    committed = learn_diagrams.PICTURES / f"{name}.svg"
    command = f"the docs.tools.learn_* that writes {name}.svg again"
    assert_same_picture(tmp_path / "picture.svg", committed, command)


def test_every_picture_is_on_a_page():
    shown = {
        picture
        for page in pages()
        if page.startswith("learn/")
        for picture in re.findall(
            r"\(\.\./images/learn/(\w+)\.svg\)", (DOCS / page).read_text("utf-8")
        )
    }
    assert shown == set(PICTURES) == {path.stem for path in learn_diagrams.PICTURES.glob("*.svg")}
