"""The approximate rules follow their papers, transcribed in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.learning import RFLO, RTRL, TBPTT, UORO, EProp, Online, SnAp, uoro
from tests.support.cases import Case, random_inputs, random_params, random_state
from tests.support.helpers import assert_near, thorough_but, weighted_sum
from tests.support.oracle import sigmoid

TIME, H, N = 6, 3, 2
ALPHA = 0.3
WEIGHTS = np.cos(np.arange(TIME * H)).reshape(TIME, H)  # dloss/dy


def leaky(p, h, x):
    h = (1 - ALPHA) * h + ALPHA * jnp.tanh(x @ p["W"] + h @ p["U"] + p["b"])
    return h, h


def init(key, input_size, dtype):
    shapes = {"W": (input_size, H), "U": (H, H), "b": (H,)}
    return {name: jnp.zeros(shape, dtype) for name, shape in shapes.items()}


def zeros(params, batch):
    return jnp.zeros((*batch, H))


LEAKY = Case(rnn.from_step(leaky, init_state=zeros, init=init), name="leaky")
CASES = {
    case.name: case
    for case in (Case(rnn.GRU(H), name="GRU"), Case(rnn.LSTM(H), name="LSTM"), LEAKY)
}


def by_rule(case, rule):
    """The gradients of the parameters and of the initial state."""
    params, xs = random_params(case), random_inputs(case, (TIME,))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(params, state):
        _, ys = rnn.unroll(case.cell, params, xs, state, engine=rule)
        return (ys * WEIGHTS).sum()

    return gradient(params, case.cell.init_state(params, ()))


# Derivatives of one step, by hand: s', ∂s'/∂s and, for each gate, ∂s'/∂(pre-activation)


def gru(p, s, x):
    """Reset-after GRU; gates r, z, n. The candidate has a second, recurrent pre-activation."""
    i, k = x @ p.input_kernel + p.bias, s @ p.recurrent_kernel
    (ir, iz, n_in), (kr, kz, kn) = np.split(i, 3), np.split(k, 3)
    r, z, m = sigmoid(ir + kr), sigmoid(iz + kz), kn + p.candidate_bias
    n = np.tanh(n_in + r * m)
    dn = (1 - z) * (1 - n**2)
    gates = {"r": dn * m * r * (1 - r), "z": (s - n) * z * (1 - z), "n": dn, "m": dn * r}
    new = (1 - z) * n + z * s
    kernels = dict(zip("rzm", np.split(p.recurrent_kernel, 3, axis=1), strict=True))
    jacobian = np.diag(z) + sum(np.diag(gates[q]) @ kernels[q].T for q in "rzm")
    immediate = {q: np.diag(d) for q, d in gates.items()}
    blocks = {
        "input_kernel": ("rzn", x),
        "recurrent_kernel": ("rzm", s),
        "bias": ("rzn", None),
        "candidate_bias": ("m", None),
    }
    return new, jacobian, immediate, blocks


def lstm(p, s, x):
    """LSTM; gates i, f, g, o, state (h, c)."""
    h, c = s[:H], s[H:]
    pre = x @ p.input_kernel + h @ p.recurrent_kernel + p.bias
    i, f, g, o = np.split(pre, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    new_c = f * c + i * g
    through = o * (1 - np.tanh(new_c) ** 2)
    of_c = {"i": g * i * (1 - i), "f": c * f * (1 - f), "g": i * (1 - g**2), "o": 0 * o}
    of_h = {q: through * d for q, d in of_c.items()} | {"o": np.tanh(new_c) * o * (1 - o)}
    immediate = {q: np.concatenate([np.diag(of_h[q]), np.diag(of_c[q])]) for q in "ifgo"}
    local = np.block([[np.zeros((H, H)), np.diag(through * f)], [np.zeros((H, H)), np.diag(f)]])
    kernels = dict(zip("ifgo", np.split(p.recurrent_kernel, 4, axis=1), strict=True))
    mixed = sum(immediate[q] @ kernels[q].T for q in "ifgo")
    jacobian = local + np.concatenate([mixed, np.zeros((2 * H, H))], axis=1)
    blocks = {"input_kernel": ("ifgo", x), "recurrent_kernel": ("ifgo", h), "bias": ("ifgo", None)}
    new = np.concatenate([o * np.tanh(new_c), new_c])
    return new, (jacobian, local), immediate, blocks


def leaky_by_hand(p, s, x):
    u = np.tanh(x @ p["W"] + s @ p["U"] + p["b"])
    slope = ALPHA * (1 - u**2)
    local = (1 - ALPHA) * np.eye(H)
    blocks = {"W": ("u", x), "U": ("u", s), "b": ("u", None)}
    new = (1 - ALPHA) * s + ALPHA * u
    return new, (local + np.diag(slope) @ p["U"].T, local), {"u": np.diag(slope)}, blocks


def transcribed(case, step, *, local=False, diagonal=False, order=None):
    """Σ over t of dloss/dy[t] M[t], with M' = mask(J M + B), one dense column a parameter."""
    p = jax.tree.map(np.asarray, random_params(case))
    xs = np.asarray(random_inputs(case, (TIME,)))
    size = 2 * H if step is lstm else H

    def derivatives(s, x):
        new, jacobian, immediate, blocks = step(p, s, x)
        direct = {}
        for name, (gates, fed) in blocks.items():
            columns = np.concatenate([immediate[q] for q in gates], axis=1)
            if fed is not None:
                columns = np.einsum("i,sj->sij", fed, columns)
            direct[name] = columns.reshape(size, -1)
        jacobian = jacobian[local] if isinstance(jacobian, tuple) else jacobian
        return new, np.diag(np.diag(jacobian)) if diagonal else jacobian, direct

    _, jacobian, direct = derivatives(np.full(size, 0.5), xs[0])  # where nothing is zero by chance
    mask = {name: columns != 0 for name, columns in direct.items()}
    mask["start"] = np.eye(size, dtype=bool) | (jacobian != 0)
    for _ in range((order or 1) - 1):
        mask = {name: kept | ((jacobian != 0) @ kept) for name, kept in mask.items()}
    s, influence, totals = np.zeros(size), dict.fromkeys(mask, 0.0), dict.fromkeys(mask, 0.0)
    influence["start"] = np.eye(size)  # of the initial state
    for t, x in enumerate(xs):
        s, jacobian, direct = derivatives(s, x)
        direct["start"] = np.zeros((size, size))
        for name, columns in direct.items():
            moved = jacobian @ (influence[name] + 0 * columns) + columns
            influence[name] = moved if order is None else moved * mask[name]
            totals[name] = totals[name] + WEIGHTS[t] @ influence[name][:H]
    fields = p if isinstance(p, dict) else p._asdict()
    found = {name: jnp.asarray(totals[name].reshape(leaf.shape)) for name, leaf in fields.items()}
    state = case.cell.init_state(p, ())
    starts = np.split(totals["start"], len(jax.tree.leaves(state)))
    start = jax.tree.unflatten(jax.tree.structure(state), map(jnp.asarray, starts))
    return found if isinstance(p, dict) else type(p)(**found), start


QUICK = [
    ("LSTM", lstm, SnAp(1), {"order": 1}),
    ("LSTM", lstm, EProp(), {"local": True}),
    ("leaky", leaky_by_hand, RFLO(), {"local": True}),
    ("LSTM", lstm, RFLO(), {"local": True, "diagonal": True}),
]
MORE = [
    ("GRU", gru, SnAp(1), {"order": 1}),
    ("GRU", gru, SnAp(2), {"order": 2}),
    ("LSTM", lstm, SnAp(2), {"order": 2}),
    ("LSTM", lstm, RTRL(), {}),
    ("leaky", leaky_by_hand, EProp(), {"local": True}),
]
ROWS = [*QUICK, *(pytest.param(*row, marks=pytest.mark.thorough) for row in MORE)]


@pytest.mark.parametrize(("name", "step", "rule", "options"), ROWS)
def test_follows_the_transcription(name, step, rule, options):
    case = CASES[name]
    assert_near(by_rule(case, rule), transcribed(case, step, **options), 1e-12)


def test_snap_of_as_many_orders_as_steps_is_rtrl():
    """A chain, in which a parameter reaches one unit more at each step."""

    def chain(p, h, x):
        shifted = jnp.concatenate([x[..., :1], h[..., :-1]], axis=-1)
        h = jnp.tanh(p["u"] * shifted + p["v"] * h)
        return h, h

    shapes = {"u": (8,), "v": (8,)}
    cell = rnn.from_step(  # parameters of 8 units
        chain,
        init_state=lambda params, batch: jnp.zeros((*batch, 8)),
        init=lambda key, size, dtype: {k: jnp.zeros(s, dtype) for k, s in shapes.items()},
    )
    case = Case(cell, name="chain")
    params, xs = random_params(case), random_inputs(case, (TIME,))

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(rule):
        return jax.grad(lambda p: weighted_sum(rnn.unroll(cell, p, xs, engine=rule)))(params)

    exact = gradient(RTRL())
    errors = [float(abs(gradient(SnAp(n))["v"] - exact["v"]).max()) for n in (1, 3, TIME)]
    assert errors[0] > errors[1] > 1e-6 and errors[2] < 1e-12
    sizes = [
        rnn.learning.rtrl.SnAp(n).cost(cell, params, jnp.zeros(8), xs).elements for n in (1, 2)
    ]
    assert sizes == [16, 32]


# UORO ---------------------------------------------------------------------------------------------

KEYS = 4000
CELL = rnn.wrappers.LearnedInitialState(rnn.GRU(H))
LEARNED_START = Case(CELL, name="LearnedInitialState(GRU)")


def with_starts(rule, params, xs, key):
    """The gradient of the parameters, in which a sequence begins at step 4 too."""

    def loss(params):
        starts = np.arange(TIME) == 4
        _, ys = rnn.unroll(CELL, params, xs, starts=starts, key=key, engine=rule)
        return (ys * WEIGHTS).sum()

    found = jax.grad(loss)(params)
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found)])


def estimates(keys):
    gradient = jax.vmap(functools.partial(with_starts, UORO()), in_axes=(None, None, 0))
    params, xs = random_params(LEARNED_START), random_inputs(LEARNED_START, (TIME,))
    return np.asarray(jax.jit(gradient)(params, xs, jax.random.split(jax.random.key(5), keys)))


def test_uoro_is_unbiased_and_its_variance_is_reduced(monkeypatch):
    params, xs = random_params(LEARNED_START), random_inputs(LEARNED_START, (TIME,))
    exact = np.asarray(jax.jit(with_starts, static_argnums=0)(RTRL(), params, xs, None))
    found = estimates(KEYS)
    chosen = np.random.default_rng(0).permutation(exact.size - H)[:20]
    chosen = np.append(chosen, exact.size - 1 - np.arange(H))  # those of the initial state
    error = (found.mean(axis=0) - exact)[chosen]
    deviation = found.std(axis=0)[chosen] / np.sqrt(KEYS)
    assert (abs(error) < 3 * deviation).all()
    assert (deviation > 0).all()
    # Section 3.3 of the paper: the factors ρ minimize the variance.
    monkeypatch.setattr(uoro, "_balance", lambda theta, state: jnp.ones((), state.dtype))
    jax.clear_caches()
    plain = estimates(KEYS)
    assert (
        abs(plain.mean(axis=0) - exact)[chosen] < 4 * plain.std(axis=0)[chosen] / np.sqrt(KEYS)
    ).all()
    assert found.var(axis=0).sum() < 0.8 * plain.var(axis=0).sum()
    jax.clear_caches()


def test_uoro_balances_its_factors_and_draws_for_every_row():
    """Equation 15 of the paper: the factors ρ make both vectors equally long."""
    theta, state = (jnp.asarray(np.cos(np.arange(n)) * n) for n in (7, 4))
    rho = uoro._balance(theta, state)
    norm = jnp.linalg.norm
    np.testing.assert_allclose(rho * norm(state), norm(theta) / rho, rtol=1e-12)
    assert uoro._balance(0 * theta, state) == uoro._balance(theta, 0 * state) == 1

    case = CASES["GRU"]
    learner, params = Online(case.cell, UORO()), random_params(case)
    carry = learner.init(params, case.cell.init_state(params, (2,)), jax.random.key(0))
    for _ in range(2):
        carry, _ = jax.jit(learner.step)(params, carry, jnp.ones((2, 3)))
    first, second = abs(carry.memory.state)  # of equal rows
    assert (first != second).any()


# TBPTT --------------------------------------------------------------------------------------------


def by_hand(case, window, stride, params, first, xs, mask, starts):
    """Each stride's losses reach back ``window`` steps from its end."""
    ys, stride = [], stride or window
    for begin in range(0, TIME, stride):
        state, start = first, False
        for t in range(min(begin + stride, TIME)):
            if 0 < t == begin + stride - window:
                state = jax.lax.stop_gradient(state)
            start = start or starts[t]
            y = jnp.zeros(H)
            if mask[t]:
                state = case.cell.init_state(params, ()) if start else state
                state, y = case.cell.step(params, state, xs[t])
                start = False
            ys += [y] if t >= begin else []
    return state, jnp.stack(ys)


@pytest.mark.parametrize(
    ("window", "stride"),
    thorough_but((4, 3), (1, None), (3, None), (TIME, None), (5, 2), (4, 1), (9, None)),
)
@pytest.mark.parametrize("reverse", [False, True])
def test_tbptt_follows_a_loop_with_stop_gradient(window, stride, reverse):
    case = Case(rnn.wrappers.LearnedInitialState(rnn.LSTM(H)), name="LearnedInitialState(LSTM)")
    params, xs = random_params(case), random_inputs(case, (TIME,))
    first = random_state(case, ())
    mask, starts = np.arange(TIME) != 4, np.arange(TIME) == 1

    def by_rule(params, first, xs):
        options = {"mask": mask, "starts": starts, "reverse": reverse}
        engine = TBPTT(window, stride)
        final, ys = rnn.unroll(case.cell, params, xs, first, engine=engine, **options)
        return (ys * WEIGHTS).sum() + weighted_sum(final)

    def by_loop(params, first, xs):
        order = slice(None, None, -1 if reverse else 1)
        cuts = np.roll(starts[::-1], 1) if reverse else starts  # between the same two steps
        final, ys = by_hand(case, window, stride, params, first, xs[order], mask[order], cuts)
        return (ys[order] * WEIGHTS).sum() + weighted_sum(final)

    got, want = (
        jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(params, first, xs) for loss in (by_rule, by_loop)
    )
    assert_near(got, want, 1e-12)
