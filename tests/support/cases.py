"""The table of cells for the contract tests, and the table of engines.

One row adds a cell to every contract test:

    Case(rnn.LSTM(4), lambda h, n: 4 * h * (n + h + 1))

Exceptions are fields of a row, never an ``if`` on a name in a test. Draws are NumPy's: no
compilation, and the same values on every machine.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from jaxrnn._cell import is_stochastic


@dataclasses.dataclass(frozen=True)
class Floats:
    """One leaf of a step's input: floating-point numbers of this shape after the batch axes."""

    shape: tuple[int, ...] = (3,)
    positive: bool = False  # time differences

    @property
    def input_size(self) -> int:
        return self.shape[-1]

    def draw(self, rng: np.random.Generator, leading: tuple[int, ...], dtype: Any):
        values = rng.normal(size=(*leading, *self.shape))
        return jnp.asarray(np.abs(values) + 0.1 if self.positive else values, dtype)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """One leaf of a step's input: a token, with batch axes only."""

    count: int = 5

    @property
    def input_size(self) -> int:
        return self.count

    def draw(self, rng: np.random.Generator, leading: tuple[int, ...], dtype: Any):
        return jnp.asarray(rng.integers(0, self.count, size=leading), jnp.int32)


@dataclasses.dataclass(frozen=True)
class Case:
    """A small cell, with what the contract tests need to know about it.

    Args:
        cell: the cell; its hidden size is a multiple of 2, for heads and blocks.
        count: the number of parameters as a function of hidden and input size, from the paper;
            None only for cells that are not public.
        x: the pytree of `Floats` and `Tokens` of one step's input; ``init`` gets the size of the
            first leaf.
        name: the name of the case in pytest; default: the class's name.
        size: the constructor's argument h of ``count``.
        diagonal: whether each element of a new state depends only on the same element of the old
            state (of each leaf of the state).
        params: ``(rng, params) -> params`` for cells whose parameters are constrained; otherwise
            normal noise is added to what ``init`` draws, so that no leaf is constant or zero.
        state: ``(rng, state) -> state`` for cells whose states are constrained; otherwise floating
            and complex leaves are normal draws, and others those of ``init_state``.
        dtypes: the parameter dtypes that the cell supports.
        tolerance: the tolerance between engines, for a cell that is not float64 throughout.
        tangents: whether the step has tangents; a function under ``jax.custom_vjp`` has none.
    """

    cell: Any
    count: Callable[[int, int], int] | None = None
    x: Any = Floats()
    name: str = ""
    size: str = "hidden_size"
    diagonal: bool = False
    params: Callable[[np.random.Generator, Any], Any] | None = None
    state: Callable[[np.random.Generator, Any], Any] | None = None
    dtypes: tuple[str, ...] = ("float64", "float32", "bfloat16")
    tolerance: float = 0.0
    tangents: bool = True

    def __str__(self) -> str:
        return self.name or type(self.cell).__name__

    @property
    def input_size(self) -> int:
        return jax.tree.leaves(self.x)[0].input_size

    @property
    def key(self):
        """A key for `rnn.unroll`, if the cell uses one."""
        bound = hasattr(self.cell, "bind")
        return jax.random.key(3) if bound or is_stochastic(self.cell) else None

    def rng(self, salt: int) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(str(self).encode()), salt])


def random_params(case: Case, dtype: str = "float64"):
    """Parameters with every leaf random, biases included."""

    def cast(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, _random_params(case))


@functools.cache
def drawn_params(case: Case, seed: int = 0):
    """What ``init`` draws in float64. Without jit: the cells share the compiled operations."""
    return case.cell.init(jax.random.key(seed), case.input_size, jnp.float64)


@functools.cache
def _random_params(case: Case):
    params, rng = drawn_params(case), case.rng(0)
    if case.params is not None:
        return case.params(rng, params)
    return jax.tree.map(lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), p.dtype), params)


def random_inputs(case: Case, leading: tuple[int, ...], dtype: str = "float64", salt: int = 0):
    """Inputs with these leading axes: ``[time, *batch]``, or ``[*batch]`` for one step."""
    rng = case.rng(100 + salt)
    return jax.tree.map(lambda spec: spec.draw(rng, leading, dtype), case.x)


def random_state(case: Case, batch_shape: tuple[int, ...], dtype: str = "float64"):
    """A possible state of the cell, nonzero where possible."""
    state = case.cell.init_state(random_params(case, dtype), batch_shape)
    rng = case.rng(1)
    if case.state is not None:
        return case.state(rng, state)

    def draw(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        values = 0.5 * rng.normal(size=leaf.shape)
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            values = values + 0.5j * rng.normal(size=leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map(draw, state)


@dataclasses.dataclass(frozen=True)
class EngineCase:
    """An engine, the cells it accepts, and its tolerance compared with ``Sequential()``."""

    engine: Any
    takes: Callable[[Case], bool] = lambda case: True
    tolerance: float = 1e-10

    def __str__(self) -> str:
        return repr(self.engine)


# The tables -------------------------------------------------------------------------------------


def has_parallel_form(case: Case) -> bool:
    return rnn.is_affine(case.cell) or rnn.is_chunked(case.cell)


def has_float_state(case: Case) -> bool:
    def state(key):
        return case.cell.init_state(case.cell.init(key, case.input_size, jnp.float64), ())

    leaves = jax.tree.leaves(jax.eval_shape(state, jax.random.key(0)))  # without compilation
    return all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)


ENGINES = (
    EngineCase(rnn.engines.Sequential(unroll=3)),
    EngineCase(rnn.engines.Hoisted()),
    EngineCase(rnn.engines.Hoisted(unroll=2, checkpoint_every=2)),
    EngineCase(rnn.engines.Associative(), has_parallel_form),
    EngineCase(rnn.engines.Associative(chunk_size=2, tree=True), has_parallel_form),
    EngineCase(rnn.engines.Newton(), lambda case: has_float_state(case) and case.tangents),
    EngineCase(rnn.engines.Auto()),
    EngineCase(rnn.engines.Fused(), lambda case: False),  # 16 bits: tests/engines/test_fused.py
)

TIMED = (Floats(), Floats((1,), positive=True))  # x and the time since the previous step


def normalized_slstm_state(rng, state):
    """The normalizer is at least 1 after the first step."""
    h, c, n, m = (jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype) for leaf in state)
    return rnn.cells.SLSTMState(h, c, 1 + jnp.abs(n), m)


CELLS = (
    # jaxrnn/cells/elman.py, lstm.py, gru.py
    Case(rnn.Elman(4), lambda h, n: h * (n + h + 1)),
    Case(rnn.LSTM(4), lambda h, n: 4 * h * (n + h + 1)),
    Case(rnn.PeepholeLSTM(4), lambda h, n: 4 * h * (n + h + 1) + 3 * h),
    Case(rnn.ProjectedLSTM(4, projection_size=3), lambda h, n: 4 * h * (n + 3 + 1) + h * 3),
    Case(rnn.GRU(4), lambda h, n: 3 * h * (n + h + 1) + h),
    Case(rnn.ResetBeforeGRU(4), lambda h, n: 3 * h * (n + h + 1)),
    # jaxrnn/cells/jordan.py, rectified.py, scrn.py, clockwork.py, fast.py
    Case(rnn.Jordan(4, output_size=3, decay=0.5), lambda h, n: h * (n + 3 + 1) + 3 * (h + 1)),
    Case(rnn.IRNN(4), lambda h, n: h * (n + h + 1)),
    Case(rnn.IndRNN(4), lambda h, n: h * (n + 2), diagonal=True),
    Case(rnn.SCRN(4, context_size=3), lambda h, n: (n + h) * (h + 3)),
    Case(rnn.ClockworkRNN(4, periods=(1, 2)), lambda h, n: h * (n + h + 1)),
    Case(rnn.FastRNN(4), lambda h, n: h * (n + h + 1) + 2),
    Case(rnn.FastGRNN(4), lambda h, n: h * (n + h + 2) + 2),
    # jaxrnn/cells/lstm_variants.py, layer_norm.py, single_gate.py, star.py, bistable.py
    Case(rnn.CoupledLSTM(4), lambda h, n: 3 * h * (n + h + 1)),
    Case(rnn.MultiplicativeLSTM(4), lambda h, n: 4 * h * (n + h + 1) + h * (n + h)),
    Case(rnn.LayerNormLSTM(4), lambda h, n: 4 * h * (n + h + 3) + 2 * h),
    Case(rnn.LightGRU(4), lambda h, n: 2 * h * (n + h + 2)),
    Case(rnn.MinimalGatedUnit(4), lambda h, n: 2 * h * (n + h + 1)),
    Case(rnn.UpdateGateRNN(4), lambda h, n: 2 * h * (n + h + 1)),
    Case(rnn.JANET(4), lambda h, n: 2 * h * (n + h + 1)),
    Case(rnn.STAR(4), lambda h, n: 2 * h * (n + 1) + h * h),
    Case(rnn.BRC(4), lambda h, n: h * (3 * n + 4), diagonal=True),
    Case(rnn.NBRC(4), lambda h, n: h * (3 * n + 2 * h + 2)),
    # jaxrnn/cells/recurrent_highway.py, antisymmetric.py, oscillators.py, lem.py, orthogonal.py
    Case(rnn.RecurrentHighway(4, depth=2), lambda h, n: 2 * h * n + 2 * 2 * h * (h + 1)),
    Case(rnn.AntisymmetricRNN(4), lambda h, n: h * (n + h + 1)),
    Case(
        rnn.AntisymmetricRNN(4, gated=True),
        lambda h, n: h * (2 * n + h + 2),
        name="AntisymmetricRNN(gated)",
    ),
    Case(rnn.CoRNN(4), lambda h, n: h * (n + 2 * h + 1)),
    Case(rnn.UnICORNN(4), lambda h, n: h * (n + 3), diagonal=True),
    Case(rnn.LEM(4), lambda h, n: 4 * h * (n + h + 1)),
    Case(rnn.OrthogonalRNN(4), lambda h, n: h * (n + h + 1)),
    # jaxrnn/cells/liquid.py, lmu.py, conv_lstm.py, slstm.py, pararnn.py
    Case(rnn.LTC(4, unfolds=2), lambda h, n: h * (n + h + 3), x=TIMED),
    Case(rnn.CfC(4, backbone_size=6), lambda h, n: 6 * (n + h + 1) + 4 * h * (6 + 1), x=TIMED),
    Case(rnn.LMU(4, order=5, theta=6.0), lambda h, n: (n + h) * (1 + h) + 5 * (1 + h)),
    Case(
        rnn.ConvLSTM(2, kernel_shape=(3,), spatial_shape=(5,)),
        lambda h, n: 4 * h * (3 * (n + h) + 1),
        x=Floats((5, 3)),
        name="ConvLSTM(1D)",
        size="features",
    ),
    Case(
        rnn.ConvLSTM(2, kernel_shape=(3, 2), spatial_shape=(3, 4)),
        lambda h, n: 4 * h * (6 * (n + h) + 1),
        x=Floats((3, 4, 3)),
        name="ConvLSTM(2D)",
        size="features",
    ),
    Case(
        rnn.SLSTM(4, num_heads=2),
        lambda h, n: 4 * h * (n + h // 2 + 1),
        state=normalized_slstm_state,
    ),
    Case(rnn.ParaGRU(4), lambda h, n: 3 * h * (n + 2), diagonal=True),
    Case(rnn.ParaLSTM(4), lambda h, n: 3 * h * (n + 2) + 2 * h, diagonal=True),
    # jaxrnn/cells/lru.py, s5.py, selective_ssm.py, minrnn.py, rglru.py, hgrn.py
    Case(
        rnn.LRU(4, output_size=3),
        lambda h, n: 3 * h + 2 * h * (n + 3) + 3 * n,
        diagonal=True,
    ),
    Case(
        rnn.S5(4, output_size=3),
        lambda h, n: 3 * h + 2 * h * (n + 3) + 3 * n,
        diagonal=True,
    ),
    Case(
        rnn.SelectiveSSM(4, state_size=3, rank=2),
        lambda h, n: n * (2 + 2 * 3 + h) + h * (2 + 1 + 3 + 1),
        diagonal=True,
    ),
    Case(rnn.MinGRU(4), lambda h, n: 2 * h * (n + 1), diagonal=True),
    Case(rnn.MinLSTM(4), lambda h, n: 3 * h * (n + 1), diagonal=True),
    Case(
        rnn.RGLRU(4),
        lambda h, n: h * ((2 if n == h else 3) * n + 3),
        x=Floats((4,)),
        diagonal=True,
    ),
    Case(rnn.HGRN(4), lambda h, n: 3 * h * (n + 1) + 2 * h, diagonal=True),
    # jaxrnn/cells/qrnn.py, sru.py
    Case(rnn.QRNN(4), lambda h, n: 3 * h * (n + 1), diagonal=True),
    Case(rnn.QRNN(4, window=2), lambda h, n: 3 * h * (2 * n + 1), name="QRNN(window)"),
    Case(
        rnn.SRU(4), lambda h, n: h * ((3 if n == h else 4) * n + 2), x=Floats((4,)), diagonal=True
    ),
    Case(rnn.PeepholeSRU(4), lambda h, n: 4 * h * (n + 1), diagonal=True),
    # jaxrnn/cells/gla.py, mlstm.py, deltanet.py
    Case(
        rnn.GatedLinearAttention(4, num_heads=2, key_size=4, gate_rank=3),
        lambda h, n: n * (2 * 4 + h + 3) + 3 * 4 + 4,
        diagonal=True,
    ),
    Case(
        rnn.MLSTM(4, num_heads=2, key_size=4),
        lambda h, n: (n + 1) * (2 * 4 + 2 * h + 2 * 2),
    ),
    Case(rnn.DeltaNet(4, num_heads=2, key_size=4), lambda h, n: n * (2 * 4 + h + 2)),
    Case(
        rnn.GatedDeltaNet(4, num_heads=2, key_size=4),
        lambda h, n: n * (2 * 4 + h + 2 * 2) + 2 * 2,
    ),
)

WRAPPERS = (
    Case(rnn.wrappers.EmitState(rnn.LSTM(4)), name="EmitState(LSTM)"),
    Case(rnn.wrappers.RecurrentDropout(rnn.GRU(4), 0.4), name="RecurrentDropout(GRU)"),
    Case(rnn.wrappers.Residual(rnn.GRU(3)), name="Residual(GRU)"),
    Case(rnn.wrappers.VariationalDropout(rnn.GRU(4), 0.4, 0.4), name="VariationalDropout(GRU)"),
    Case(rnn.wrappers.WeightDrop(rnn.LSTM(4), 0.4), name="WeightDrop(LSTM)"),
    Case(rnn.wrappers.Zoneout(rnn.LSTM(4), 0.4), name="Zoneout(LSTM)"),
)
