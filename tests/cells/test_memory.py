"""What cells can remember: the adding problem over 100 steps, and the parity of bits.

    python -m pytest -m slow tests/test_memory.py

Small networks, trained in seconds: a dense layer of rectified linear units, the cell, and a linear
output layer, in float32. One compiled loop contains training and data.
"""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxrnn as rnn
from jaxrnn import initializers

WIDTH, HIDDEN, BATCH = 16, 32, 32


def name_of(value):
    return type(value).__name__ if isinstance(value, rnn.Cell) else str(value)


def dense(key, rows, columns):
    return {
        "kernel": initializers.LecunNormal()(key, (rows, columns), "float32"),
        "bias": jnp.zeros(columns, "float32"),
    }


def network(cell, features, outputs):
    """``(init, apply)``; ``apply`` gives the outputs after every step."""

    def init(key):
        keys = jax.random.split(key, 3)
        return {
            "in": dense(keys[0], features, WIDTH),
            "cell": cell.init(keys[1], WIDTH, "float32"),
            "out": dense(keys[2], cell.output_size, outputs),
        }

    def apply(params, xs):
        xs = jax.nn.relu(xs @ params["in"]["kernel"] + params["in"]["bias"])
        _, ys = rnn.unroll(cell, params["cell"], xs)
        return ys @ params["out"]["kernel"] + params["out"]["bias"]

    return init, apply


def train(cell, draw, loss, features, steps, rate):
    """Trains with Adam and returns ``(apply, params)``."""
    init, apply = network(cell, features, 1)
    schedule = optax.cosine_decay_schedule(rate, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def objective(params, key):
        xs, targets = draw(key)
        return loss(apply(params, xs), targets)

    @jax.jit
    def run(key):
        params = init(key)

        def body(carry, key):
            params, moments = carry
            gradient = jax.grad(objective)(params, key)
            updates, moments = optimizer.update(gradient, moments, params)
            return (optax.apply_updates(params, updates), moments), None

        keys = jax.random.split(jax.random.fold_in(key, 1), steps)
        (params, _), _ = jax.lax.scan(body, (params, optimizer.init(params)), keys)
        return params

    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):  # Optax counts in floats
        return apply, run(jax.random.key(0))


# The adding problem -------------------------------------------------------------------------------

TIME = 100


def draw_sums(key, batch=BATCH):
    """Numbers in [0, 1) of which two are marked, one in each half; the target is their sum."""
    keys = jax.random.split(key, 2)
    numbers = jax.random.uniform(keys[0], (TIME, batch))
    places = jax.random.randint(keys[1], (2, batch), 0, TIME // 2)
    places = places + jnp.array([[0], [TIME // 2]])
    marks = (jnp.arange(TIME)[:, None] == places[:, None]).any(axis=0).astype(numbers.dtype)
    return jnp.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=0)


def square_error(ys, targets):
    """Of the last output."""
    return jnp.mean((ys[-1, :, 0] - targets) ** 2)


@functools.cache
def error_of(cell, steps):
    """The mean square error on numbers that were not trained on; 1/6 for always saying 1."""
    apply, params = train(cell, draw_sums, square_error, 2, steps, 1e-2)
    with jax.enable_x64(False):
        xs, targets = draw_sums(jax.random.key(99), 512)
        return float(jax.jit(lambda: square_error(apply(params, xs), targets))())


CHRONO = initializers.Chrono(TIME)
ONE_GATE = initializers.Chrono(TIME, input_gate=None)
RING = initializers.UnitRing(0.97, 0.999, max_phase=0.1)

QUICK = (
    rnn.LSTM(HIDDEN, bias_init=CHRONO),
    rnn.GRU(HIDDEN, bias_init=ONE_GATE),
    rnn.JANET(HIDDEN, bias_init=initializers.Chrono(TIME, forget_gate=0, input_gate=None)),
    rnn.IRNN(HIDDEN),
    rnn.IndRNN(HIDDEN, recurrent_init=initializers.Uniform(0.99, 1.0)),
    rnn.OrthogonalRNN(HIDDEN),
    rnn.AntisymmetricRNN(HIDDEN),
    rnn.CoRNN(HIDDEN),
    rnn.UnICORNN(HIDDEN, time_step=0.05, alpha=1.0),
    rnn.LEM(HIDDEN),
    rnn.NBRC(HIDDEN),
    rnn.BRC(HIDDEN),
    rnn.SLSTM(HIDDEN),
    rnn.LRU(HIDDEN, eigenvalue_init=RING),
    rnn.S5(HIDDEN),
    rnn.SelectiveSSM(HIDDEN, state_size=4),
    rnn.MinGRU(HIDDEN),
    rnn.MinLSTM(HIDDEN),
    rnn.RGLRU(HIDDEN),
    rnn.HGRN(HIDDEN, lower_bound_init=initializers.Constant(0.9)),
    rnn.GatedLinearAttention(HIDDEN, num_heads=2, key_size=8),
    rnn.MLSTM(HIDDEN, num_heads=2, key_size=8),
    rnn.DeltaNet(HIDDEN, num_heads=2, key_size=8),
    rnn.GatedDeltaNet(HIDDEN, num_heads=2, key_size=8),
)
# What is written in two steps of a hundred is small among the coefficients of a window.
LONG_MEMORY = (*((cell, 500) for cell in QUICK), (rnn.LMU(HIDDEN, order=4, theta=100.0), 2000))


@pytest.mark.slow
@pytest.mark.parametrize("steps", sorted({steps for _, steps in LONG_MEMORY}))
def test_elman_does_not_add_over_a_hundred_steps(steps):
    assert error_of(rnn.Elman(HIDDEN), steps) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "steps"), LONG_MEMORY, ids=name_of)
def test_cells_for_long_memory_add_better_than_elman(cell, steps):
    assert error_of(cell, steps) < 0.5 * error_of(rnn.Elman(HIDDEN), steps)


# Parity -------------------------------------------------------------------------------------------


def draw_bits(key, time=12, batch=64):
    """Bits, and whether an odd number of them have been 1 so far."""
    bits = jax.random.bernoulli(key, 0.5, (time, batch)).astype(jnp.float32)
    return bits[..., None], jnp.cumsum(bits, axis=0) % 2


def surprise(ys, targets):
    return optax.sigmoid_binary_cross_entropy(ys[..., 0], targets).mean()


def accuracy_of(cell, time=40):
    """The accuracy on the parity of ``time`` bits of a network trained on 12 bits."""
    apply, params = train(cell, draw_bits, surprise, 1, 1000, 1e-2)
    with jax.enable_x64(False):
        xs, targets = draw_bits(jax.random.key(99), time, 512)

        @jax.jit
        def run():
            return ((apply(params, xs)[-1, :, 0] > 0) == (targets[-1] > 0.5)).mean()

        return float(run())


TRACK = (rnn.Elman(HIDDEN), rnn.LSTM(HIDDEN), rnn.GRU(HIDDEN), rnn.SLSTM(HIDDEN))
CANNOT = (
    rnn.MinGRU(HIDDEN),
    rnn.MinLSTM(HIDDEN),
    rnn.RGLRU(HIDDEN),
    rnn.LRU(HIDDEN),
    rnn.S5(HIDDEN),
    rnn.HGRN(HIDDEN),
    rnn.SRU(HIDDEN),
    rnn.QRNN(HIDDEN),
    rnn.SelectiveSSM(HIDDEN, state_size=4),
    rnn.GatedLinearAttention(HIDDEN, num_heads=2, key_size=8),
    rnn.MLSTM(HIDDEN, num_heads=2, key_size=8),
    rnn.DeltaNet(HIDDEN, num_heads=2, key_size=8),
)


@pytest.mark.slow
@pytest.mark.parametrize("cell", TRACK, ids=name_of)
def test_cells_that_track_state_tell_the_parity_of_more_bits_than_they_learned_from(cell):
    assert accuracy_of(cell) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("cell", CANNOT, ids=name_of)
def test_cells_with_positive_eigenvalues_do_not_tell_parity(cell):
    """Nor those whose eigenvalues do not see the input: no bit can turn their state's sign."""
    assert accuracy_of(cell) < 0.65
