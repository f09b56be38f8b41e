"""How Flax's users use an RNN, with jaxrnn's RNN in its place: values, gradients, trees, dtypes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState

import jaxrnn.linen
import jaxrnn.nnx
from tests.support.flavours import INPUT, noisy
from tests.support.helpers import assert_near, weighted_sum

XS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, INPUT)), "float32")
WIDE = XS.astype("float64")
LENGTHS = jnp.array([2, 5, 1])


def same(ours, theirs, tolerance=1e-11):
    """The same tree, of the same shapes and dtypes, with the same numbers."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
    assert_near(ours, theirs, tolerance)


def gru(features=4, dtype="float64", **options):
    return linen.GRUCell(features, param_dtype=dtype, **options)


class SetUp(linen.Module):
    """Layers in ``setup``, one of them used twice."""

    RNN: type

    def setup(self):
        self.first = self.RNN(gru(INPUT))
        self.both = linen.Bidirectional(self.RNN(gru()), self.RNN(gru()))

    def __call__(self, xs):
        return self.both(self.first(self.first(xs)), seq_lengths=LENGTHS)


class Decoder(linen.Module):
    """A scan over steps, each of which runs an RNN over its memory."""

    RNN: type

    @linen.compact
    def __call__(self, xs):
        def step(model, carry, x):
            memory = carry + x[:, None]
            carry, ys = model.RNN(gru(INPUT, name="cell"), name="reader", return_carry=True)(
                memory, initial_carry=carry[:, 0]
            )
            return ys, carry

        scan = linen.scan(
            step, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        return scan(self, xs, xs)[1]


class Switch(linen.Module):
    """A condition around a layer, whose parameters exist in both branches."""

    RNN: type

    @linen.compact
    def __call__(self, xs):
        layer = self.RNN(gru(), name="rnn")
        if self.is_initializing():
            return layer(xs)
        return linen.cond(
            jnp.sum(xs) > -1e9, lambda m, xs: m(xs), lambda m, xs: jnp.zeros((3, 5, 4)), layer, xs
        )


class Scaled(linen.Module):
    """Parameters mapped before the layer sees them."""

    RNN: type

    @linen.compact
    def __call__(self, xs):
        def halve(variables):
            return jax.tree.map(lambda leaf: leaf / 2, variables)

        mapped = linen.map_variables(self.RNN, "params", halve, init=self.is_initializing())
        return mapped(gru(), name="rnn")(xs)


class Rematerialized(linen.Module):
    """Layers of a remat_scan."""

    RNN: type

    @linen.compact
    def __call__(self, xs):
        class Block(linen.Module):
            RNN: type

            @linen.compact
            def __call__(self, xs):
                return self.RNN(gru(INPUT))(xs)

        return linen.remat_scan(Block, lengths=(2, 1))(self.RNN)(xs)


class Ensemble(linen.Module):
    """Members that share inputs, with dropout of their own."""

    RNN: type

    @linen.compact
    def __call__(self, xs):
        class Member(linen.Module):
            RNN: type

            @linen.compact
            def __call__(self, xs):
                ys = self.RNN(gru())(xs, seq_lengths=LENGTHS)
                return linen.Dropout(0.5, deterministic=not self.has_rng("dropout"))(ys)

        members = linen.vmap(
            Member,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=None,
            axis_size=2,
        )
        return members(self.RNN)(xs)


def sequential(RNN):
    return linen.Sequential([RNN(gru(INPUT)), linen.Dense(2, param_dtype="float64"), RNN(gru())])


PATTERNS = {
    "setup": SetUp,
    "decoder": Decoder,
    "cond": Switch,
    "map_variables": Scaled,
    "remat_scan": Rematerialized,
    "ensemble": Ensemble,
    "sequential": sequential,
}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "decoder" else pytest.param(name, marks=pytest.mark.thorough)
        for name in PATTERNS
    ],
)
def test_patterns_of_linen(name):
    pattern = PATTERNS[name]
    padded = functools.partial(jaxrnn.linen.RNN, run_padding=True)
    theirs, ours = pattern(linen.RNN), pattern(padded)
    key = jax.random.key(0)
    weights = theirs.init(key, WIDE)
    same(ours.init(key, WIDE), weights, 0)
    weights = noisy(weights)

    def work(model):
        def total(weights, xs):
            ys = model.apply(weights, xs)
            return weighted_sum(ys), ys

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(weights, WIDE)

    same(work(ours), work(theirs))


@pytest.mark.parametrize(
    "param_dtype, dtype",
    [
        ("float32", "bfloat16"),
        *(
            pytest.param(*pair, marks=pytest.mark.thorough)
            for pair in (
                ("bfloat16", None),
                ("float32", None),
                ("float32", "float16"),
            )
        ),
    ],
)
def test_dtypes_of_linen(param_dtype, dtype):
    """Outputs, carries and gradients have Flax's dtypes."""
    cell = linen.OptimizedLSTMCell(
        4, dtype=dtype, param_dtype=param_dtype, recurrent_kernel_init=linen.initializers.ones
    )
    theirs, ours = (RNN(cell, return_carry=True) for RNN in (linen.RNN, jaxrnn.linen.RNN))
    xs = XS.astype(param_dtype)

    def work(layer, weights):
        def total(weights):
            carry, ys = layer.apply(weights, xs)
            return ys.astype("float32").sum(), (carry, ys)

        return jax.jit(jax.value_and_grad(total, has_aux=True))(weights)

    with jax.numpy_dtype_promotion("standard"):
        weights = theirs.init(jax.random.key(0), xs)
        same(ours.init(jax.random.key(0), xs), weights, 0)
        same(work(ours, weights), work(theirs, weights), 0.02)


# Training and checkpoints -----------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def regression(model, state, xs):
    def loss(params):
        return jnp.square(model.apply({"params": params}, xs).sum(-1) - xs.sum(-1)).mean()

    with jax.numpy_dtype_promotion("standard"):  # Optax needs it
        return state.apply_gradients(grads=jax.grad(loss)(state.params))


def test_train_states_of_linen_in_checkpoints(tmp_path):
    """One trains with Flax's RNN, the other goes on with jaxrnn's from the checkpoint."""
    checkpoint = pytest.importorskip("orbax.checkpoint")
    theirs, ours = (RNN(gru(2)) for RNN in (linen.RNN, jaxrnn.linen.RNN))

    def fresh(model, seed):
        params = model.init(jax.random.key(seed), WIDE)["params"]
        return TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-2))

    state = fresh(theirs, 0)
    for _ in range(3):
        state = regression(theirs, state, WIDE)
    with checkpoint.StandardCheckpointer() as writer:
        writer.save(tmp_path / "state", state)
    with checkpoint.StandardCheckpointer() as reader:
        restored = reader.restore(tmp_path / "state", jax.eval_shape(lambda: fresh(ours, 1)))
    assert restored.step == 3
    same(restored.params, state.params, 0)
    same(restored.opt_state, state.opt_state, 0)
    for _ in range(2):
        state, restored = regression(theirs, state, WIDE), regression(ours, restored, WIDE)
    same(restored.params, state.params)
    same(restored.opt_state, state.opt_state)


def nnx_model(RNN, seed=0, **options):
    rngs = nnx.Rngs(seed)
    cell = nnx.GRUCell(INPUT, 4, param_dtype="float64", rngs=rngs, **options)
    return nnx.Sequential(RNN(cell), nnx.Dropout(0.25, rngs=rngs))


def test_train_states_of_nnx_in_checkpoints(tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return jnp.square(model(WIDE).sum(-1) - WIDE.sum(-1)).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    def trained(RNN, seed=0):
        model = nnx_model(RNN, seed)
        return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    def state(model, optimizer):
        return nnx.to_pure_dict(nnx.state((model, optimizer), nnx.Not(nnx.RngState)))

    (theirs, their_optimizer), (ours, optimizer) = trained(nnx.RNN), trained(jaxrnn.nnx.RNN, 1)
    theirs.eval()
    ours.eval()
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(3):
            step(theirs, their_optimizer)
        with checkpoint.StandardCheckpointer() as writer:
            writer.save(tmp_path / "state", state(theirs, their_optimizer))
        with checkpoint.StandardCheckpointer() as reader:
            like = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state(ours, optimizer)
            )
            restored = reader.restore(tmp_path / "state", like)
        for module, part in zip((ours, optimizer), restored.values(), strict=True):
            nnx.update(module, part)
        same(state(ours, optimizer), state(theirs, their_optimizer), 0)
        for _ in range(2):
            step(theirs, their_optimizer)
            step(ours, optimizer)
        same(state(ours, optimizer), state(theirs, their_optimizer))


# nnx --------------------------------------------------------------------------------------------


def test_partitioned_parameters_of_nnx():
    kernel = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
    axes = (jax.sharding.AxisType.Auto,) * 2
    with jax.set_mesh(jax.make_mesh((1, 1), ("data", "model"), axis_types=axes)):

        def work(RNN):
            model = nnx_model(RNN, kernel_init=kernel)
            state = nnx.state(model, nnx.Param)
            specs = nnx.to_pure_dict(nnx.get_partition_spec(state))
            gradient = nnx.jit(nnx.grad(lambda model: weighted_sum(model(WIDE))))(model)
            return jax.tree.map(str, specs), nnx.to_pure_dict(state), nnx.to_pure_dict(gradient)

        (our_specs, *ours), (their_specs, *theirs) = map(work, (jaxrnn.nnx.RNN, nnx.RNN))
    assert our_specs == their_specs and "model" in str(our_specs)
    same(ours, theirs)


@pytest.mark.thorough
def test_scans_and_copies_of_nnx():
    def layers(RNN):
        @nnx.split_rngs(splits=2)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs):
            return RNN(nnx.GRUCell(INPUT, INPUT, param_dtype="float64", rngs=rngs))

        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def through(ys, layer):
            return layer(ys)

        return make(nnx.Rngs(0)), through

    def work(RNN):
        stacked, through = layers(RNN)
        copy = nnx.clone(stacked)

        def total(stacked):
            return weighted_sum(through(WIDE, stacked))

        value, gradient = nnx.value_and_grad(total)(copy)
        graphdef, params, rest = nnx.split(stacked, nnx.Param, ...)

        @jax.jit
        def pure(params, rest):
            return through(WIDE, nnx.merge(graphdef, params, rest))

        return value, nnx.to_pure_dict(gradient), pure(params, rest)

    same(work(jaxrnn.nnx.RNN), work(nnx.RNN))


@pytest.mark.thorough
def test_bridges_between_linen_and_nnx():
    def work(linen_RNN):
        model = nnx.bridge.ToNNX(linen_RNN(gru()), rngs=nnx.Rngs(0)).lazy_init(WIDE)
        gradient = nnx.grad(lambda model: weighted_sum(model(WIDE)))(model)
        return nnx.to_pure_dict(gradient), model(WIDE)

    same(work(jaxrnn.linen.RNN), work(linen.RNN))
