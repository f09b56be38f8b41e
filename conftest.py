"""Settings of the whole suite: float64, no silent promotion, quick compilation, a cache on disk."""

import gc
import importlib.metadata
import os
import pathlib
import zlib

CACHE = pathlib.Path(__file__).parent / ".jax_cache"

# Compilation dominates the suite's time, and most tests check mathematics, not the compiler. So XLA
# compiles without optimization; tests/support/helpers.py has the options for those that want it.
# XLA reads this variable once, before JAX is imported; subprocesses inherit it.
HURRY = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_llvm_disable_expensive_passes=true",
]
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    HURRY.append("--xla_cpu_use_fusion_emitters=false")
else:
    # Blocks of an interpreted kernel wait for each other, each in a thread of XLA, which has no
    # more threads than cores otherwise.
    os.environ.setdefault("PJRT_NPROC", "16")
os.environ["XLA_FLAGS"] = " ".join([*HURRY, os.environ.get("XLA_FLAGS", "")]).strip()

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_traceback_in_locations_limit", 0)  # lowering builds a traceback otherwise
gc.set_threshold(200_000, 50, 50)  # tracing makes many objects, few of them garbage

MEMORY = 9 * 2**28
"""Bytes of a worker's resident memory above which it drops what JAX has compiled."""


def pytest_addoption(parser):
    """Adds options that run a part of the suite."""
    parser.addoption("--one-in", type=int, default=1, help="run one test in so many, by a hash")
    parser.addoption(
        "--salt", default="", help="what is hashed with a test's name, to choose others"
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out what those options leave out."""
    count, salt = config.getoption("--one-in"), config.getoption("--salt")
    if count < 1:
        raise pytest.UsageError(f"--one-in must be at least 1, got {count}")
    parts = [], []
    for item in items:
        parts[zlib.crc32(f"{salt}{item.nodeid}".encode()) % count > 0].append(item)
    items[:] = parts[0]
    config.hook.pytest_deselected(items=parts[1])


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Drops compiled programs once a worker holds many of them: thousands of tests compile."""
    yield
    statm = pathlib.Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else MEMORY
    if pages * os.sysconf("SC_PAGE_SIZE") > MEMORY:
        jax.clear_caches()
        gc.collect()
