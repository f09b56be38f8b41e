"""The code in docs/serving.md runs, in Python and in Node, on the same numbers."""

import json
import os
import pathlib
import shutil
import subprocess

import jax
import numpy as np
import pytest

from docs.tools import serving_table
from docs.tools.pages import with_section
from tests.support.pages import blocks, run

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The names of the page's Python code, and the folder of its files."""
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} comes with the extra: onnx")
    folder, before = tmp_path_factory.mktemp("serving"), pathlib.Path.cwd()
    os.chdir(folder)
    try:
        names = run(PAGE.name)
    finally:
        os.chdir(before)
    return names, folder


def test_onnxruntime_and_a_stream_give_equal_outputs(served):
    names, _ = served
    np.testing.assert_allclose(names["theirs"], names["ours"], atol=1e-5)
    np.testing.assert_allclose(names["hidden"], names["final"][0].hidden, atol=1e-5)
    np.testing.assert_allclose(names["pieces"], names["whole"], atol=1e-5)


def test_quantization_reaches_the_body_of_a_scan(served):
    import onnx

    _, folder = served
    small = onnx.load(folder / "network-int8.onnx")

    def operators(graph):
        for node in graph.node:
            yield node.op_type
            for attribute in node.attribute:
                yield from operators(attribute.g)

    assert "MatMulInteger" in set(operators(small.graph))


def test_the_program_gives_equal_outputs(served):
    names, _ = served
    np.testing.assert_allclose(names["outputs"]["ys"], names["ours"], atol=1e-5)


def test_the_tables_are_those_of_the_measurements():
    made = serving_table.tables()
    written = TEXT
    for mark, text in made.items():
        written = with_section(written, mark, text)
    assert written == TEXT, "run python -m docs.tools.serving_table"
    assert all(f"<!-- {mark} -->\n" in TEXT for mark in ("exported", "quantized"))


def node_script(folder, number):
    """The command that runs a block of the page in Node."""
    node = shutil.which("node")
    found = node and subprocess.run(
        [node, "-e", "require('onnxruntime-node')"], cwd=folder, capture_output=True
    )
    if not found or found.returncode:
        pytest.skip("Node and its package onnxruntime-node (NODE_PATH) are not installed")
    script = folder / f"serve{number}.js"
    script.write_text(blocks(PAGE.name, "javascript")[number], encoding="utf-8")
    return [node, script]


def test_node_gives_equal_outputs(served):
    names, folder = served
    script = node_script(folder, 0)
    xs = np.asarray(names["xs"])
    given = {"data": xs.ravel().tolist(), "dims": xs.shape}
    (folder / "xs.json").write_text(json.dumps(given))
    command = [*script, "network.onnx", "xs.json", "ys.json"]
    subprocess.run(command, check=True, cwd=folder)
    read = json.loads((folder / "ys.json").read_text())
    lengths = np.full(2, 7, np.int32)
    (ys,) = names["session"].run(["ys"], {"xs": xs, "lengths": lengths})
    np.testing.assert_allclose(np.reshape(read["data"], read["dims"]), ys, atol=1e-6)


def test_node_writes_the_text_that_jax_writes(tmp_path):
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} comes with the extra: onnx")
    script = node_script(tmp_path, 1)
    from experiments.char_lm.data import Corpus
    from experiments.char_lm.train import Config, export_model, make_model
    from experiments.common.processes import make_console

    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        corpus = Corpus.of("to be or not to be\n" * 9)
        config = Config(cell="lstm", layers=2, hidden=16, embed=8)
        model = make_model(config, corpus)
        params = jax.tree.map(lambda leaf: 2 * leaf, model.init(jax.random.key(1)))
        export_model(config, corpus, params, tmp_path / "model.onnx", make_console())
        text, state = "to be ", model.init_state(params, 1)
        unread = text
        for _ in range(60):
            tokens = np.array([[corpus.vocabulary.index(c)] for c in unread], np.int32)
            state, logits = model.apply(params, state, tokens)
            unread = corpus.vocabulary[int(logits[-1, 0].argmax())]
            text += unread
    command = [*script, "model.onnx", corpus.vocabulary, "to be ", "60"]
    told = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert told.stdout == text + "\n" and len(set(text[6:])) > 2
