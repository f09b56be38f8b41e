"""The kernels of `Fused`, compiled for an H200 and a TPU without a device."""

import os
import re
import subprocess
import sys

import jax
import jax.export
import pytest

import jaxrnn as rnn
from docs.tools import fused_table
from tests.support.helpers import weighted_sum
from tests.support.pages import DOCS


@pytest.mark.slow
@pytest.mark.parametrize("cell", fused_table.CELLS)
def test_the_table_of_registers_is_current(cell):
    """In clusters and in grids; nothing is spilled forward, and little backward."""
    pytest.importorskip("jax_cuda13_plugin")
    command = [sys.executable, "-m", "docs.tools.fused_table", "--cells", cell]
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row.rsplit(" | ", 1)[0] for row in done.stdout.splitlines()[2:]]
    assert len(rows) == len(fused_table.HIDDEN)
    for row in rows:
        forward, backward = map(int, re.findall(r"(\d+) B(?= \||$)", row)[-2:])
        assert forward == 0 and backward <= 256, row
    page = (DOCS / "accelerators.md").read_text("utf-8")
    assert [row for row in rows if row not in page] == [], "run python -m docs.tools.fused_table"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "wheel", "kernel"),
    [("h200", "jax_cuda13_plugin", "mosaic_gpu_v2"), ("v5e:2x2", "libtpu", "tpu_custom_call")],
)
def test_one_artifact_is_compiled_for_every_device(device, wheel, kernel):
    """What `jax.export` wrote for three platforms is, for each, the kernels of that platform."""
    pytest.importorskip(wheel)
    deviceless = pytest.importorskip("docs.tools.deviceless")
    cell, engine = rnn.GRU(128), rnn.engines.Fused()
    params = cell.init(jax.random.key(0), 128, "bfloat16")
    work = params, cell.init_state(params, (16,)), jax.numpy.ones((64, 16, 128), "bfloat16")

    def loss(params, state, xs):
        return weighted_sum(engine(cell, params, state, xs))

    exported = jax.export.export(
        jax.jit(jax.grad(loss, (0, 1, 2))),
        platforms=("cpu", "cuda", "tpu"),
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("mosaic_gpu_v2")],
    )(*work)
    mesh = deviceless.mesh_of(device)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), work)
    text = jax.jit(exported.call).lower(*specs).compile().as_text()
    assert text.count(f'custom_call_target="{kernel}"') == 2
    assert " while(" not in text
