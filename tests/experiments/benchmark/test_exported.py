"""The table of exported models."""

import jax
import pytest

from experiments.benchmark import exported


def test_the_table_has_every_cell_and_form(capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra: onnx")
    sizes = {"time": 5, "rows": 2, "inputs": 3, "hidden": 4, "rounds": 2, "seconds": 0.0}
    with jax.enable_x64(False):
        lines = exported.main(exported.Config(**sizes))
    forms = [line.split("  ")[0] for line in lines]
    assert forms == ["LSTM", "LSTM", "GRU", "GRU", "user's cell"]
    assert all(float(line.split()[-1]) > 0 for line in lines)
    assert "5x2x3x4" in capsys.readouterr().out
    with jax.enable_x64(False), pytest.raises(ArithmeticError, match="got a difference"):
        exported.main(exported.Config(**sizes, tolerance=0.0))
