"""The loops of `Hoisted`, compiled for an H200 without a device."""

import subprocess
import sys

import pytest

# Kernels per step with the default unrolling, forward and backward loops; 8 of the kernels of 8
# steps of LSTM are products and 8 are pointwise. Without unrolling: 5, 7 + 6; 5, 8 + 8.
BOUNDS = {
    ("LSTM", "forward"): (2.5,),
    ("LSTM", "gradients"): (2.75, 3.5),
    ("GRU", "forward"): (2.6,),
    ("GRU", "gradients"): (2.9, 3.25),
}


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "what"), BOUNDS)
def test_kernels_of_one_step(cell, what):
    """The table in docs/accelerators.md has the figures."""
    pytest.importorskip("jax_cuda13_plugin")
    command = [sys.executable, "-m", "tests.support.h200", "--unroll", "0", "--time", "256"]
    command += ["--cells", cell, "--passes", what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels, recorded = done.stdout.splitlines()[-1].split(" | ")[3:5]
    found = [float(number) for number in kernels.split(" + ")]
    assert len(found) == len(BOUNDS[cell, what])
    assert all(map(float.__le__, found, BOUNDS[cell, what])), kernels
    assert recorded == "yes"
