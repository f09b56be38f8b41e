"""Settings of the whole suite: float64, no silent promotion, compilations kept on disk."""

import pathlib
import zlib

import jax

CACHE = pathlib.Path(__file__).parent / ".jax_cache"

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def pytest_addoption(parser):
    """Adds an option that runs a part of the suite."""
    parser.addoption(
        "--one-in", type=int, default=1, help="run one test in so many, by a hash of its name"
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out what that option leaves out."""
    count = config.getoption("--one-in")
    parts = [], []
    for item in items:
        parts[zlib.crc32(item.nodeid.encode()) % count > 0].append(item)
    items[:] = parts[0]
    config.hook.pytest_deselected(items=parts[1])
