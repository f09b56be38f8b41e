"""`CuDNN`: what surrounds the call, with JAX's reference in its place, and the lowered program."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from jaxrnn.engines import CuDNN, Hoisted, Sequential
from jaxrnn.layers import Bidirectional, Recurrent, Stack
from tests.support import cudnn
from tests.support.helpers import assert_near, split, thorough_but, weighted_sum

TIME, HIDDEN, INPUT = 5, 3, 2
LSTM = rnn.LSTM(HIDDEN)
LENGTHS = [0, 5, 2, 0]

without_gpu = pytest.mark.skipif(jax.default_backend() == "gpu", reason="a GPU has the real thing")


def forward(engine):
    return Recurrent(LSTM, engine=engine)


def backward(engine):
    return Recurrent(LSTM, engine=engine, reverse=True)


def both(engine):
    return Bidirectional(forward(engine), forward(engine))


NETWORKS = {
    "forward": forward,
    "reverse": backward,
    "stack": lambda engine: Stack((forward(engine),) * 3),
    "reverse-stack": lambda engine: Stack((backward(engine),) * 2),
    "bidirectional": both,
    "bidirectional-stack": lambda engine: Stack((both(engine),) * 3),
    "nested": lambda engine: Stack((Stack((forward(engine),) * 2), forward(engine))),
}


def work_of(network, batch=(4,), dtype="float64", lengths=None):
    """Random parameters, biases included, state and inputs, NaN beyond the lengths."""
    rng = np.random.default_rng(1)
    params = jax.eval_shape(lambda key: network.init(key, INPUT, dtype), jax.random.key(0))
    state = jax.eval_shape(lambda params: network.init_state(params, batch), params)
    xs = jax.ShapeDtypeStruct((TIME, *batch, INPUT), dtype)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype)  # noqa: E731
    params, state, xs = jax.tree.map(draw, (params, state, xs))
    if lengths is not None:
        steps = np.arange(TIME).reshape(-1, *(1 for _ in batch))
        xs = jnp.where((steps < lengths)[..., None], xs, jnp.nan)
    return params, state, xs


def results(make, engine, work, lengths):
    floats, join = split(work)

    def objective(floats):
        params, state, xs = join(floats)
        out = make(engine).apply(params, state, xs, lengths=lengths)
        return weighted_sum(out), out

    return jax.jit(jax.grad(objective, has_aux=True))(floats)


def check(name, batch, lengths):
    make = NETWORKS[name]
    work = work_of(make(None), batch, lengths=lengths)
    got = results(make, cudnn.Substituted(), work, lengths)
    assert_near(got, results(make, Sequential(), work, lengths), 1e-10)


@pytest.mark.parametrize("name", thorough_but("reverse", *sorted(NETWORKS.keys() - {"reverse"})))
def test_what_surrounds_the_call(name, monkeypatch):
    """Values and gradients."""
    cudnn.substitute(monkeypatch)
    check(name, (4,), None)


@pytest.mark.parametrize(
    "name", thorough_but("bidirectional", *sorted(NETWORKS.keys() - {"bidirectional"}))
)
def test_lengths(name, monkeypatch):
    """Zero among them."""
    cudnn.substitute(monkeypatch)
    check(name, (4,), np.array(LENGTHS))


@pytest.mark.thorough
@pytest.mark.parametrize("lengths", [3, [[0, 1], [5, 3]]], ids=["no-batch", "two-axes"])
def test_any_batch_shape(lengths, monkeypatch):
    cudnn.substitute(monkeypatch)
    check("reverse-stack", np.shape(lengths), np.array(lengths))


@pytest.mark.parametrize("name", thorough_but("reverse", "bidirectional-stack"))
def test_the_platform_without_cudnn_runs_a_reference(name):
    make, lengths = NETWORKS[name], np.array(LENGTHS)
    work = work_of(make(None), dtype="float32", lengths=lengths)
    got = results(make, CuDNN(), work, lengths)
    assert_near(got, results(make, Sequential(), work, lengths), 1e-5)


def test_all_derivatives(monkeypatch):
    """Forward mode, second order and `jax.vmap`."""
    cudnn.substitute(monkeypatch)
    make, lengths = backward, jnp.array(LENGTHS)
    params, state, xs = work_of(make(None))
    scales = jnp.array([0.5, 1.5])

    @functools.partial(jax.jit, static_argnums=0)
    def everything(engine):
        def loss(scale, xs):
            out = make(engine).apply(params, state, scale * xs, lengths=lengths)
            return weighted_sum(out) ** 2

        return {
            "jvp": jax.jvp(loss, (scales[0], xs), (scales[1], xs)),
            "hessian": jax.hessian(loss)(scales[0], xs),
            "reverse over reverse": jax.jacrev(jax.grad(loss))(scales[0], xs),
            "vmap": jax.vmap(jax.grad(loss), (0, None))(scales, xs),
            "remat": jax.grad(jax.checkpoint(loss))(scales[0], xs),
        }

    assert_near(everything(cudnn.Substituted()), everything(Sequential()), 1e-10)


# The program -------------------------------------------------------------------------------------


def lowered(make, engine, gradients=False, lengths=None, platforms=("cuda",)):
    work = work_of(make(None), dtype="float32")

    def run(*work):
        return make(engine).apply(*work, lengths=lengths)

    def loss(*work):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(run(*work)))

    traced = jax.jit(jax.grad(loss, (0, 1, 2)) if gradients else run).trace(*work)
    return traced.lower(lowering_platforms=platforms).as_text()


def calls(text):
    return re.findall(r"custom_call @(cudnn\w*)\(.*?opaque = \"(.*?)\"", text)


@without_gpu
@pytest.mark.parametrize("lengths", thorough_but(LENGTHS, None))
@pytest.mark.parametrize(
    "name", thorough_but("bidirectional-stack", *sorted(NETWORKS.keys() - {"bidirectional-stack"}))
)
def test_one_call_is_the_whole_network(name, lengths, monkeypatch):
    cudnn.lower_anywhere(monkeypatch)
    lengths = None if lengths is None else jnp.array(lengths)
    text = lowered(NETWORKS[name], cudnn.Lowered(), gradients=True, lengths=lengths)
    layers = 3 if name in ("stack", "bidirectional-stack", "nested") else 1 + ("stack" in name)
    directions = 1 + ("bidirectional" in name)
    sizes = f"inputs={INPUT} hidden={HIDDEN} layers={layers} batch=4 time={TIME} dropout=0"
    kind = f"bidirectional={directions - 1} tf32=0 workspace=5 kept={cudnn.KEPT}"
    assert calls(text) == [
        ("cudnn_rnn_ffi", f"{sizes} {kind}"),
        ("cudnn_rnn_bwd_ffi", f"{sizes} {kind}"),
    ]
    widths = [INPUT] + [directions * HIDDEN] * (layers - 1)
    count = directions * sum(4 * HIDDEN * (width + HIDDEN + 2) for width in widths)
    (operands,) = re.findall(r"custom_call @cudnn_rnn_ffi\(.*?\) \{.*?\} : \((.*?)\) ->", text)
    state = f"tensor<{layers * directions}x4x{HIDDEN}xf32>"
    want = f"tensor<4x{TIME}x{INPUT}xf32>, {state}, {state}, tensor<{count}xf32>, tensor<4xi32>"
    assert operands == want
    assert "stablehlo.while" not in text


@without_gpu
def test_other_platforms_have_no_call(monkeypatch):
    cudnn.lower_anywhere(monkeypatch)
    assert not calls(lowered(both, cudnn.Lowered(), platforms=("cpu",)))
    text = lowered(both, cudnn.Lowered(), platforms=("cpu", "cuda"))
    assert len(calls(text)) == 1 and "stablehlo.while" in text


@without_gpu
def test_tf32_is_asked_for(monkeypatch):
    cudnn.lower_anywhere(monkeypatch)
    for tf32 in (False, True):
        text = lowered(forward, cudnn.Lowered(tf32), gradients=True)
        assert [f"tf32={tf32:d}" in options for _, options in calls(text)] == [True, True]


@without_gpu
def test_no_program_for_cuda_without_a_gpu():
    with pytest.raises(ValueError, match="cannot be lowered for CUDA on this machine.*Hoisted"):
        lowered(lambda engine: Recurrent(rnn.LSTM(7), engine=engine), CuDNN())


@without_gpu
@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda engine: Stack((forward(engine),) * 2, residual=(False, True)), 2),
        (lambda engine: Stack((forward(engine), backward(engine))), 2),
        (lambda engine: Stack((forward(engine), forward(CuDNN(tf32=True)))), 2),
        (lambda engine: Bidirectional(forward(engine), forward(engine), merge=jnp.add), 2),
        (lambda engine: Stack((both(engine), both(Hoisted()))), 1),
    ],
    ids=["residual", "directions", "engines", "merge", "others"],
)
def test_other_networks_make_a_call_a_layer(make, count, monkeypatch):
    cudnn.lower_anywhere(monkeypatch)
    monkeypatch.setattr("tests.engines.test_cudnn.CuDNN", cudnn.Lowered)
    assert len(calls(lowered(make, cudnn.Lowered()))) == count


def dropping(engine):
    return Stack((forward(engine),) * 2, dropout=0.5)


@pytest.mark.thorough
def test_dropout_is_applied_between_calls():
    """With a key; without one, dropout does nothing."""
    work = work_of(dropping(None), dtype="float32")
    for key in (None, jax.random.key(3)):
        got, want = (dropping(e).apply(*work, key=key) for e in (CuDNN(), Sequential()))
        assert_near(got, want, 1e-5)
    params, state, xs = work
    rnn.unroll(dropping(None), params, xs, state, engine=CuDNN())


def test_dropout_is_refused_within_a_call():
    stack = dropping(None)
    params, state, xs = work_of(stack, dtype="float32")
    with pytest.raises(ValueError, match="dropout between layers.*call the stack's apply"):
        rnn.unroll(stack, params, xs, state, key=jax.random.key(3), engine=CuDNN())


# Reasons -----------------------------------------------------------------------------------------

FLAGS = np.ones((TIME, 4), bool)
REFUSED = {
    "cell": (rnn.GRU(HIDDEN), {}, "has LSTM only, and this cell is GRU"),
    "projection": (rnn.ProjectedLSTM(HIDDEN, 2), {}, "this cell is ProjectedLSTM"),
    "wrapper": (rnn.wrappers.Residual(rnn.LSTM(INPUT)), {}, "this cell is Residual"),
    "candidate": (rnn.LSTM(HIDDEN, candidate_activation=jax.nn.relu), {}, "has tanh"),
    "mask": (LSTM, {"mask": FLAGS}, "has lengths, not masks"),
    "starts": (LSTM, {"starts": FLAGS}, "has no starts"),
    "both": (LSTM, {"starts": FLAGS, "lengths": np.full(4, TIME)}, "has no starts"),
    "dtype": (LSTM, {"dtype": "float64"}, "takes float32, got xs of float64"),
    "half": (LSTM, {"dtype": "bfloat16"}, "takes float32, got xs of bfloat16"),
    "sizes": (Stack((LSTM, rnn.LSTM(2))), {}, re.escape("have one size, got [2, 3]")),
    "residual": (Stack((LSTM, LSTM), residual=(False, True)), {}, "no residual connections"),
    "mixed": (Stack((LSTM, rnn.GRU(HIDDEN))), {}, "this cell is GRU"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_the_reason(name):
    cell, options, reason = REFUSED[name]
    options = dict(options)
    params, state, xs = work_of(cell, dtype=options.pop("dtype", "float32"))
    with pytest.raises(ValueError, match=reason):
        rnn.unroll(cell, params, xs, state, engine=CuDNN(), **options)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Bidirectional(Stack((LSTM, LSTM)), Stack((LSTM, LSTM))), "not a stack in each direction"),
        (Bidirectional(LSTM, LSTM, merge=jnp.add), "concatenates the two directions"),
        (Stack((Recurrent(LSTM, reverse=True), LSTM)), "all run in one direction, or all in both"),
        (Stack((Bidirectional(LSTM, LSTM), LSTM)), "all run in one direction, or all in both"),
        (both(None), None),
    ],
)
def test_reasons_of_layers(layer, reason):
    found = CuDNN().why_not_levels(layer, jnp.ones((TIME, 4, INPUT), jnp.float32))
    assert found is None if reason is None else reason in found


def test_a_network_of_another_dtype_is_refused_by_its_first_layer():
    network = NETWORKS["bidirectional-stack"](CuDNN())
    with pytest.raises(ValueError, match=r"^engine=CuDNN\(\) cannot run this: .* float64; use"):
        network.apply(*work_of(network))


def test_no_steps():
    network = both(CuDNN())
    params, state, xs = work_of(network, dtype="float32")
    final, ys = network.apply(params, state, xs[:0], lengths=jnp.zeros(4, "int32"))
    assert ys.shape == (0, 4, 2 * HIDDEN)
    assert_near(final, state, 0)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_tf32_is_a_bool(value):
    with pytest.raises(TypeError, match="tf32 must be True or False"):
        CuDNN(tf32=value)


def test_explain_says_what_is_exact():
    params, _, xs = work_of(LSTM, dtype="float32")
    page = str(rnn.explain(LSTM, params, xs, engine=CuDNN()))
    assert "exact up to rounding" in page and "inexact" not in page
    page = str(rnn.explain(LSTM, params, xs, engine=CuDNN(tf32=True)))
    assert "CuDNN(tf32=True)" in page and "TF32, inexact: 10 bits" in page
    page = rnn.explain(
        rnn.GRU(2), rnn.GRU(2).init(jax.random.key(0), 2), xs.astype("float64"), engine=CuDNN()
    )
    assert "has LSTM only" in page.engine


def test_explain_gives_the_reason_for_a_network_of_more_than_its_levels():
    stack = rnn.layers.Stack((rnn.LSTM(4), rnn.LSTM(4)), residual=True)
    params = stack.init(jax.random.key(0), 4, "float32")
    page = rnn.explain(stack, params, jnp.ones((3, 2, 4), "float32"), engine=CuDNN())
    assert page.engine is not None and "no residual connections" in page.engine
    assert "one call" not in page.engine
