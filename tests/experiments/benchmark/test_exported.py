"""The table of exported models."""

import json

import jax
import pytest

import jaxrnn as rnn
from docs.tools import serving_table
from experiments.benchmark import exported


def test_the_table_has_every_cell_and_form(tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra: onnx")
    sizes = {"time": 5, "rows": 2, "inputs": 3, "hidden": 4, "rounds": 2, "seconds": 0.0}
    with jax.enable_x64(False):
        lines = exported.main(exported.Config(**sizes, out=tmp_path / "times.json"))
    forms = [line.split("  ")[0] for line in lines]
    assert forms == ["LSTM", "LSTM", "GRU", "GRU", "user's cell"]
    assert all(float(line.split()[-1]) > 0 for line in lines)
    assert "5x2x3x4" in capsys.readouterr().out
    written = json.loads((tmp_path / "times.json").read_text())
    assert {"processor", "threads", "versions", "date"} <= written["machine"].keys()
    table = serving_table.exported_table(written).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:7]] == forms
    with jax.enable_x64(False), pytest.raises(ArithmeticError, match="got a difference"):
        exported.main(exported.Config(**sizes, tolerance=0.0))


def test_the_body_of_a_users_cell_has_one_product():
    pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")
    with jax.enable_x64(False):
        cell = exported.user_cell(4)
        params = cell.init(jax.random.key(0), 3, "float32")
        x = jax.ShapeDtypeStruct((1, 3), "float32")
        graph = rnn.export.to_onnx(cell, params, x=x).graph
    (scan,) = (node for node in graph.node if node.op_type == "Scan")
    (body,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
    inside = [node.op_type for node in body.node]
    assert inside.count("MatMul") == 1 and len(inside) <= 11  # the inputs' product is outside
    assert [node.op_type for node in graph.node].count("MatMul") == 1
