"""A scan in one kernel for NVIDIA's Hopper GPUs, written in Pallas Mosaic GPU.

One kernel runs all time steps. Each of its blocks owns some hidden units: the slice of every
recurrent kernel that produces them stays in shared memory, and their carry in registers. Pointwise
pieces need a block's own units only. A product ``a W`` needs the whole operand, so before it

    every block publishes its slice of a in global memory,
    all blocks meet,
    every block reads a back and multiplies it by its slice of W.

Publications alternate between two buffers: when all blocks meet at step t, each has read what was
published at step t - 1, so step t + 1 can overwrite it. TMA writes and reads them, in an order of
its own: a block waits until its writes are complete, the meeting releases and acquires them for all
blocks, and a proxy fence precedes the reads.

The transposed product has several operands, ``z̄₁ W₁ᵀ + z̄₂ W₂ᵀ + ...``. A warpgroup multiplies 64
rows, more than a small batch has, so as many operands as fit are exchanged and multiplied as the
rows of one. Of the product

    ⎡z̄₁⎤                ⎡z̄₁W₁ᵀ     ·   ⎤
    ⎣z̄₂⎦ [W₁ᵀ  W₂ᵀ]  =  ⎣  ·     z̄₂W₂ᵀ⎦

the sum of the blocks on the diagonal is what is wanted.

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

from jaxrnn.engines._fused.heads import heads_as_rows, rows_as_heads
from jaxrnn.engines._fused.steps import Scan

ROWS = 64  # rows of one matrix product of a warpgroup
DEPTH = 256
COLUMNS = 256  # its columns, at most
CLUSTER = 16  # blocks, at most
BLOCKS = 132  # multiprocessors of an H100 or H200, if the device is unknown
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
    """The shared memory of a block: weights, one operand, slices to publish, sums, and barriers."""
    most = max(gates)  # operands of a transposed product
    sums = 4 * (2 * ROWS - 8) * units if most > 1 else 0
    return 2 * (sum(gates) * units * hidden + ROWS * hidden + most * ROWS * units) + sums + 1024


def multiprocessors(devices: Sequence[Any]) -> int:
    """Those of the smallest GPU of these devices of JAX or of an abstract mesh, else of an H200."""
    gpus = [device for device in devices if device.platform == "gpu"]
    counts = [getattr(gpu, "core_count", getattr(gpu, "num_cores", None)) for gpu in gpus]
    return min((count for count in counts if count), default=BLOCKS)


def geometries(gates: Sequence[int], hidden: int, blocks: int = BLOCKS) -> list[Geometry]:
    """The possible divisions for products with so many gates, the preferred one first.

    A cluster has the faster barrier, and fewer units a block mean fewer weights to read a step. All
    blocks meet, so no more of them may exist than ``blocks``, the multiprocessors of the GPU. Those
    are pairs in 8 groups, of which one holds a whole cluster; every GPU runs clusters of 8.
    """
    padded = 64 * math.ceil(hidden / 64)
    group = max(8, 2 * math.ceil(blocks / 16))  # multiprocessors of the largest one, at least
    return [
        Geometry(units, padded, mode)
        for mode, most in (("cluster", min(CLUSTER, group, blocks)), ("grid", blocks))
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
    skip: tuple[str, ...] = (),
) -> tuple[list[Any], list[Any]]:
    """Runs a scan over tiles, ``(carry, emitted)``.

    Args:
        scan: the step and the variables that it reads and writes.
        weights: the resident kernels, ``[heads, p, n, q, n]``: p operands, q results.
        constants: arrays ``[rows, H]``.
        carry: arrays ``[rows, H]``.
        stacked: arrays ``[time, rows, H]``.
        time: the number of steps.
        reverse: whether the last step comes first.
        geometry: the division into blocks.
        interpret: parameters of Mosaic GPU's interpreter, or None to compile.
        skip: "exchange" or "product" is left out of every product, to time the rest.
    """
    rows, hidden = carry[0].shape
    heads, tiles = weights[0].shape[0], math.ceil(rows / ROWS)
    height = min(ROWS, 8 * math.ceil(rows / 8))
    # Whatever a padded unit publishes meets rows of zeros in the weights.
    packed = [_pack(w, geometry) for w in weights]
    constants, carry, stacked = (
        [heads_as_rows(x, heads, tiles * ROWS, geometry.hidden) for x in group]
        for group in (constants, carry, stacked)
    )
    together = heads * tiles if geometry.mode == "cluster" else 1
    parts, inputs = [w.shape[1] for w in weights], (len(constants), len(stacked))
    sizes = time, together, tiles, height
    kernel = _kernel(scan, geometry, packed, parts, inputs, sizes, reverse, interpret, skip)
    if together == heads * tiles:
        merged = [w.reshape(-1, *w.shape[2:]) for w in packed]
        emitted, final = kernel(merged, constants, carry, stacked)
    else:

        def one(group):
            number, constants, carry, stacked = group
            return kernel([w[number // tiles] for w in packed], constants, carry, stacked)

        split = [x.reshape(heads * tiles, ROWS, -1) for x in (*constants, *carry)]
        over_time = [x.reshape(time, heads * tiles, ROWS, -1).swapaxes(0, 1) for x in stacked]
        cut = len(constants)
        emitted, final = jax.lax.map(
            one, (jnp.arange(heads * tiles), split[:cut], split[cut:], over_time)
        )
        final = [x.reshape(heads * tiles * ROWS, -1) for x in final]
        emitted = [x.swapaxes(0, 1).reshape(time, heads * tiles * ROWS, -1) for x in emitted]
    final = [rows_as_heads(x, heads, rows, hidden) for x in final]
    return final, [rows_as_heads(x, heads, rows, hidden) for x in emitted]


def _pack(weights: Any, geometry: Geometry) -> Any:
    """The slice of each block, ``[heads, p, n, q, n] -> [heads, blocks, p * q * units, n]``."""
    heads, p, hidden, q, _ = weights.shape
    more = (0, geometry.hidden - hidden)
    weights = jnp.pad(weights, [(0, 0), (0, 0), more, (0, 0), (0, 0)])
    weights = jnp.pad(weights, [(0, 0), (0, 0), (0, 0), (0, 0), more], mode="edge")
    weights = weights.reshape(heads, p, geometry.hidden, q, geometry.blocks, geometry.units)
    weights = weights.transpose(0, 4, 1, 3, 5, 2)
    return weights.reshape(heads, geometry.blocks, p * q * geometry.units, geometry.hidden)


def _stack(operands: int, height: int) -> int:
    """How many operands of a product, ``height`` rows each, are multiplied as the rows of one."""
    return max(n for n in range(1, operands + 1) if operands % n == 0 and n * height <= ROWS)


def _kernel(scan, geometry, weights, parts, inputs, sizes, reverse, interpret, skip):
    """The kernel, ``(weights, constants, carry, stacked) -> (emitted, carry)``."""
    time, tiles, tiles_of_head, height = sizes
    # When it is needed: older releases of JAX lack it.
    pl: Any = importlib.import_module("jax.experimental.pallas")
    plgpu: Any = importlib.import_module("jax.experimental.pallas.mosaic_gpu")

    units, hidden, blocks = geometry.units, geometry.hidden, geometry.blocks
    depth = max(d for d in range(64, DEPTH + 1, 64) if hidden % d == 0)
    clustered, products = geometry.mode == "cluster", len(weights)
    stacks = [_stack(p, height) for p in parts]
    counts = (products, inputs[0], len(scan.carry), inputs[1], len(scan.emitted), len(scan.carry))
    counts += (products, products)

    def body(*refs):
        refs = iter(refs)
        groups = [[next(refs) for _ in range(count)] for count in counts]
        packed, constants, carry, stacked, emitted, final, published, resident = groups
        stacked_rows, staging, copied, *others = refs  # others: folded, then the cluster's barrier
        own = pl.ds(jax.lax.axis_index("unit") * units, units)
        used = pl.ds(0, height)  # rows that are exchanged; what the others hold stays in them
        tile = jax.lax.axis_index("tile") if clustered else 0
        rows = pl.ds(tile * ROWS, ROWS)
        counter = None if clustered else pl.get_global(plgpu.SemaphoreType.REGULAR)

        def exchange(operands, buffer, count):
            """Publishes the block's slice of the operands, and waits for those of all blocks."""
            for part, operand in enumerate(operands):
                staging[part] = operand
            plgpu.commit_smem()
            for part in range(len(operands)):
                destination = buffer.at[pl.ds(part * height, height), own]
                plgpu.copy_smem_to_gmem(staging.at[part, used], destination)
            plgpu.wait_smem_to_gmem(0)
            meet(count)

        def fetch(source, destination):
            plgpu.copy_gmem_to_smem(source, destination, copied)
            plgpu.barrier_wait(copied)

        def load(ref):
            if interpret is not None:
                return ref[...]
            return plgpu.load(ref, layout=plgpu.Layout.WGMMA, optimized=False)

        def row_number(shape):
            layout = None if interpret is not None else plgpu.Layout.WGMMA
            return plgpu.broadcasted_iota(jnp.int32, shape, 0, layout=layout)

        def store(ref, value):
            if interpret is None and hasattr(plgpu, "store"):  # JAX 0.12 and newer
                plgpu.store(ref, value, optimized=False)
            else:
                ref[...] = value

        def meet(count):
            """Waits until all blocks are here for the count-th time; what they wrote is visible."""
            if interpret is not None:
                _meet_in_cluster(plgpu, others[-1])
                return
            if clustered:
                _emit(plgpu, "barrier.cluster.arrive.release.aligned;")
                _emit(plgpu, "barrier.cluster.wait.acquire.aligned;")
            else:
                plgpu.semaphore_signal(counter, memory_scope="gpu")
                plgpu.semaphore_wait(
                    counter, value=count * blocks, decrement=False, memory_scope="gpu"
                )
            _emit(plgpu, "fence.proxy.async.global;")  # before reads by TMA

        def multiply(step, done, number, operands):
            stack = stacks[number]
            groups = len(operands) // stack
            width = resident[number].shape[0] // groups
            buffer = published[number].at[step % 2, tile]
            if "exchange" not in skip:
                exchange(operands, buffer, step * products + done + 1)

            def accumulate(sums):
                def add_group(group, _):
                    source = buffer.at[pl.ds(group * (stack * height), stack * height)]
                    if "exchange" not in skip:
                        fetch(source, stacked_rows.at[pl.ds(0, stack * height)])

                    def add(n, _):
                        columns = pl.ds(n * depth, depth)
                        kernel = resident[number].at[pl.ds(group * width, width), columns]
                        plgpu.wgmma(sums, stacked_rows.at[:, columns], kernel.transpose((1, 0)))

                    _repeat(0 if "product" in skip else hidden // depth, add, None)
                    plgpu.wgmma_wait(0)

                _repeat(groups, add_group, None)
                return sums[...]

            sums = pl.run_scoped(accumulate, plgpu.ACC((ROWS, width), jnp.float32))
            if stack > 1:
                sums = add_diagonal(sums, stack)
            return [
                jax.lax.slice(sums, (0, n), (ROWS, n + units))
                for n in range(0, sums.shape[1], units)
            ]

        def add_diagonal(sums, stack):
            """Adds up the blocks on the diagonal; the first ``height`` rows of the result count."""
            width = sums.shape[1] // stack
            row = row_number((ROWS, width))
            diagonal = jax.lax.slice(sums, (0, 0), (ROWS, width))
            for n in range(1, stack):
                block = jax.lax.slice(sums, (0, n * width), (ROWS, (n + 1) * width))
                diagonal = jnp.where(row >= n * height, block, diagonal)
            folded = others[0]
            folded[pl.ds(0, ROWS)] = diagonal
            plgpu.commit_smem()
            blocks = [load(folded.at[pl.ds(n * height, ROWS)]) for n in range(stack)]
            return sum(blocks[1:], blocks[0])

        for source, destination in zip(packed, resident, strict=True):
            head = jax.lax.div(tile, jnp.int32(tiles_of_head)) if clustered else 0
            fetch(source.at[head * blocks + jax.lax.axis_index("unit")], destination)
        fixed = [load(ref.at[rows, own]) for ref in constants]

        def step(n, values):
            t = time - 1 - n if reverse else n
            done = iter(range(products))
            values, outputs = scan.step(
                lambda number, operands: multiply(n, next(done), number, operands),
                fixed,
                values,
                [load(ref.at[t, rows, own]) for ref in stacked],
            )
            for ref, value in zip(emitted, outputs, strict=True):
                store(ref.at[t, rows, own], value)
            return tuple(values)

        values = _repeat(time, step, tuple(load(ref.at[rows, own]) for ref in carry))
        for ref, value in zip(final, values, strict=True):
            store(ref.at[rows, own], value)

    def memory(shape, dtype):
        return plgpu.SMEM(shape, dtype, transforms=_swizzled(plgpu, shape, dtype))

    dtype, total, most = weights[0].dtype, tiles * ROWS, max(parts)
    scratch = [memory(w.shape[2:], dtype) for w in weights]
    scratch += [memory((ROWS, hidden), dtype), plgpu.SMEM((most, ROWS, units), dtype)]
    scratch.append(plgpu.Barrier())
    if max(stacks) > 1:
        scratch.append(plgpu.SMEM((2 * ROWS - height, units), jnp.float32))
    if interpret is not None:
        scratch.append(plgpu.ClusterBarrier(collective_axes=("unit",)))
    if clustered:
        mesh = {"grid": (tiles,), "grid_names": ("tile",)}
        mesh |= {"cluster": (blocks,), "cluster_names": ("unit",)}
    else:
        mesh = {"grid": (blocks,), "grid_names": ("unit",)}
    out = [jax.ShapeDtypeStruct((time, total, hidden), d) for d in scan.dtypes]
    out += [jax.ShapeDtypeStruct((total, hidden), v.aval.dtype) for v in scan.carry]
    out += [jax.ShapeDtypeStruct((2, tiles, p * height, hidden), dtype) for p in parts]
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
    """The interpreter's barrier; on a device it would order memory within each block only."""
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)


def _emit(plgpu: Any, assembly: str) -> None:
    """Emits an instruction of PTX that Pallas lacks."""
    ir: Any = importlib.import_module("jaxlib.mlir.ir")
    llvm: Any = importlib.import_module("jaxlib.mlir.dialects.llvm")

    @plgpu.inline_mgpu()
    def emit(_):
        void = ir.Type.parse("!llvm.void")
        llvm.inline_asm(void, [], assembly, "", has_side_effects=True)

    emit()


def _swizzled(plgpu: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, ...]:
    """The layout in shared memory that a matrix product reads."""
    columns = 128 // jnp.dtype(dtype).itemsize
    return plgpu.TilingTransform((8, columns)), plgpu.SwizzleTransform(128)
