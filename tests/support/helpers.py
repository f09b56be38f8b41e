"""What many tests share: compiler options, real-valued objectives, comparison of pytrees."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# conftest.py lets XLA compile without optimization; a test of the compiler's output asks for it.
OPTIMIZED: dict[str, int | bool] = {"xla_backend_optimization_level": 3}
if jax.__version_info__ < (0, 11):
    OPTIMIZED["xla_cpu_use_fusion_emitters"] = True

optimizing_jit = functools.partial(jax.jit, compiler_options=OPTIMIZED)


def split(tree):
    """The leaves that have gradients, and the function that puts others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    moving = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def join(floats):
        floats = iter(floats)
        return jax.tree.unflatten(
            structure, [next(floats) if m else leaf for m, leaf in zip(moving, leaves, strict=True)]
        )

    return [leaf for m, leaf in zip(moving, leaves, strict=True) if m], join


def weighted_sum(tree):
    """A real number that every element of the tree moves, each in its own way."""
    total = 0.0
    for leaf in split(tree)[0]:
        for shift, part in enumerate((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)):
            weights = np.cos(np.arange(leaf.size) + 0.3 + shift).reshape(leaf.shape)
            total = total + (weights * part.astype("float64")).sum()
    return total


def assert_near(got, want, tolerance):
    """Structures, shapes and dtypes agree, and values do to ``tolerance`` of the largest (or 1)."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, g), w in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        where = jax.tree_util.keystr(path)
        assert (g.shape, g.dtype) == (w.shape, w.dtype), where
        scale = np.max(np.abs(w), initial=1.0)
        np.testing.assert_allclose(g, w, rtol=0, atol=tolerance * scale, err_msg=where)


def on_four_devices(module: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a module in a process of its own, which has four devices."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
    )


def thorough_but(*values, quick=1):
    """Parameters of a test; only so many are in the default tier. Tuples are unpacked."""
    marks = [*[()] * quick, *[pytest.mark.thorough] * (len(values) - quick)]
    values = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*value, marks=mark) for value, mark in zip(values, marks, strict=True)]
