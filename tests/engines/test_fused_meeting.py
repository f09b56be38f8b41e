"""How the blocks of a Hopper kernel meet: memory order, and blocks that fit on the device at once.

The interpreter has neither proxies nor grids, so these tests read what the compiler is given.
"""

import itertools
import os
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

import jaxrnn as rnn
from jaxrnn.engines import Fused, fused
from jaxrnn.engines._fused import hopper
from tests.support.interpreted import AVAILABLE

needs_kernels = pytest.mark.skipif(not AVAILABLE, reason="needs JAX 0.11 or newer")


def work_of(cell, batch=3, time=3):
    """Shapes of a layer's parameters, state and inputs in bfloat16."""
    params = jax.eval_shape(lambda key: cell.init(key, 8, jnp.bfloat16), jax.random.key(0))
    state = jax.eval_shape(lambda params: cell.init_state(params, (batch,)), params)
    return params, state, jax.ShapeDtypeStruct((time, batch, 8), jnp.bfloat16)


def lowered(cell, units, mode, gradients=False):
    """The program for CUDA, whose text holds the assembly that Mosaic emits itself."""

    def run(params, state, xs):
        return Fused(units)._run(cell, params, state, xs, False, mode)

    work = work_of(cell)
    if gradients:
        work = *work, jax.eval_shape(run, *work)
    program = (lambda *work: jax.vjp(run, *work[:3])[1](work[3])) if gradients else run
    return jax.jit(program).trace(*work).lower(lowering_platforms=("cuda",)).as_text()


MEETINGS = {
    "cluster": ["barrier.cluster.arrive.release.aligned;", "barrier.cluster.wait.acquire.aligned;"],
    "grid": ["red.release.gpu.global.add.u32", "fence.acquire.gpu;"],
}


@needs_kernels
@pytest.mark.parametrize("mode", MEETINGS)
def test_a_meeting_releases_and_acquires_for_all_blocks(mode):
    text = lowered(rnn.Elman(64), 8, mode)
    for assembly in [*MEETINGS[mode], "fence.proxy.async.global;"]:
        assert assembly in text
    assert "mbarrier.arrive.shared::cluster" not in text  # which orders memory within a block only


def gpu(**attributes):
    return types.SimpleNamespace(platform="gpu", **attributes)


def test_no_more_blocks_meet_than_run_at_once():
    """132 on an H200, 114 on an H100 for PCIe, 78 on an H20: the others would be waited for."""
    other = types.SimpleNamespace(platform="tpu", num_cores=1)
    assert hopper.multiprocessors([gpu(core_count=132), gpu(core_count=114), other]) == 114
    assert hopper.multiprocessors([gpu(num_cores=78)]) == 78  # of a mesh
    assert hopper.multiprocessors([gpu(num_cores=None)]) == 132
    for gates, hidden, blocks in itertools.product(
        [(1,), (3,), (4,), (2, 1)], (96, 768), (78, 114)
    ):
        found = hopper.geometries(gates, hidden, blocks)
        assert found and max(geometry.blocks for geometry in found) <= blocks
        clusters = [geometry.blocks for geometry in found if geometry.mode == "cluster"]
        assert max(clusters, default=0) <= (16 if blocks == 114 else 10)
    assert hopper.geometries((4,), 1024)[0].blocks == 128
    assert hopper.geometries((4,), 1024, 114) == []


@needs_kernels
@pytest.mark.parametrize(("hidden", "want"), [(768, 48), (1024, None)])
def test_a_small_gpu_gets_fewer_blocks_or_no_kernel(hidden, want):
    found = []
    cell = rnn.LSTM(hidden)

    def machines(*work):
        plan = fused._plan(cell, *work)
        found.append(Fused()._machines(plan, gpus=[gpu(core_count=78)])[1])

    jax.eval_shape(machines, *work_of(cell))
    cuda = found[0].get("cuda")
    assert (cuda and cuda.keywords["geometry"].blocks) == want


CODES = {  # in the assembly
    "P": r"fence\.proxy\.async\.shared::cta",
    "W": r"cp\.async\.bulk(\.tensor\.\dd)?\.global",  # the write of a publication
    "C": r"cp\.async\.bulk\.wait_group\s+0",  # it is complete; with .read its source is free
    "B": r"bar\.sync",
    "R": r"red\.release\.gpu|barrier\.cluster\.arrive\.release",
    "A": r"fence\.acquire\.gpu|barrier\.cluster\.wait\.acquire",
    "F": r"fence\.proxy\.async\.global",
    "L": r"cp\.async\.bulk\.tensor\.\dd\.shared::cluster\.global",  # the read
    "M": r"wgmma\.mma_async",
    "D": r"wgmma\.wait_group\.sync\.aligned\s+0",
}


def executed(kernel: str) -> str:
    """A kernel in the order of execution: every block once, no conditional jump taken."""
    _, *labeled = re.split(r"^(\$L__BB\w+):", f"$L__BBentry:{kernel}", flags=re.MULTILINE)
    names, blocks, visited, n = labeled[::2], labeled[1::2], [], 0
    while n < len(blocks) and n not in visited:
        visited.append(n)
        jump = re.search(r"^\s*bra\.uni\s+(\$L__BB\w+);\s*\Z", blocks[n], re.MULTILINE)
        n = names.index(jump[1]) if jump else n + 1
    return "".join(blocks[n] for n in visited)


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "mode"), [("LSTM", "cluster"), ("ResetBeforeGRU", "grid")])
def test_publications_are_complete_and_fenced_before_they_are_read(cell, mode):
    """In the assembly for an H200, of both kernels; the second cell has two products."""
    pytest.importorskip("jax_cuda13_plugin")
    command = [sys.executable, "-m", "docs.tools.fused_table", "--one", "--cells", cell]
    command += ["--hidden", "256", "--mode", mode]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "MOSAIC_GPU_DUMP_PTX": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = re.split(r"\.entry (?:forward|backward)_mosaic_gpu", done.stdout)[1:]
    assert len(kernels) == 2
    instruction = re.compile("|".join(f"(?P<{code}>{text})" for code, text in CODES.items()))
    for kernel in kernels:
        order = "".join(match.lastgroup or "" for match in instruction.finditer(executed(kernel)))
        _, *meetings = re.split(r"(?=PBW)", order)
        assert len(meetings) == (1 if cell == "LSTM" else 2)
        for meeting in meetings:
            assert re.match(r"PBW+CB+RAB?FBLM+D", meeting), order
