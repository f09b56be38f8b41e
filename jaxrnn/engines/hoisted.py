"""The engine that finds an expert's schedule in a textbook step."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn._arguments import check_size
from jaxrnn._cell import Cell
from jaxrnn._frozen import frozen
from jaxrnn._schedule.partition import Schedule, schedule
from jaxrnn._schedule.products import is_plain_product, over_time
from jaxrnn._schedule.trace import (
    INPUTS,
    PARAMS,
    canonical_step,
    is_literal,
    nbytes,
    separates_gates,
)
from jaxrnn._typing import PyTree
from jaxrnn.engines._chunks import in_chunks
from jaxrnn.engines._loop import Loop, Operands


@frozen
class Hoisted:
    """Takes out of the loop whatever need not be in it, in both directions of time.

    The step is traced and its equations are sorted by what they depend on: what depends on
    parameters only runs once; what depends on inputs runs for all time steps in one product; what
    is not fed back runs after the loop. In the backward pass the pointwise part is replayed, no
    product is done again, and the gradient of a recurrent kernel is one product over time and batch
    after the loop (an outer product, which gives more than it is made of, counts as pointwise). See
    `jaxrnn.explain` for the schedule of a cell.

    Takes every cell: what it cannot split stays in the loop. Every JAX transformation works, to any
    order.

    Args:
        unroll: steps in one iteration of the compiled loop.
        checkpoint_every: keep the state only at every so many steps, and compute what lies between
            again in the backward pass; None keeps what the backward pass needs of every step. About
            √time takes the least memory.

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

    unroll: int = 1
    checkpoint_every: int | None = None

    def __post_init__(self):
        check_size("unroll", self.unroll)
        if self.checkpoint_every is not None:
            check_size("checkpoint_every", self.checkpoint_every)

    def why_not(self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree) -> str | None:
        """Never refuses."""
        return None

    def __call__(
        self, cell: Cell, params: PyTree, state: PyTree, xs: PyTree, *, reverse: bool = False
    ) -> tuple[PyTree, PyTree]:
        """Returns ``(state, ys)`` after all steps of ``xs``."""
        x = jax.tree.map(lambda leaf: leaf[0], xs)
        step = canonical_step(cell.step, params, state, x, separate=separates_gates())
        plan = schedule(step, len(jax.tree.leaves(state)))

        inputs = [
            v for v, kind in zip(plan.jaxpr.invars, step.kinds, strict=True) if kind == INPUTS
        ]
        fixed = [v for v, kind in zip(plan.jaxpr.invars, step.kinds, strict=True) if kind == PARAMS]
        once = dict(zip(fixed, [*step.constants, *jax.tree.leaves(params)], strict=True))
        plan.before(once)

        def run(state: list, slices: list) -> tuple[list, list]:
            return _run(plan, once, state, dict(zip(inputs, slices, strict=True)), self, reverse)

        leaves, slices = jax.tree.leaves(state), jax.tree.leaves(xs)
        if self.checkpoint_every is not None:
            state, ys = in_chunks(run, leaves, slices, self.checkpoint_every, reverse)
        else:
            steps = _steps_at_a_time(plan, slices[0].shape[0])
            state, ys = in_chunks(run, leaves, slices, steps, reverse, again=False)
        return jax.tree.unflatten(step.out_tree, [*state, *ys])


def _run(plan: Schedule, once: dict, state: list, stacked: dict, engine: Hoisted, reverse: bool):
    """The whole schedule over one stretch of time."""
    once = dict(once)
    time = next(iter(stacked.values())).shape[0]
    over_time(plan.inputs, once, stacked)
    loop = Loop(plan, time, reverse, engine.unroll)
    final, emitted = loop(
        Operands(
            kernels=tuple(once[product.kernel] for product in plan.products),
            constants=tuple(once[v] for v in plan.constants),
            state=tuple(state),
            stacked=tuple(stacked[v] for v in plan.stacked),
        )
    )
    stacked.update(zip(plan.emitted, emitted, strict=True))
    over_time(plan.after, once, stacked)

    def output(v):
        if not is_literal(v) and v in stacked:
            return stacked[v]
        value = jnp.asarray(v.val, v.aval.dtype) if is_literal(v) else once[v]
        return jnp.broadcast_to(value, (time, *value.shape))

    return list(final), [output(v) for v in plan.outputs]


# How many steps at a time: forward and backward passes on two cores that share 32 MiB of cache, ms.
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
# Memory costs when it is touched for the first time, 0.25 ms a MiB, and again beyond the cache.
# The C library of Linux keeps a block of up to 32 MiB for the next call, and returns a larger one
# to the system: 1000 steps of a GRU, 16 rows of 64, took 14.8 ms with 31 MiB and 22.8 with 37.
# Against that, each chunk adds up the gradient of all weights once more, and copies what it keeps;
# but one step alone, if its rows are enough for a good product, copies nothing.
LITTLE = 8 * 2**20  # bytes of all of time: no chunks
CHUNK = (5 * 2**19, 5 * 2**20)  # bytes of a chunk, least and most
BLOCK = 30 * 2**20
WIDE = (3 * 2**18, 128)  # bytes and rows of a step: one at a time
HEAVY = 10 * 2**20  # bytes of weights: no chunks


def _steps_at_a_time(plan: Schedule, time: int) -> int:
    """How many steps a CPU takes at a time; a GPU takes all of them at once."""
    if jax.default_backend() != "cpu":
        return time
    # The gradient of a convolution's kernel, taken within the loop over chunks, is not done by the
    # fast kernel: 84 ms became 1,386 for a ConvLSTM on a line.
    if any(
        eqn.primitive.name == "conv_general_dilated" for eqn in (*plan.inputs.eqns, *plan.loop_eqns)
    ):
        return time
    products: list[Any] = [eqn for eqn in plan.inputs.eqns if is_plain_product(eqn)]
    products += [product.eqn for product in plan.products]
    rows = max((math.prod(eqn.outvars[0].aval.shape[:-1]) for eqn in products), default=0)
    weights = sum(nbytes(eqn.invars[1]) for eqn in products)
    sums = [v for product in plan.products for v in product.outvars]
    addends = {v for product in plan.products for v in product.addends}
    kept = sum(nbytes(v) for v in dict.fromkeys([*sums, *plan.state_in, *plan.emitted]))
    kept += sum(nbytes(v) for v in plan.stacked if v not in addends)
    step = sum(nbytes(v) for v in [*plan.stacked, *sums, *plan.state_in])
    if time * step <= LITTLE or weights > HEAVY:
        return time
    if step >= WIDE[0] and rows >= WIDE[1]:
        return 1
    room = (BLOCK - time * kept) // 2
    chunk = max(5 * weights // 4, min(max(room, CHUNK[0]), CHUNK[1]))
    steps = max(1, chunk // step)
    # Chunks that leave no rest save the compilation of a second loop.
    whole = [n for n in range(steps // 2, steps + 1) if n and time % n == 0]
    return max(whole, default=steps)
