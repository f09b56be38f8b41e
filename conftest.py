"""Settings of the whole suite: float64, no silent promotion, compilations kept on disk."""

import pathlib

import jax

CACHE = pathlib.Path(__file__).parent / ".jax_cache"

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
