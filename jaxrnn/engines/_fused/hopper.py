"""A scan in one kernel for NVIDIA's Hopper GPUs, written in Pallas Mosaic GPU.

One kernel runs all time steps. Each of its blocks owns some hidden units: the slice of every
recurrent kernel that produces them stays in shared memory, and their carry in registers. Pointwise
pieces need a block's own units only. A product ``a W`` needs the whole operand, so before it

    every block publishes its slice of a in global memory,
    all blocks meet,
    every block reads a back and multiplies it by its slice of W.

Publications alternate between two buffers: a block that is one step ahead does not overwrite what
another one still reads.

The blocks form one *cluster* (at most 16 blocks, a barrier in hardware; several batch tiles run as
several clusters) or a *grid* (as many blocks as the device has multiprocessors, a counter in global
memory; batch tiles run one after the other). Everything that depends on Pallas Mosaic GPU is in
this file.
"""

import dataclasses
import importlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.engines._fused.steps import Scan

ROWS = 64  # rows of one matrix product of a warpgroup
DEPTH = 256
COLUMNS = 256  # its columns, at most
CLUSTER = 16  # blocks, at most
BLOCKS = 132  # multiprocessors of an H100 or H200: blocks of a grid, at most
SHARED = 232_448  # bytes of shared memory of a block, at most


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The division of a kernel into blocks, each of which owns ``units`` hidden units."""

    units: int
    hidden: int  # padded to a multiple of 64, the columns of a swizzled tile
    mode: str  # "cluster" or "grid"

    @property
    def blocks(self) -> int:
        """The number of blocks that meet."""
        return self.hidden // self.units


def shared_bytes(gates: Sequence[int], units: int, hidden: int) -> int:
    """The shared memory of a block: weights, one operand, one slice to publish, and barriers."""
    return 2 * (sum(gates) * units * hidden + ROWS * hidden + ROWS * units) + 1024


def geometries(gates: Sequence[int], hidden: int) -> list[Geometry]:
    """The possible divisions for products with so many gates, the preferred one first.

    A cluster has the faster barrier, and fewer units a block mean fewer weights to read a step.
    """
    padded = 64 * math.ceil(hidden / 64)
    return [
        Geometry(units, padded, mode)
        for mode, most in (("cluster", CLUSTER), ("grid", BLOCKS))
        for units in range(8, padded + 1, 8)
        if padded % units == 0
        and padded // units <= most
        and units * max(gates) <= COLUMNS
        and shared_bytes(gates, units, padded) <= SHARED
    ]


def run(
    scan: Scan,
    weights: Sequence[Any],
    constants: Sequence[Any],
    carry: Sequence[Any],
    stacked: Sequence[Any],
    *,
    time: int,
    reverse: bool,
    geometry: Geometry,
    interpret: Any = None,
) -> tuple[list[Any], list[Any]]:
    """Runs a scan over tiles, ``(carry, emitted)``.

    Args:
        scan: the step and the variables that it reads and writes.
        weights: the resident kernels, ``[p, H, q, H]``: p operands, q results.
        constants: arrays ``[rows, H]``.
        carry: arrays ``[rows, H]``.
        stacked: arrays ``[time, rows, H]``.
        time: the number of steps.
        reverse: whether the last step comes first.
        geometry: the division into blocks.
        interpret: parameters of Mosaic GPU's interpreter, or None to compile.
    """
    rows, hidden = carry[0].shape
    tiles = math.ceil(rows / ROWS)

    def pad(x):
        # Edges are repeated: whatever the step computes there is as harmless as its neighbor.
        widths = [(0, 0)] * (x.ndim - 2) + [(0, tiles * ROWS - rows), (0, geometry.hidden - hidden)]
        return jnp.pad(x, widths, mode="edge") if any(map(sum, widths)) else x

    # Whatever a padded unit publishes meets rows of zeros in the weights.
    packed = [_pack(w, geometry) for w in weights]
    constants, carry, stacked = ([pad(x) for x in group] for group in (constants, carry, stacked))
    together = tiles if geometry.mode == "cluster" else 1
    height = min(ROWS, 8 * math.ceil(rows / 8))
    inputs = len(constants), len(stacked)
    kernel = _kernel(scan, geometry, weights, inputs, time, together, height, reverse, interpret)
    if together == tiles:
        emitted, final = kernel(packed, constants, carry, stacked)
    else:

        def one(group):
            constants, carry, stacked = group
            return kernel(packed, constants, carry, stacked)

        split = [x.reshape(tiles, ROWS, -1) for x in (*constants, *carry)]
        over_time = [x.reshape(time, tiles, ROWS, -1).swapaxes(0, 1) for x in stacked]
        groups = split[: len(constants)], split[len(constants) :], over_time
        emitted, final = jax.lax.map(one, groups)
        final = [x.reshape(tiles * ROWS, -1) for x in final]
        emitted = [x.swapaxes(0, 1).reshape(time, tiles * ROWS, -1) for x in emitted]
    return [x[:rows, :hidden] for x in final], [x[:, :rows, :hidden] for x in emitted]


def _pack(weights: Any, geometry: Geometry) -> Any:
    """The slice of each block, ``[p, H, q, H] -> [blocks, q * units, p * H]``."""
    p, hidden, q, _ = weights.shape
    more = (0, geometry.hidden - hidden)
    weights = jnp.pad(weights, [(0, 0), more, (0, 0), (0, 0)])
    weights = jnp.pad(weights, [(0, 0), (0, 0), (0, 0), more], mode="edge")
    sliced = weights.reshape(p, geometry.hidden, q, geometry.blocks, geometry.units)
    return sliced.transpose(3, 2, 4, 0, 1).reshape(geometry.blocks, q * geometry.units, -1)


def _kernel(scan, geometry, weights, sizes, time, tiles, height, reverse, interpret):
    """The kernel, ``(weights, constants, carry, stacked) -> (emitted, carry)``."""
    # When it is needed: older releases of JAX lack it.
    pl: Any = importlib.import_module("jax.experimental.pallas")
    plgpu: Any = importlib.import_module("jax.experimental.pallas.mosaic_gpu")

    units, hidden, blocks = geometry.units, geometry.hidden, geometry.blocks
    depth = max(d for d in range(64, DEPTH + 1, 64) if hidden % d == 0)
    parts = [w.shape[0] for w in weights]
    results = [w.shape[2] for w in weights]
    clustered, products = geometry.mode == "cluster", len(weights)
    sizes = (products, sizes[0], len(scan.carry), sizes[1], len(scan.emitted), len(scan.carry))
    sizes += (products, products)

    def body(*refs):
        refs = iter(refs)
        groups = [[next(refs) for _ in range(size)] for size in sizes]
        packed, constants, carry, stacked, emitted, final, published, resident = groups
        operand, staging, copied, *cluster_barrier = refs
        own = pl.ds(jax.lax.axis_index("unit") * units, units)
        used = pl.ds(0, height)  # rows that are exchanged; what the others hold stays in them
        rows = pl.ds(jax.lax.axis_index("tile") * ROWS if clustered else 0, ROWS)
        counter = None if clustered else pl.get_global(plgpu.SemaphoreType.REGULAR)

        def fetch(source, destination):
            plgpu.copy_gmem_to_smem(source, destination, copied)
            plgpu.barrier_wait(copied)

        def load(ref):
            ref = ref.at[rows, own]
            if interpret is not None:
                return ref[...]
            return plgpu.load(ref, layout=plgpu.Layout.WGMMA, optimized=False)

        def store(ref, value):
            if interpret is None and hasattr(plgpu, "store"):  # JAX 0.12 and newer
                plgpu.store(ref, value, optimized=False)
            else:
                ref[...] = value

        def meet(count):
            """Waits until all blocks are here for the count-th time."""
            if clustered:
                _meet_in_cluster(plgpu, cluster_barrier[0])
            else:
                plgpu.semaphore_signal(counter, memory_scope="gpu")
                plgpu.semaphore_wait(
                    counter, value=count * blocks, decrement=False, memory_scope="gpu"
                )

        def multiply(step, done, number, operands):
            buffer = published[number].at[step % 2, rows].at[used]
            for part, tile in enumerate(operands):
                staging[...] = tile
                plgpu.commit_smem()
                columns = pl.ds(part * hidden + jax.lax.axis_index("unit") * units, units)
                plgpu.copy_smem_to_gmem(staging.at[used], buffer.at[:, columns])
                plgpu.wait_smem_to_gmem(0)
            meet(step * products + done + 1)

            def accumulate(sums):
                def add_part(part, _):
                    fetch(buffer.at[:, pl.ds(part * hidden, hidden)], operand.at[used])

                    def add(n, _):
                        kernel = resident[number].at[:, pl.ds(part * hidden + n * depth, depth)]
                        left = operand.at[:, pl.ds(n * depth, depth)]
                        plgpu.wgmma(sums, left, kernel.transpose((1, 0)))

                    _repeat(hidden // depth, add, None)
                    plgpu.wgmma_wait(0)

                _repeat(parts[number], add_part, None)
                return sums[...]

            width = results[number] * units
            sums = pl.run_scoped(accumulate, plgpu.ACC((ROWS, width), jnp.float32))
            return [
                jax.lax.slice(sums, (0, n * units), (ROWS, (n + 1) * units))
                for n in range(results[number])
            ]

        for source, destination in zip(packed, resident, strict=True):
            fetch(source.at[jax.lax.axis_index("unit")], destination)
        fixed = [load(ref) for ref in constants]

        def step(n, values):
            t = time - 1 - n if reverse else n
            done = iter(range(products))
            values, outputs = scan.step(
                lambda number, operands: multiply(n, next(done), number, operands),
                fixed,
                values,
                [load(ref.at[t]) for ref in stacked],
            )
            for ref, value in zip(emitted, outputs, strict=True):
                store(ref.at[t, rows, own], value)
            return tuple(values)

        values = _repeat(time, step, tuple(load(ref) for ref in carry))
        for ref, value in zip(final, values, strict=True):
            store(ref.at[rows, own], value)

    def memory(shape, dtype):
        return plgpu.SMEM(shape, dtype, transforms=_swizzled(plgpu, shape, dtype))

    dtype, total = weights[0].dtype, tiles * ROWS
    scratch = [
        memory((q * units, p * hidden), dtype) for p, q in zip(parts, results, strict=True)
    ] + [memory((ROWS, hidden), dtype), plgpu.SMEM((ROWS, units), dtype), plgpu.Barrier()]
    if clustered:
        scratch.append(plgpu.ClusterBarrier(collective_axes=("unit",)))
        mesh = {"grid": (tiles,), "grid_names": ("tile",)}
        mesh |= {"cluster": (blocks,), "cluster_names": ("unit",)}
    else:
        mesh = {"grid": (blocks,), "grid_names": ("unit",)}
    out = [jax.ShapeDtypeStruct((time, total, hidden), d) for d in scan.dtypes]
    out += [jax.ShapeDtypeStruct((total, hidden), v.aval.dtype) for v in scan.carry]
    out += [jax.ShapeDtypeStruct((2, total, p * hidden), dtype) for p in parts]
    body.__name__ = scan.name  # the name of the kernel in profiles
    options = {} if interpret is None else {"interpret": interpret}
    compiled = plgpu.kernel(body, out_type=out, scratch_types=scratch, **mesh, **options)

    def call(packed, constants, carry, stacked):
        values = compiled(*packed, *constants, *carry, *stacked)
        cut = len(scan.emitted)
        return values[:cut], values[cut : cut + len(scan.carry)]

    return call


def _repeat(count: int, body: Any, init: Any) -> Any:
    """A loop whose counter has 32 bits, as all indices of the kernel, even where JAX uses 64."""
    return jax.lax.fori_loop(jnp.int32(0), jnp.int32(count), body, init)


def _meet_in_cluster(plgpu: Any, barrier: Any) -> None:
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)


def _swizzled(plgpu: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, ...]:
    """The layout in shared memory that a matrix product reads."""
    columns = 128 // jnp.dtype(dtype).itemsize
    return plgpu.TilingTransform((8, columns)), plgpu.SwizzleTransform(128)
