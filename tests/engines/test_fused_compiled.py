"""The kernels of `Fused`, compiled for an H200 without a device."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "hidden"), [("LSTM", 512), ("LSTM", 1024), ("GRU", 768)])
def test_no_register_is_spilled(cell, hidden):
    """In a cluster and in grids; the whole table is printed by the tool."""
    pytest.importorskip("jax_cuda13_plugin")
    command = [sys.executable, "docs/tools/fused_table.py"]
    command += ["--cells", cell, "--hidden", str(hidden)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].count(", 0 B |") == 2
