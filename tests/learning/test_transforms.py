"""Learning rules under JAX's transformations, in 16 bits, and what they refuse."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxrnn as rnn
from jaxrnn.learning import RTRL, TBPTT, UORO, EProp, Online, SnAp
from tests.support.cases import Case, random_inputs, random_params
from tests.support.helpers import assert_near, on_four_devices, thorough_but, weighted_sum

GRU = Case(rnn.GRU(3))
TIME, BATCH = 4, 2


def loss(params, xs, engine, cell=GRU.cell, key=None):
    return weighted_sum(rnn.unroll(cell, params, xs, key=key, engine=engine))


def test_vmap_over_networks_and_over_rows():
    params, xs = random_params(GRU), random_inputs(GRU, (TIME, BATCH))
    networks = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.5 * leaf]), params)

    def gradient(params, xs, engine):
        return jax.grad(loss)(params, xs, engine)

    for axes in ((0, None), (None, 1)):
        got, want = (
            jax.jit(jax.vmap(functools.partial(gradient, engine=engine), in_axes=axes))(
                networks if axes[0] == 0 else params, xs
            )
            for engine in (RTRL(), rnn.engines.Hoisted())
        )
        assert_near(got, want, 1e-10)


def test_only_what_is_differentiated_has_influence():
    """With a frozen recurrent kernel, no array as large as its influence exists."""
    params, xs = random_params(GRU), random_inputs(GRU, (TIME,))

    def of_bias(bias):
        return loss(params._replace(bias=bias), xs, RTRL())

    program = str(jax.make_jaxpr(jax.grad(of_bias))(params.bias))
    assert "f64[3,9]" in program and "f64[3,3,9]" not in program
    got = jax.grad(of_bias)(params.bias)
    assert_near(got, jax.grad(loss)(params, xs, rnn.engines.Hoisted()).bias, 1e-10)


@pytest.mark.parametrize("rule", thorough_but(TBPTT(TIME), RTRL()), ids=str)
def test_a_loss_of_outputs_alone_with_explicit_sharding(rule):
    """The final state has no cotangent then, and the zeros in its place are sharded as it is."""
    params, xs = random_params(GRU), random_inputs(GRU, (TIME, BATCH))
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))

    def of_outputs(params, xs, engine):
        return (rnn.unroll(GRU.cell, params, xs, engine=engine)[1] ** 2).sum()

    gradient = jax.jit(jax.grad(of_outputs), static_argnums=2)
    want = gradient(params, xs, rnn.engines.Hoisted())
    with jax.set_mesh(mesh):
        sharded = jax.device_put(xs, NamedSharding(mesh, P(None, "rows")))
        got = gradient(params, sharded, rule)
    assert_near(got, want, 1e-10)


def test_explicit_shardings_need_a_mesh():
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,))
    xs = jax.device_put(random_inputs(GRU, (TIME, BATCH)), NamedSharding(mesh, P(None, "rows")))
    params = jax.device_put(random_params(GRU), NamedSharding(mesh, P()))
    with pytest.raises(ValueError, match=r"no mesh is set; call within jax\.set_mesh\(mesh\)"):
        jax.jit(jax.grad(loss), static_argnums=2)(params, xs, RTRL())


@pytest.mark.parametrize("rule", thorough_but(RTRL(), SnAp(1), EProp(), TBPTT(2)))
def test_sixteen_bits_with_influence_in_thirty_two(rule):
    narrow, xs = random_params(GRU, "bfloat16"), random_inputs(GRU, (TIME, BATCH), "bfloat16")
    learner = Online(GRU.cell, rule)
    carry = learner.init(narrow, GRU.cell.init_state(narrow, (BATCH,)))
    assert {leaf.dtype for leaf in jax.tree.leaves(carry.memory)} <= {jnp.dtype("float32")}
    found = jax.jit(jax.grad(loss), static_argnums=2)(narrow, xs, rule)
    assert {leaf.dtype for leaf in found} == {jnp.dtype("bfloat16")}
    wide = jax.tree.map(lambda leaf: leaf.astype("float64"), (narrow, xs))
    exact = jax.jit(jax.grad(loss), static_argnums=2)(*wide, rule)
    assert_near(jax.tree.map(lambda leaf: leaf.astype("float64"), found), exact, 0.05)


def test_second_derivatives_are_refused():
    params, xs = random_params(GRU), random_inputs(GRU, (TIME,))
    for rule in (RTRL(), TBPTT(2)):
        with pytest.raises(TypeError, match="first derivatives only"):
            jax.hessian(loss)(params, xs, rule)
        with pytest.raises(TypeError, match="first derivatives only"):
            jax.grad(lambda p: weighted_sum(jax.grad(loss)(p, xs, rule)))(params)  # noqa: B023


def test_a_missing_key_is_refused():
    params, xs = random_params(GRU), random_inputs(GRU, (TIME,))
    with pytest.raises(
        ValueError, match=re.escape("needs a key, got key=None; pass key=jax.random.key")
    ):
        rnn.unroll(GRU.cell, params, xs, engine=UORO())
    with pytest.raises(ValueError, match="needs a key"):
        Online(GRU.cell, UORO()).init(params, GRU.cell.init_state(params))


def test_an_influence_that_does_not_fit_is_refused_with_its_size():
    cell = rnn.GRU(512)
    params = jax.eval_shape(lambda key: cell.init(key, 512), jax.random.key(0))
    state = jax.eval_shape(lambda params: cell.init_state(params, (64,)), params)
    xs = jax.ShapeDtypeStruct((3, 64, 512), jnp.float64)
    reason = RTRL().why_not(cell, params, state, xs)
    size = 64 * 512 * sum(leaf.size for leaf in jax.tree.leaves(params)) * 8
    assert f"{size:,} bytes for 64 rows" in reason
    assert RTRL(max_bytes=2**40).why_not(cell, params, state, xs) is None
    assert SnAp(1).why_not(cell, params, state, xs) is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SnAp(0), ValueError, "order must be a positive int"),
        (lambda: TBPTT(2, 3), ValueError, "stride must be at most window=2"),
        (lambda: TBPTT(2.5), TypeError, "window must be a positive int"),
        (lambda: RTRL(max_bytes="1 GB"), TypeError, "max_bytes must be a positive int"),
        (lambda: Online(rnn.GRU(2), rnn.engines.Hoisted()), TypeError, "rule must be a rule"),
        (lambda: Online(rnn.GRU, RTRL()), TypeError, "cell must be an instance"),
        (
            lambda: Online(
                rnn.from_step(lambda p, s, x: (s, s), init_state=lambda p, b: jnp.zeros(b)), RTRL()
            ).init({}, jnp.zeros(2)),
            ValueError,
            re.escape("pass an example: init(params, state, x=xs[0])"),
        ),
    ],
)
def test_mistakes_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_explain_reports_the_influence():
    cell = rnn.IndRNN(4)
    params = cell.init(jax.random.key(0), 3)
    xs = jnp.zeros((TIME, BATCH, 3), jnp.float64)
    params = jax.tree.map(lambda leaf: leaf.astype("float64"), params)
    found = rnn.explain(cell, params, xs, rule=RTRL())
    assert "40 numbers (320 bytes)" in found.influence and found.influence in str(found)
    assert rnn.explain(cell, params, xs).influence is None
    with pytest.raises(TypeError, match="rule must be a rule"):
        rnn.explain(cell, params, xs, rule=rnn.engines.Hoisted())


@pytest.mark.parametrize("arguments", thorough_but((("episodes",),), (("--all",),)), ids=str)
def test_batch_sharded_over_devices(arguments):
    """On four devices: values, and what each device computes and sends."""
    done = on_four_devices("tests.support.sharded_learning", *arguments)
    assert done.returncode == 0, done.stderr


def layers_of(engine):
    """Layers whose parameters a rule gives exact gradients: nothing below them is recurrent."""
    one = rnn.layers.Recurrent(GRU.cell, engine=engine)
    return {
        "Recurrent": one,
        "Stack": rnn.layers.Stack((one,)),
        "Bidirectional": rnn.layers.Bidirectional(one, one),
    }


@pytest.mark.parametrize("name", thorough_but("Bidirectional", "Recurrent", "Stack"))
def test_layers_train_by_a_rule(name):
    xs = random_inputs(GRU, (TIME, BATCH))
    lengths = jnp.array([2, TIME])
    params = layers_of(None)[name].init(jax.random.key(0), xs.shape[-1], "float64")
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )

    def loss(params, layer):
        return weighted_sum(layer.apply(params, None, xs, lengths=lengths))

    got, want = (
        jax.jit(jax.grad(functools.partial(loss, layer=layers_of(engine)[name])))(params)
        for engine in (RTRL(), rnn.engines.Hoisted())
    )
    assert_near(got, want, 1e-10)


def test_linen_layers_train_by_a_rule():
    linen = pytest.importorskip("jaxrnn.linen")
    xs = random_inputs(GRU, (BATCH, TIME))  # Flax puts the batch first
    layers = [
        linen.RNN(GRU.cell, param_dtype=jnp.float64, engine=engine)
        for engine in (RTRL(), rnn.engines.Hoisted())
    ]
    variables = layers[0].init(jax.random.key(0), xs)
    got, want = (
        jax.jit(jax.grad(lambda v, layer=layer: weighted_sum(layer.apply(v, xs))))(variables)
        for layer in layers
    )
    assert_near(got, want, 1e-10)


def test_nnx_layers_train_by_a_rule():
    nnx = pytest.importorskip("jaxrnn.nnx")
    flax = pytest.importorskip("flax.nnx")
    xs = random_inputs(GRU, (BATCH, TIME))

    def gradient(engine):
        cell = nnx.Cell(GRU.cell, xs.shape[-1], rngs=flax.Rngs(0), param_dtype=jnp.float64)
        graph, params, rest = flax.split(nnx.RNN(cell, engine=engine), flax.Param, ...)

        def loss(params):
            return weighted_sum(flax.merge(graph, params, rest)(xs))

        return jax.tree.leaves(jax.jit(jax.grad(loss))(params))

    assert_near(gradient(RTRL()), gradient(rnn.engines.Hoisted()), 1e-10)


@pytest.mark.parametrize("rule", [RTRL(), TBPTT(3)], ids=str)
def test_gradients_of_inputs_leave_those_of_parameters_alone(rule):
    """JAX keeps one record of the residuals of a trace: what is wanted must not be in it."""
    params, xs = random_params(GRU), random_inputs(GRU, (TIME,))

    def loss(params, xs):
        return weighted_sum(rnn.unroll(GRU.cell, params, xs, engine=rule)[1])

    first = jax.grad(loss)(params, xs)
    for _ in range(2):
        jax.grad(loss, argnums=1)(params, xs)
        assert_near(jax.grad(jax.checkpoint(loss))(params, xs), first, 1e-12)
        jax.grad(lambda bias: loss(params._replace(bias=bias), xs))(params.bias)  # noqa: B023
        assert_near(jax.jacrev(loss)(params, xs), first, 1e-12)
