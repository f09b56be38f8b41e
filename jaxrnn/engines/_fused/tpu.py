"""A scan in one kernel for TPUs, written in Pallas TPU.

A TPU core runs the programs of a grid one after another, so one core owns all hidden units and
nothing is exchanged. The grid runs over heads, their tiles of rows, and blocks of time: while one
block is computed, the inputs of the next one are copied to VMEM. The recurrent kernels stay in
VMEM, and so does the carry, in the buffers of the results. Everything that depends on Pallas TPU is
here.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.engines._fused.heads import heads_as_rows, rows_as_heads
from jaxrnn.engines._fused.steps import Scan

LANES, SUBLANES = 128, 16  # of a tile of 16-bit numbers
BLOCK = 2 * 2**20  # bytes of a block of time, unless one step is larger
PART = 8  # a step of a tile of rows takes at most this part of the memory that kernels leave
MEMORY = 96 * 2**20  # bytes of VMEM for the kernel, of the 128 MiB of a v5e or v6e core


def vmem_bytes(gates: Sequence[int], hidden: int) -> int:
    """The memory of the recurrent kernels for products with so many gates, in two buffers."""
    return 2 * 2 * sum(gates) * _up(hidden, LANES) ** 2


def fits(gates: Sequence[int], hidden: int) -> bool:
    """Whether the recurrent kernels leave room for the blocks of time."""
    return vmem_bytes(gates, hidden) <= MEMORY - 16 * 2**20


def run(
    scan: Scan,
    weights: Sequence[Any],
    constants: Sequence[Any],
    carry: Sequence[Any],
    stacked: Sequence[Any],
    *,
    time: int,
    reverse: bool,
    interpret: Any = False,
) -> tuple[list[Any], list[Any]]:
    """Runs a scan over tiles, ``(carry, emitted)``; for the arguments see `hopper.run`."""
    # When it is needed: older releases of JAX lack it.
    pl: Any = importlib.import_module("jax.experimental.pallas")
    pltpu: Any = importlib.import_module("jax.experimental.pallas.tpu")
    rows, hidden = carry[0].shape
    heads, width = weights[0].shape[0], _up(hidden // weights[0].shape[0], LANES)
    dtypes = [x.dtype for x in (*constants, *carry, *carry, *stacked)] + list(scan.dtypes)
    row_bytes = width * sum(dtype.itemsize for dtype in dtypes)
    gates = [w.shape[1] * w.shape[3] for w in weights]
    most_rows = (MEMORY - vmem_bytes(gates, width)) // PART // row_bytes
    tiles = math.ceil(rows / max(SUBLANES, SUBLANES * (most_rows // SUBLANES)))
    height = _up(math.ceil(rows / tiles), SUBLANES)

    def pad_kernel(w):
        # Whatever a padded unit computes meets rows of zeros.
        more = (0, width - w.shape[-1])
        w = jnp.pad(w, [(0, 0), (0, 0), more, (0, 0), (0, 0)])
        w = jnp.pad(w, [(0, 0), (0, 0), (0, 0), (0, 0), more], mode="edge")
        return w.reshape(*w.shape[:2], width, -1)

    kernels = [pad_kernel(w) for w in weights]
    constants, carry, stacked = (
        [heads_as_rows(x, heads, tiles * height, width) for x in group]
        for group in (constants, carry, stacked)
    )
    step_bytes = (
        height * width * sum(d.itemsize for d in (*scan.dtypes, *(x.dtype for x in stacked)))
    )
    most = max(1, BLOCK // step_bytes)
    steps = max(n for n in range(1, min(most, time) + 1) if time % n == 0)
    blocks = time // steps
    sizes = [len(kernels), len(constants), len(carry), len(stacked), len(scan.dtypes), len(carry)]

    def body(*refs):
        refs = iter(refs)
        groups = [[next(refs) for _ in range(size)] for size in sizes]
        resident, fixed, initial, inputs, emitted, final = groups

        @pl.when(pl.program_id(1) == 0)
        def _():
            for ref, value in zip(final, initial, strict=True):
                ref[...] = value[...]

        def multiply(number, operands):
            products = [
                jnp.dot(x, resident[number][part], preferred_element_type=jnp.float32)
                for part, x in enumerate(operands)
            ]
            whole = sum(products[1:], products[0])
            return jnp.split(whole, whole.shape[1] // width, axis=1)

        def step(n, values):
            t = steps - 1 - n if reverse else n
            values, outputs = scan.step(
                multiply, [ref[...] for ref in fixed], values, [ref[t] for ref in inputs]
            )
            for ref, value in zip(emitted, outputs, strict=True):
                ref[t] = value
            return tuple(values)

        values = tuple(ref[...] for ref in final)
        values = jax.lax.fori_loop(jnp.int32(0), jnp.int32(steps), step, values)
        for ref, value in zip(final, values, strict=True):
            ref[...] = value

    over_time = pl.BlockSpec(
        (steps, height, width),
        lambda tile, n: (blocks - 1 - n if reverse else n, tile, jnp.int32(0)),
    )
    one_tile = pl.BlockSpec((height, width), lambda tile, n: (tile, jnp.int32(0)))

    def head_of(tile, n):
        return jax.lax.div(tile, jnp.int32(tiles)), *(jnp.int32(0),) * 3

    kernel_of_head = [pl.BlockSpec((None, *w.shape[1:]), head_of) for w in kernels]
    local: Any = {"manual_axis_type": jax.typeof(carry[0]).manual_axis_type}  # for jax.shard_map
    out = [
        jax.ShapeDtypeStruct((time, heads * tiles * height, width), dtype, **local)
        for dtype in scan.dtypes
    ]
    out += [jax.ShapeDtypeStruct(x.shape, x.dtype, **local) for x in carry]
    values = pl.pallas_call(
        body,
        grid=(heads * tiles, blocks),
        in_specs=[
            *kernel_of_head,
            *(one_tile for _ in (*constants, *carry)),
            *(over_time for _ in stacked),
        ],
        out_specs=[*(over_time for _ in scan.dtypes), *(one_tile for _ in carry)],
        out_shape=out,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=MEMORY
        ),
        interpret=interpret,
        name=scan.name,
    )(*kernels, *constants, *carry, *stacked)
    emitted, final = values[: len(scan.dtypes)], values[len(scan.dtypes) :]
    final = [rows_as_heads(x, heads, rows, hidden) for x in final]
    return final, [rows_as_heads(x, heads, rows, hidden) for x in emitted]


def _up(n: int, multiple: int) -> int:
    return multiple * math.ceil(n / multiple)
