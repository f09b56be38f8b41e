"""The engine that runs all time steps in one kernel generated from the step of a cell."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._platform import devices_of, platforms_of
from jaxrnn._schedule.interpret import run_after, run_before, run_inputs
from jaxrnn._schedule.partition import Piece, Schedule, schedule
from jaxrnn._schedule.trace import canonical_step
from jaxrnn._typing import PyTree
from jaxrnn.engines._engine import check_reason, why_not_symbolic
from jaxrnn.engines._fused import hopper, tpu
from jaxrnn.engines._fused.heads import heads_of, with_dense_kernels
from jaxrnn.engines._fused.loop import FusedLoop
from jaxrnn.engines._fused.tiles import NotLocal, Shape, check_local, pullback

OLDEST = (0, 11)  # the first JAX whose Pallas has what the kernels need
DTYPES = (jnp.bfloat16, jnp.float16)
HOPPER = ("H100", "H200", "H800", "H20")  # in the names of GPUs, also GH200


@frozen
class Fused:
    """Runs all time steps in one kernel, generated from the step of the cell.

    The schedule of `Hoisted` leaves products and pointwise pieces in the loop. Here the loop is one
    kernel for its whole length, on NVIDIA's Hopper GPUs and on TPUs: recurrent kernels stay on the
    chip, and the pieces are evaluated tile by tile. The backward pass is a second kernel, made from
    the derivatives of the pieces. What precedes and follows the loop, weight gradients included,
    stays with XLA.

    Accepts cells of any author in bfloat16 or float16 (products accumulate in float32) whose loop
    consists of products ``[H] -> k·H``, or that for each head, and operations that are local to a
    hidden unit, masks and starts included. The platform of the program decides: lowered for a
    platform without a kernel, the same call is the loop of `Hoisted`. Supports every JAX
    transformation. Examples of `jax.vmap` are rows of one kernel, unless each has weights of its
    own; such examples, forward mode and higher derivatives run without the kernel.

    Two such kernels must not run on a GPU at the same time if they use more than 16 blocks each:
    both would wait for blocks that cannot start. XLA runs kernels one after another unless it is
    told otherwise.

    Args:
        units: hidden units of one block of a GPU, a multiple of 8; None: as many as fit best.

    Raises:
        ValueError: when called, this engine cannot run the cell, with the reason.

    Example:
        >>> import jax, jax.numpy as jnp, jaxrnn as rnn
        >>> cell = rnn.LSTM(64)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs, state = jnp.ones((5, 2, 3)), cell.init_state(params, (2,))
        >>> reason = rnn.engines.Fused().why_not(cell, params, state, xs)
        >>> print(reason)  # doctest: +SKIP
        Fused multiplies in bfloat16 or float16, got a kernel of float32; use engines.Hoisted()
    """

    units: int | None = None

    def __post_init__(self):
        units = self.units
        if units is None:
            return
        if not isinstance(units, int) or isinstance(units, bool):
            raise TypeError(f"units must be an int or None, got {units!r}")
        if units < 8 or units % 8:
            raise ValueError(f"units must be a positive multiple of 8, got {units}")

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why this engine cannot run the work, or None if it can."""
        reason = _too_old() or why_not_symbolic(xs, "a fused kernel", batch=True)
        if reason is not None:
            return reason
        gpus = _gpus_of(params, state, xs)
        _, machines, reason = self._machines(_plan(cell, params, state, xs), gpus=gpus)
        return reason or _why_not_platforms(machines, platforms_of(params, state, xs), gpus)

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        return self._run(cell, params, state, xs, reverse)

    def _run(self, cell, params, state, xs, reverse, mode="", interpret: Any = None, skip=()):
        """Runs the work; for ``mode``, ``interpret`` and ``skip`` see `_machines`."""
        check_reason(self, _too_old() or why_not_symbolic(xs, "a fused kernel", batch=True))
        plan = _plan(cell, params, state, xs)
        gpus = _gpus_of(params, state, xs)
        shape, machines, reason = self._machines(plan, mode, interpret, skip, gpus)
        check_reason(self, reason)
        if _not_hopper(gpus) is not None:
            machines.pop("cuda", None)
        once = run_before(plan, params)
        operands, stacked = run_inputs(plan, once, xs)
        time = jax.tree.leaves(xs)[0].shape[0]
        empty = time * math.prod(shape.batch) == 0
        loop = FusedLoop(plan, shape, time, reverse, {} if empty else machines)
        final, emitted = loop(operands, tuple(jax.tree.leaves(state)))
        stacked.update(zip(plan.emitted, emitted, strict=True))
        ys = run_after(plan, once, stacked, time)
        return jax.tree.unflatten(plan.step.out_tree, [*final, *ys])

    def _machines(self, plan: Schedule, mode="", interpret: Any = None, skip=(), gpus=()):
        """The shape of the values, the machine of each platform, and the reason for refusing.

        Tests and tools choose the ``mode``, "cluster", "grid" or "tpu", and ``interpret`` it with
        the parameters of Pallas' interpreter, or ``skip`` a part of the kernel; see `hopper.run`.
        The ``gpus`` are those of the program, as far as they are known.
        """
        shape = Shape((), 0)
        try:
            shape = check_plan(plan)
        except NotLocal as reason:
            return shape, {}, f"{reason}; use engines.Hoisted()"
        gates, machines = [len(product.outvars) for product in plan.products], {}
        head = shape.hidden // shape.heads
        for geometry in hopper.geometries(gates, head, hopper.multiprocessors(gpus)):
            if self.units in (None, geometry.units) and mode in ("", geometry.mode):
                machines["cuda"] = functools.partial(
                    hopper.run, geometry=geometry, interpret=interpret, skip=skip
                )
                break
        if mode in ("", "tpu") and tpu.fits(gates, head):
            machines["tpu"] = functools.partial(tpu.run, interpret=interpret or False)
        if not machines or (self.units is not None and mode == "" and "cuda" not in machines):
            wanted = "" if self.units is None else f" with {self.units} units a block"
            reason = (
                f"the recurrent kernels of {head} hidden units with {gates} gates do not "
                f"fit into the memory of the chip{wanted}; use engines.Hoisted()"
            )
            return shape, {}, reason
        if interpret is not None:
            (machines["interpreted"],) = machines.values()
        return shape, machines, None


def check_plan(plan: Schedule) -> Shape:
    """The shape of the values in a schedule's loop; raises `NotLocal` if no kernel can run it."""
    if not plan.products:
        raise NotLocal("the loop has no matrix product, so there is no kernel to keep on the chip")
    first = plan.products[0]
    shape = Shape(first.operand.aval.shape[:-1], first.kernel.aval.shape[0], heads_of(plan))
    for product in plan.products:
        _check_product(product, first.kernel.aval, shape)
    for name, variables in (("state", plan.state_in), ("emitted value", plan.emitted)):
        for v in variables:
            if v.aval.shape != shape.full or not is_float(v.aval):
                raise NotLocal(
                    f"a {name} is {v.aval.str_short()}, and a kernel holds floating-point numbers "
                    f"[*batch, {shape.hidden}]"
                )
    for v in (*plan.constants, *plan.stacked):
        if not (is_float(v.aval) or v.aval.dtype in (bool, jnp.int32)):
            raise NotLocal(f"the loop reads {v.aval.str_short()}, whose dtype a kernel lacks")
        shape.axes(v.aval.shape, v in plan.constants)
    for item in plan.loop:
        if isinstance(item, Piece):
            check_local(item.eqns, shape, plan.constants)
            pull = pullback(item)
            for closed in (pull.forward, pull.backward):
                if any(map(jnp.ndim, closed.consts)):
                    raise NotLocal("the derivative of the step holds an array")
                check_local(closed.jaxpr.eqns, shape, linear=True)
    return shape


def _check_product(product, first, shape: Shape) -> None:
    kernel, gates = product.kernel.aval, len(product.outvars)
    if kernel.dtype not in DTYPES or kernel.dtype != first.dtype:
        raise NotLocal(
            f"Fused multiplies in bfloat16 or float16, all kernels alike, got {kernel.dtype}"
        )
    square = product.is_plain and kernel.shape == (shape.hidden, gates * shape.hidden)
    if not square or product.operand.aval.shape != shape.full:
        raise NotLocal(
            f"a product in the loop has a kernel {kernel.shape} for {gates} results, and a kernel "
            f"of the engine multiplies [{shape.hidden}] by [{shape.hidden}, gates * {shape.hidden}]"
        )
    if any(v.aval.shape != shape.full for v in product.outvars):
        raise NotLocal("the results of a product are not split into gates of equal size")


def is_float(aval) -> bool:
    """Whether a kernel can hold this value as floating-point numbers."""
    return aval.dtype in (*DTYPES, jnp.float32)


def _plan(cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> Schedule:
    # Gates are separate on every platform: the pieces of a block's units are then local.
    x = jax.tree.map(lambda leaf: leaf[0], xs)
    step = with_dense_kernels(cell.step)
    return schedule(canonical_step(step, params, state, x, separate=True))


def _too_old() -> str | None:
    if jax.__version_info__ >= OLDEST:
        return None
    return f"Fused needs JAX 0.11 or newer, this is {jax.__version__}; use engines.Hoisted()"


def _why_not_platforms(
    machines: Mapping[str, Any], platforms: Sequence[str], gpus: Sequence[Any]
) -> str | None:
    """The reason why a program for these platforms contains no kernel, or None if it does."""
    other = _not_hopper(gpus)
    available = machines.keys() - ({"cuda"} if other else set())
    if not available.isdisjoint(platforms):
        return None
    kernels = " and ".join("cuda (Hopper)" if name == "cuda" else name for name in machines)
    where = " and ".join(platforms) + (f" ({other})" if other and "cuda" in platforms else "")
    return (
        f"Fused has kernels for {kernels} at this size, and the platform is {where}; a program "
        "that is lowered for one that has a kernel contains it"
    )


def _gpus_of(*work: PyTree) -> list[Any]:
    """The GPUs of the program, none if JAX knows none.

    Mosaic compiles for the GPU that JAX knows while it traces, whatever platforms are named, and
    for Hopper if it knows none.
    """
    return [device for device in devices_of(*work) if device.platform == "gpu"]


def _not_hopper(gpus: Sequence[Any]) -> str | None:
    """The name of a GPU for which the kernel is not written, if there is one."""
    return next((gpu.device_kind for gpu in gpus if not _is_hopper(gpu)), None)


def _is_hopper(gpu: Any) -> bool:
    if hasattr(gpu, "compute_capability"):
        return gpu.compute_capability == "9.0"
    return any(name in gpu.device_kind for name in HOPPER)  # all that a mesh tells
