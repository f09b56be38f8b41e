"""The code in docs/serving.md runs, in Python and in Node, on the same numbers."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The names of the page's Python code, and the folder of its files."""
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} comes with the extra: onnx")
    folder, before = tmp_path_factory.mktemp("serving"), pathlib.Path.cwd()
    names = {}
    os.chdir(folder)
    try:
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            exec(compile("\n".join(blocks("python")), PAGE.name, "exec"), names)
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


def test_node_gives_equal_outputs(served):
    names, folder = served
    node = shutil.which("node")
    script = folder / "serve.js"
    script.write_text(blocks("javascript")[0], encoding="utf-8")
    found = node and subprocess.run([node, "-e", "require('onnxruntime-node')"], cwd=folder)
    if not found or found.returncode:
        pytest.skip("Node and its package onnxruntime-node (NODE_PATH) are not installed")
    xs = np.asarray(names["xs"])
    given = {"data": xs.ravel().tolist(), "dims": xs.shape}
    (folder / "xs.json").write_text(json.dumps(given))
    command = [node, script, "network.onnx", "xs.json", "ys.json"]
    subprocess.run(command, check=True, cwd=folder)
    read = json.loads((folder / "ys.json").read_text())
    lengths = np.full(2, 7, np.int32)
    (ys,) = names["session"].run(["ys"], {"xs": xs, "lengths": lengths})
    np.testing.assert_allclose(np.reshape(read["data"], read["dims"]), ys, atol=1e-6)
