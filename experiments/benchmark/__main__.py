"""`python -m experiments.benchmark`."""

import os

import jax
import tyro

from experiments.benchmark.grids import Config
from experiments.benchmark.main import main
from experiments.common.processes import cores

# Compile times must not include reads from a cache on disk.
jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_num_cpu_devices", cores())
# By default JAX allocates most of a GPU's memory at once, which leaves PyTorch too little.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
main(tyro.cli(Config, prog="python -m experiments.benchmark"))
