"""The engine that derives an optimized schedule from the step of a cell."""

import functools
import math
from typing import Any

import jax

from jaxrnn._arguments import check_size
from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._platform import ACCELERATOR, CPU, by_platform
from jaxrnn._schedule.interpret import run_after, run_before, run_inputs
from jaxrnn._schedule.partition import Schedule, schedule_cell
from jaxrnn._schedule.products import is_plain_product
from jaxrnn._schedule.trace import all_eqns, var_bytes
from jaxrnn._sharding import is_explicit
from jaxrnn._typing import PyTree
from jaxrnn.engines._chunks import in_chunks
from jaxrnn.engines._engine import check_symbolic, why_not_options
from jaxrnn.engines._loop import Loop, has_tangent_rules
from jaxrnn.engines._plain import PlainLoop, only_plain_products_are_hoisted, with_derivatives_of
from jaxrnn.engines.sequential import Sequential


@frozen
class Hoisted:
    """Hoists everything that does not depend on the state out of the loop over time.

    The step is traced and its equations are sorted by what they depend on: equations of parameters
    only run once, equations of inputs run for all time steps in one product, and results that are
    not fed back are computed after the loop. The backward pass recomputes the pointwise part and no
    product, and the gradient of a recurrent kernel is one product over time and batch after the
    loop (an outer product, whose result is larger than its operands, counts as pointwise).
    `jaxrnn.explain` shows the schedule of a cell. On a CPU, values that are not differentiated come
    from a plain loop where that is as fast. The schedule is that of the platform that the program
    is compiled for; see `jaxrnn.for_platforms`.

    Accepts every cell; equations that cannot be hoisted stay in the loop. Supports every JAX
    transformation, to any order.

    Args:
        unroll: steps in one iteration of the compiled loop; None is 1 on a CPU and 8 elsewhere.
        checkpoint_every: the number of steps between checkpoints. The backward pass keeps only the
            states at checkpoints and recomputes the steps between them; about √time needs the least
            memory. None keeps the residuals of every step.

    Raises:
        TypeError, ValueError: an option is not a positive int.

    Example:
        >>> import jax, jaxrnn as rnn
        >>> cell = rnn.LSTM(4)
        >>> params = cell.init(jax.random.key(0), input_size=3)
        >>> xs = jax.random.normal(jax.random.key(1), (20, 2, 3))
        >>> def loss(params, engine):
        ...     return rnn.unroll(cell, params, xs, engine=engine)[1].sum()
        >>> fast = jax.grad(loss)(params, rnn.engines.Hoisted(checkpoint_every=5))
        >>> plain = jax.grad(loss)(params, rnn.engines.Sequential())
        >>> bool(jax.numpy.allclose(fast.recurrent_kernel, plain.recurrent_kernel, atol=1e-5))
        True
    """

    unroll: int | None = None
    checkpoint_every: int | None = None

    def __post_init__(self):
        if self.unroll is not None:
            check_size("unroll", self.unroll)
        if self.checkpoint_every is not None:
            check_size("checkpoint_every", self.checkpoint_every)

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """The reason why an option cannot be had, or None: every cell is accepted."""
        return why_not_options(self, xs, "unroll", "checkpoint_every")

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        check_symbolic(self, xs, "unroll", "checkpoint_every")
        run = functools.partial(self._run, cell, reverse)
        return by_platform(run, params, state, xs)

    def _run(
        self, cell: Cell, reverse: bool, platform: str, params: PyTree, state: PyTree, xs: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The work in the schedule of one kind of platform."""
        plan = schedule_cell(cell, params, state, xs, platform)
        if is_explicit(xs) and _has_convolution(plan):
            return Sequential(self.unroll or 1)(cell, params, state, xs, reverse=reverse)
        once = run_before(plan, params)
        work = list(once.values()), jax.tree.leaves(state), jax.tree.leaves(xs)
        time, checkpoint = work[2][0].shape[0], self.checkpoint_every is not None
        # The number of steps may be symbolic, in jax.export.
        unroll = self.unroll or (UNROLL[platform] if isinstance(time, int) else 1)
        every = self.checkpoint_every
        if every is None:
            every = _steps_per_chunk(plan, time) if platform == CPU else time

        def chunk(values: list, state: list, slices: list) -> tuple[list, list]:
            known, time = dict(zip(once, values, strict=True)), slices[0].shape[0]
            operands, stacked = run_inputs(plan, known, slices)
            final, emitted = Loop(plan, time, reverse, unroll)(operands, tuple(state))
            stacked.update(zip(plan.emitted, emitted, strict=True))
            return list(final), run_after(plan, known, stacked, time)

        def hoisted(values: list, state: list, slices: list) -> tuple[list, list]:
            return in_chunks(chunk, values, state, slices, every, reverse, checkpoint=checkpoint)

        if platform != CPU or not _values_in_plain_loop(plan):
            leaves, ys = hoisted(*work)
        else:
            plain = PlainLoop(plan, tuple(once), reverse, unroll)
            if not checkpoint and every < time and has_tangent_rules(plan.loop_eqns):
                leaves, ys = plain.differentiable(every)(*work)
            else:
                leaves, ys = with_derivatives_of(plain.values, hoisted, *work)
        return jax.tree.unflatten(plan.step.out_tree, [*leaves, *ys])


UNROLL = {CPU: 1, ACCELERATOR: 8}
"""Steps in one iteration of the loop.

On a GPU, steps of an iteration share the kernels that count, that cast the first operand, and that
write what the steps stack; docs/accelerators.md has their number."""
ROWS = 8
"""Rows of a product for which, on a CPU, hoisting it saves no time in a forward pass."""


def _has_convolution(plan: Schedule) -> bool:
    """Whether a step has a convolution.

    At all time steps at once, steps and rows would be one axis of it, which explicit shardings do
    not allow.
    """
    eqns = all_eqns(plan.step.jaxpr.eqns)
    return any(eqn.primitive.name == "conv_general_dilated" for eqn in eqns)


def _values_in_plain_loop(plan: Schedule) -> bool:
    """Whether values without derivatives are computed faster without hoisting."""
    if not plan.state_in:
        return False
    if not only_plain_products_are_hoisted(plan):
        return False
    rows = [_rows(eqn) for eqn in plan.inputs.eqns if is_plain_product(eqn)]
    # A symbolic batch, of jax.export, may be of any size.
    return bool(rows) and all(isinstance(n, int) and n >= ROWS for n in rows)


def _rows(eqn: Any) -> int:
    return math.prod(eqn.outvars[0].aval.shape[:-1])


# Steps per chunk: forward and backward passes on two cores that share 32 MiB of cache, in ms.
#   steps                          1      2      4      8     16     32    128    all   weights
#   128, 32, 128, 256 LSTM      53.0                 45.9   47.2                 61.2   1.5 MiB
#   the same, GRU                                    33.0   42.1   46.3          48.4   1.1
#   512, 8, 64, 128 LSTM                                           14.6   13.0   22.8   0.4
#   100, 128, 64, 128 LSTM      58.6          53.4   54.5                        75.7   0.4
#   256, 64, 512, 512 GRU        513                  490                               6
#   64, 128, 256, 512 LSTM       273    307           325                         276   6
#   the same, GRU                207    235           237                         222   4.5
#   64, 256, 128, 256 GRU        132           174    191                         157   1.1
#   64, 32, 768, 768 GRU         213                  159    150                  137   13.5
#   64, 16, 1024, 1024 LSTM      408                  220    202                  175   32
# Memory costs 0.25 ms a MiB when it is touched for the first time, and again beyond the cache. The
# C library of Linux keeps a freed block of up to 32 MiB for the next call and returns a larger one
# to the system: 1000 steps of a GRU, 16 rows of 64, took 14.8 ms with 31 MiB and 22.8 with 37.
# On the other hand, each chunk accumulates the gradient of all weights once and copies its
# residuals; a chunk of one step, if its rows suffice for an efficient product, copies nothing.
SMALL = 8 * 2**20  # bytes of the whole sequence: no chunks
CHUNK = (5 * 2**19, 5 * 2**20)  # bytes of a chunk, minimum and maximum
BLOCK = 30 * 2**20  # bytes that the allocator keeps
WIDE = (3 * 2**18, 128)  # bytes and rows of a step: chunks of one step
HEAVY = 10 * 2**20  # bytes of weights: no chunks

# A batch that is sharded over devices automatically has a part of these bytes on each, and each
# chunk sums the gradients of all weights over devices. Steps per chunk as above, times the factor;
# two devices of a core each, LSTM, in ms:
#   factor                         1      2      4      8     no chunks
#   128, 32, 128, 256           60.9   57.0   54.9   54.4     75.2
#   512, 8, 64, 128             22.0   21.6   18.6   20.0     20.3
#   96, 24, 80, 192             18.8   18.5   16.6   16.0     16.5
#   1000, 16, 32, 64            28.8   29.7   29.5   33.5     57.1
#   64, 128, 256, 512            505    504    471    459      499
SPREAD = 4  # the factor


def _may_be_spread() -> bool:
    """Whether the batch may be sharded over devices of which the shapes tell nothing."""
    return jax.device_count() > 1 and not jax.sharding.get_abstract_mesh().manual_axes


def _steps_per_chunk(plan: Schedule, time: int) -> int:
    """The number of steps per chunk on a CPU; elsewhere the whole sequence is one chunk."""
    if not isinstance(time, int):
        return time
    # Inside the loop over chunks, XLA does not use its fast kernel for the gradient of a
    # convolution's kernel: 84 ms became 1,386 for a 1D ConvLSTM.
    if any(
        eqn.primitive.name == "conv_general_dilated" for eqn in (*plan.inputs.eqns, *plan.loop_eqns)
    ):
        return time
    products: list[Any] = [eqn for eqn in plan.inputs.eqns if is_plain_product(eqn)]
    products += [product.eqn for product in plan.products]
    rows = max(map(_rows, products), default=0)
    weights = sum(var_bytes(eqn.invars[1]) for eqn in products)
    sums = [v for product in plan.products for v in product.outvars]
    addends = {v for product in plan.products for v in product.addends}
    kept = sum(var_bytes(v) for v in dict.fromkeys([*sums, *plan.state_in, *plan.emitted]))
    kept += sum(var_bytes(v) for v in plan.stacked if v not in addends)
    step = sum(var_bytes(v) for v in [*plan.stacked, *sums, *plan.state_in])
    if time * step <= SMALL or weights > HEAVY:
        return time
    chunks = SPREAD if _may_be_spread() else 1
    if step >= WIDE[0] and rows >= WIDE[1]:
        return min(time, chunks)
    room = (BLOCK - time * kept) // 2
    chunk = max(5 * weights // 4, min(max(room, CHUNK[0]), CHUNK[1]))
    steps = min(time, chunks * max(1, chunk // step))
    # Chunks without a remainder save the compilation of a second loop.
    whole = [n for n in range(steps // 2, steps + 1) if n and time % n == 0]
    return max(whole, default=steps)
