"""Experiments run with JAX's own defaults, in float32, and so do their tests."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def defaults():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield
