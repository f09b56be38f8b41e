"""The benchmark of learning rules: gradients agree, memory is flat, files are written."""

import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxrnn as rnn
from docs.tools.learning_rules_table import MARK, write
from experiments.benchmark import learning_rules
from jaxrnn.learning import RTRL


def test_the_stream_has_the_gradient_of_back_propagation():
    cell = rnn.GRU(3)
    params = cell.init(jax.random.key(0), 2)
    work = params, jax.random.key(1)
    by_stream = jax.jit(learning_rules.by_stream(cell, 6, 2, RTRL()))(*work)
    back = jax.jit(learning_rules.by_back_propagation(cell, 6, 2, None))(*work)
    for got, want in zip(by_stream, back, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@pytest.mark.thorough
def test_it_measures_and_writes_its_files(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    found = learning_rules.main(learning_rules.Config(quick=True, out=tmp_path), console)
    assert len(found.rows) == 14 and len(found.costs) == 3
    memory = {(row.rule, row.steps): row.temporary_bytes for row in found.rows}
    assert memory["RTRL()", 10] == memory["RTRL()", 40]
    assert memory["back-propagation", 10] < memory["back-propagation", 40]
    assert all(cost.influence <= 2 * cost.parameters for cost in found.costs)
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 14
    assert "SnAp(order=1)" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "memory.png").stat().st_size > 10_000

    page, picture = tmp_path / "page.md", tmp_path / "picture.svg"
    page.write_text(f"Before.\n<!-- {MARK} -->\nold\n<!-- end of {MARK} -->\nAfter.\n")
    write(tmp_path / "results.json", page, picture)
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n") and "old" not in text
    assert "| `RTRL()` | " in text and "| `LRU` | " in text
    assert "microseconds a step" in picture.read_text()
