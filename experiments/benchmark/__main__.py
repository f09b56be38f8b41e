"""`python -m experiments.benchmark`."""

import os

import jax
import tyro

from experiments.benchmark.main import Config, main

# A compilation that is read from a disk would be timed as one that is quick.
jax.config.update("jax_enable_compilation_cache", False)
# Else JAX would take most of a GPU's memory at once, and leave PyTorch too little.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
main(tyro.cli(Config))
