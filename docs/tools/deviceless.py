"""Compiles one layer for an accelerator that this machine lacks.

For an H200 it needs, next to JAX, the wheels jax-cuda13-plugin and jax-cuda13-pjrt of the same
version and nvidia-cuda-nvcc; for a TPU the wheel libtpu.
"""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

H200 = pathlib.Path(__file__).with_name("h200.txtpb")


def mesh_of(device: str) -> jax.sharding.Mesh:
    """A mesh of one device: an "h200", or one of a topology that libtpu knows, e.g. "v5e:2x2"."""
    if device == "h200":
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=H200.read_text(), topology="1x1x1"
        )
    else:
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")  # no device to lock
        topology = topologies.get_topology_desc(device, platform="tpu")
    return jax.sharding.Mesh(topology.devices[:1], ("x",))


def compile_layer(
    run: Callable, cell: Any, shape: tuple[int, int, int], device: str, gradients: bool = True
) -> Any:
    """Compiles a layer in bfloat16.

    Args:
        run: the layer, ``run(params, state, xs) -> (state, ys)``.
        cell: its cell.
        shape: time, batch and features of its input.
        device: as `mesh_of` takes it.
        gradients: whether the program also computes those of all that the layer reads.
    """
    sharding = jax.sharding.NamedSharding(mesh_of(device), jax.sharding.PartitionSpec())
    params = jax.eval_shape(lambda key: cell.init(key, shape[2], jnp.bfloat16), jax.random.key(0))
    state = jax.eval_shape(lambda params: cell.init_state(params, shape[1:2]), params)
    work: Any = params, state, jax.ShapeDtypeStruct(shape, jnp.bfloat16)

    def with_gradients(params, state, xs, cotangents):
        return jax.vjp(run, params, state, xs)[1](cotangents)

    if gradients:
        work = *work, jax.eval_shape(run, *work)
    work = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), work)
    return jax.jit(with_gradients if gradients else run).lower(*work).compile()
