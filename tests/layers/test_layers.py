"""Layers: one step and all steps agree, halves make a whole, dropout and keys, errors."""

import dataclasses
import operator
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.layers import Bidirectional, Recurrent, Stack, can_step
from tests.support.helpers import assert_near

KEY = jax.random.key(0)
ARRAY = np.ones((5, 2, 3))


def draw(layer, input_size=3, batch=(2,)):
    """Parameters and a state with every leaf random."""
    rng = np.random.default_rng(1)

    def noise(tree):
        return jax.tree.map(lambda leaf: leaf + 0.4 * rng.normal(size=leaf.shape), tree)

    params = noise(layer.init(KEY, input_size))
    return params, noise(layer.init_state(params, batch))


@dataclasses.dataclass(frozen=True)
class Noise:
    """Adds normal noise to its input, and keeps the noise as its state."""

    output_size: int
    stochastic = True

    def init(self, key, input_size, dtype=None):
        return ()

    def init_state(self, params, batch_shape=()):
        return jnp.zeros((*batch_shape, self.output_size))

    def step(self, params, state, x, *, key=None):
        noise = jnp.zeros_like(x) if key is None else jax.random.normal(key, x.shape, x.dtype)
        return noise, x + noise


@dataclasses.dataclass(frozen=True)
class Same:
    """Gives out what comes in."""

    output_size: int

    def init(self, key, input_size, dtype=None):
        return ()

    def init_state(self, params, batch_shape=()):
        return ()

    def step(self, params, state, x):
        return (), x


@dataclasses.dataclass(frozen=True)
class Doubling:
    """A normalization that is none, with a parameter."""

    def init(self, key, x):
        return 2 * jnp.ones(())

    def apply(self, params, x):
        return params * x


# One step and many --------------------------------------------------------------------------------

STACK = Stack((rnn.LSTM(4), Stack((rnn.Elman(4), rnn.GRU(4)))), residual=(False, True))


def test_all_layers_at_each_step_or_each_layer_over_all_steps():
    params, state = draw(STACK)
    xs = np.random.default_rng(2).normal(size=(5, 2, 3))
    mask = np.array([[1, 1], [0, 1], [1, 0], [1, 1], [0, 1]], bool)
    starts = np.array([[0, 1], [1, 0], [0, 0], [0, 1], [0, 0]], bool)
    xs[~mask] = np.nan

    @jax.jit
    def three(params, state, xs):
        flags = {"mask": mask, "starts": starts}
        first, y_first = STACK.step(params, state, xs[0])
        return {
            "apply": STACK.apply(params, state, xs, **flags),
            "unroll": rnn.unroll(STACK, params, xs, state, **flags),
            "states": rnn.unroll(rnn.wrappers.EmitState(STACK), params, xs, state, **flags)[1],
            "first": (first, y_first[None]),
            "apply first": STACK.apply(params, state, xs[:1]),
        }

    out = three(params, state, xs)
    assert_near(out["apply"], out["unroll"], 1e-12)
    assert_near(out["first"], out["apply first"], 1e-12)
    last = jax.tree.map(lambda leaf: leaf[3, 0], out["states"])  # the last valid step of row 0
    assert_near(last, jax.tree.map(lambda leaf: leaf[0], out["apply"][0]), 1e-12)
    assert isinstance(STACK, rnn.Cell)


def test_two_halves_are_the_whole():
    layer = Stack((rnn.LSTM(4), rnn.GRU(4)), residual=(False, True))
    params, state = draw(layer)
    xs = np.random.default_rng(2).normal(size=(6, 2, 3))
    lengths = np.array([6, 4])

    @jax.jit
    def run(xs, state, lengths):
        return layer.apply(params, state, xs, lengths=lengths)

    final, ys = run(xs, state, lengths)
    middle, first = run(xs[:3], state, lengths.clip(max=3))
    end, second = run(xs[3:], middle, lengths - 3)
    assert_near((end, jnp.concatenate([first, second])), (final, ys), 1e-12)


def test_no_state_given_is_the_initial_state():
    layer = Bidirectional(rnn.wrappers.LearnedInitialState(rnn.GRU(4)), STACK)
    params, _ = draw(layer)
    given = layer.apply(params, layer.init_state(params, (2,)), ARRAY)
    assert_near(layer.apply(params, None, ARRAY), given, 0.0)
    assert not np.allclose(given[0].forward.hidden, layer.init_state(params, (2,)).forward.hidden)


def test_a_layer_that_needs_the_whole_sequence_has_no_step():
    whole = Recurrent(rnn.GRU(4), reverse=True), Bidirectional(rnn.GRU(4), rnn.GRU(4))
    for layer in (*whole, *(Stack((rnn.GRU(4), layer)) for layer in whole)):
        assert not can_step(layer)
        with pytest.raises(TypeError, match="lacks step"):
            rnn.unroll(layer, (), ARRAY)
        assert isinstance(layer, rnn.layers.Layer)
    with pytest.raises(TypeError, match="reverse=True.* call apply, not step"):
        whole[0].step((), (), ARRAY[0])


@dataclasses.dataclass(frozen=True)
class Twice:
    """An engine that shows that it was asked."""

    def why_not(self, cell, params, state, xs):
        return None

    def __call__(self, cell, params, state, xs, *, reverse=False):
        state, ys = rnn.engines.Sequential()(cell, params, state, xs, reverse=reverse)
        return state, 2 * ys


def test_recurrent_runs_its_engine_in_its_direction():
    params, state = draw(rnn.Elman(4))
    _, ys = Recurrent(rnn.Elman(4), Twice(), reverse=True).apply(params, state, ARRAY)
    _, want = rnn.unroll(rnn.Elman(4), params, ARRAY, state, reverse=True)
    assert_near(ys, 2 * want, 1e-15)


def test_layers_are_values():
    for layer in (STACK, Bidirectional(STACK, rnn.GRU(4), merge=operator.add)):
        copy = pickle.loads(pickle.dumps(layer))
        assert copy == layer
        assert hash(copy) == hash(layer)
        assert dataclasses.replace(layer) == layer
    assert Stack((rnn.GRU(4),)) == Stack((Recurrent(rnn.GRU(4)),))
    assert Stack([rnn.GRU(4)]) != Stack((rnn.GRU(4),), dropout=0.1)


def test_sizes_and_dtypes_go_from_layer_to_layer():
    layer = Stack((rnn.LSTM(4), Bidirectional(rnn.GRU(3), rnn.GRU(2)), rnn.Elman(5)))
    params = layer.init(KEY, 3, "float32")
    kernels = [params[0], *params[1], params[2]]
    assert [p.input_kernel.shape[0] for p in kernels] == [3, 4, 4, 5]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert layer.output_size == 5
    assert Bidirectional(rnn.GRU(3), rnn.GRU(3), merge=operator.mul).output_size == 3
    assert Stack((rnn.ConvLSTM(2, (3,), (5,)),)).input_rank == 2


def test_equal_cells_get_unequal_parameters():
    params = Stack((rnn.GRU(3), rnn.GRU(3), Bidirectional(rnn.GRU(3), rnn.GRU(3)))).init(KEY, 3)
    kernels = [p.input_kernel for p in (params[0], params[1], *params[2])]
    assert len({float(kernel[0, 0]) for kernel in kernels}) == 4


@pytest.mark.thorough
@jax.numpy_dtype_promotion("standard")  # the module promotes its own parameters
def test_a_module_of_flax_normalizes():
    linen = pytest.importorskip("flax.linen")
    layer = Stack((rnn.GRU(4), rnn.GRU(3)), normalization=linen.LayerNorm())
    low = layer.init(KEY, 3, "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype("bfloat16")}

    params, state = draw(layer)
    _, ys = layer.apply(params, state, ARRAY)
    _, h = rnn.unroll(rnn.GRU(4), params[0], ARRAY, state[0])
    centred = h - h.mean(axis=-1, keepdims=True)
    u = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    scale = params[1].normalization["params"]
    u = u * scale["scale"] + scale["bias"]
    assert_near(ys, rnn.unroll(rnn.GRU(3), params[1].layer, u, state[1])[1], 1e-12)


# Randomness ---------------------------------------------------------------------------------------

RATE = 0.3
ONES = np.ones((100, 8, 16))


def dropped(layer, **options):
    """What a layer makes of ones, given a key: all at once, and step by step."""
    params = layer.init(KEY, 16)
    for _, ys in (
        layer.apply(params, None, ONES, key=KEY, **options),
        rnn.unroll(layer, params, ONES, key=KEY, **options),
    ):
        yield np.asarray(ys)


def test_dropout_stands_between_layers_only():
    same, kept = Same(16), 1 / (1 - RATE)
    for ys in dropped(Stack((same,), dropout=RATE)):
        assert (ys == 1).all()
    for ys in dropped(Stack((same, same), dropout=RATE)):
        np.testing.assert_allclose(np.unique(ys), [0, kept])
        np.testing.assert_allclose((ys == 0).mean(), RATE, atol=0.02)
        np.testing.assert_allclose(ys.mean(), 1, atol=0.03)
        # No two steps, rows or features are dropped together.
        for axis in range(3):
            np.testing.assert_allclose((ys == 0).mean(axis=axis).std(), 0, atol=0.2)
            assert (np.diff(ys, axis=axis) != 0).any()
    for ys in dropped(Stack((same, same, same), dropout=RATE)):
        np.testing.assert_allclose((ys != 0).mean(), (1 - RATE) ** 2, atol=0.02)


def test_a_residual_sum_passes_dropout_by():
    layer = Stack((Same(16), Same(16)), dropout=RATE, residual=(False, True))
    for ys in dropped(layer):
        np.testing.assert_allclose(np.unique(ys), [1, 1 + 1 / (1 - RATE)])


def test_dropout_needs_a_key_and_leaves_skipped_steps_zero():
    layer = Stack((Same(16), Same(16)), dropout=RATE)
    assert (layer.apply(layer.init(KEY, 16), None, ONES)[1] == 1).all()
    lengths = np.arange(8) * 14
    valid = np.arange(100)[:, None] < lengths
    for ys in dropped(layer, lengths=lengths):
        assert (ys[~valid] == 0).all()
        np.testing.assert_allclose((ys[valid] == 0).mean(), RATE, atol=0.02)


def test_no_two_layers_share_randomness():
    noise, zeros = Noise(4), np.zeros((3, 2, 4))
    layer = Stack((noise, Bidirectional(noise, noise, merge=operator.add), Stack((noise, noise))))
    (first, ends, inner), _ = layer.apply(layer.init(KEY, 4), None, zeros, key=KEY)
    last = [first, ends.forward, *inner]
    assert len({float(state[0, 0]) for state in (*last, ends.backward)}) == 5

    stepped = Stack((noise, Stack((noise, noise))))
    params = stepped.init(KEY, 4)
    (first, inner), y = stepped.step(params, stepped.init_state(params, (2,)), zeros[0], key=KEY)
    assert len({float(state[0, 0]) for state in (first, *inner)}) == 3
    assert_near(y, first + inner[0] + inner[1], 1e-12)


def test_what_is_drawn_once_a_sequence_is_drawn_for_each_layer():
    cell = rnn.wrappers.WeightDrop(rnn.Elman(4), 0.5)
    layer = Stack((cell, cell), normalization=Doubling())
    params, _ = draw(layer)
    bound = layer.bind(params, KEY, (2,))
    kernels = [bound[0].recurrent_kernel, bound[1].layer.recurrent_kernel]
    assert 0 < (kernels[0] == 0).mean() < 1
    assert ((kernels[0] == 0) != (kernels[1] == 0)).any()
    assert jax.tree.structure(bound) == jax.tree.structure(params)
    _, ys = rnn.unroll(layer, params, ARRAY, key=KEY)
    assert not np.allclose(ys, layer.apply(params, None, ARRAY)[1])


# Errors -------------------------------------------------------------------------------------------

GRU4 = Stack((rnn.GRU(4), rnn.GRU(4)))
PARAMS = GRU4.init(KEY, 3)
BOTH = Bidirectional(rnn.GRU(4), rnn.GRU(4))


def bare(**options):
    return rnn.from_step(
        lambda p, s, x: (s, x), init_state=lambda p, b: (), init=lambda k, n, d: (), **options
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Recurrent(rnn.GRU), "cell must be an instance, got the class GRU"),
        (lambda: Recurrent(BOTH), "lacks step"),
        (lambda: Recurrent(rnn.GRU(4), "fast"), "engine must be a value from jaxrnn.engines"),
        (lambda: Recurrent(rnn.GRU(4), reverse=1), "reverse must be True or False, got 1"),
        (lambda: Stack(rnn.GRU(4)), r"layers must be a tuple .* for one layer write \(layer,\)"),
        (lambda: Stack(()), "layers must hold at least one"),
        (lambda: Stack((rnn.GRU(4), rnn.GRU)), r"layers\[1\] must be an instance, got the class"),
        (lambda: Stack((rnn.GRU(4), 3)), r"layers\[1\] must be a layer or a cell, got 3"),
        (lambda: Stack((rnn.GRU(4),), dropout=1.0), r"dropout .* must lie in \[0, 1\), got 1.0"),
        (lambda: Stack((rnn.GRU(4),), dropout="0.1"), "dropout must be a Python number"),
        (lambda: Stack((rnn.GRU(4),), residual=1), "residual must be a tuple"),
        (lambda: Stack((rnn.GRU(4),), residual=(1,)), "residual must hold bools"),
        (
            lambda: Stack((rnn.GRU(4),), residual=(True, True)),
            "residual must have 1 entries, got 2",
        ),
        (lambda: Stack((rnn.GRU(4),), normalization=np.mean), "normalization must be an instance"),
        (
            lambda: Stack((rnn.GRU(4), rnn.GRU(5)), residual=True).init(KEY, 4),
            r"layers\[1\].* 4 features and 5; .* residual=\(True, False\)",
        ),
        (
            lambda: Stack((rnn.GRU(4), rnn.GRU(4)), residual=True).apply(PARAMS, None, ARRAY),
            r"layers\[0\].* \(5, 2, 3\) and \(5, 2, 4\)",
        ),
        (lambda: GRU4.apply(PARAMS[0], None, ARRAY), "params must have 2 entries, got 4"),
        (lambda: GRU4.apply(list(PARAMS), None, ARRAY), "params must be a tuple with 2 entries"),
        (lambda: GRU4.apply(PARAMS, (None,), ARRAY), "state must have 2 entries, got 1"),
        (lambda: GRU4.apply(PARAMS, None, ARRAY, key=0), "key must be one JAX random key"),
        (
            lambda: GRU4.apply(PARAMS, None, ARRAY, lengths=np.array([5, 6])),
            "lengths must lie between",
        ),
        (lambda: GRU4.init(KEY, 0), "input_size must be a positive int, got 0"),
        (lambda: Stack((bare(), rnn.GRU(4))).init(KEY, 3), r"layers\[0\].output_size is None"),
        (lambda: Bidirectional(rnn.GRU(4), Recurrent(rnn.GRU(4), reverse=True)), "backward must"),
        (lambda: Bidirectional(BOTH, rnn.GRU(4)), "forward must be a layer that runs forward"),
        (lambda: Bidirectional(rnn.GRU(4), None), "backward must be a layer or a cell, got None"),
        (lambda: Bidirectional(rnn.GRU(4), rnn.GRU(4), "sum"), "merge must be a function"),
        (lambda: BOTH.apply((PARAMS[0],), None, ARRAY), "params must have 2 entries, got 1"),
        (lambda: rnn.unroll(BOTH, PARAMS, ARRAY), "lacks step; .* for a layer call its apply"),
    ],
)
def test_errors_name_the_argument(bad, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bad()
