"""Data parallelism on forced host devices, in a process of its own."""

import os
import subprocess
import sys


def test_several_devices_train_as_one():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.sharded_training"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    parts = ["fit", "seeds", "tree", "memory", "errors"]
    # JAX 0.12 also prints where a refused program was compiled.
    assert [line for line in done.stdout.splitlines() if line in parts] == parts
