"""docs/learn/: the gradients by hand, and figures that show what the pages say of them.

The code of the other pages runs in tests/test_guides.py.
"""

import json

from docs.tools import learn_gradients, learn_practice, learn_tree
from docs.tools.cells_table import all_cells
from tests.support.pages import blocks, run


def test_the_gradients_by_hand_agree_with_jax(capsys):
    run("learn/backpropagation.md")
    printed = capsys.readouterr().out
    assert printed == "".join(blocks("learn/backpropagation.md", "text"))
    assert printed.count("within 1e-6 of jax.grad") == 3


def test_what_the_page_says_of_gradients_is_in_the_data():
    data = json.loads(learn_gradients.DATA.read_text(encoding="utf-8"))
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


def test_every_cell_is_in_the_picture_of_new_structures():
    drawn = {text.get_text() for text in learn_tree.draw().axes.texts}
    assert set(all_cells()) <= drawn
    assert set(map(str, learn_tree.years().values())) <= drawn


def test_the_results_are_found_in_their_table():
    values = {
        (title, bar.label): float(learn_practice.load(bar))
        for title, bars in learn_practice.PANELS.items()
        for bar in bars
    }
    mape = {label: value for (title, label), value in values.items() if "MAPE" in title}
    assert mape["GRU"] < mape["linear autoregression"] < mape["same time yesterday"]
    assert mape["GRU, weather known"] < mape["linear, weather known"] < mape["GRU"]


def test_the_pictures_are_those_of_the_code(tmp_path):
    committed = learn_gradients.PICTURES
    learn_practice.plot(tmp_path / "practice.svg")
    for name in ("gradient_flow", "forget_bias", "practice", "tree"):
        assert (committed / f"{name}.svg").is_file()
    drawn = (tmp_path / "practice.svg").read_text("utf-8")
    assert drawn.count("<path") == (committed / "practice.svg").read_text("utf-8").count("<path")
