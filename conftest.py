"""Settings of the whole suite: float64, no silent promotion, compilations kept on disk."""

import pathlib
import zlib

import jax
import pytest

CACHE = pathlib.Path(__file__).parent / ".jax_cache"

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


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
