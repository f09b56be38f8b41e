"""Error messages: each names the argument, what was passed, and what to do.

To print all messages: ``python -m tests.test_errors``.
"""

# ruff: noqa: E501
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import conftest  # noqa: F401  (the suite's settings)
import jaxrnn as rnn

KEY = jax.random.key(0)
CELL = rnn.LSTM(hidden_size=4)
PARAMS = CELL.init(KEY, 3, jnp.float32)
XS = jnp.ones((5, 2, 3), jnp.float32)
STATE = CELL.init_state(PARAMS, (2,))
MASK = jnp.ones((5, 2), bool)
CONV = rnn.ConvLSTM(2, (3,), (5,))
NOISY = rnn.wrappers.Zoneout(CELL, 0.5)


def unroll(cell=CELL, params=PARAMS, xs=XS, state=None, **options):
    return rnn.unroll(cell, params, xs, state, **options)


@dataclasses.dataclass(frozen=True)
class HoldsArrays(rnn.Elman):
    """A cell with an array among its hyper-parameters."""

    weights: object = None


@dataclasses.dataclass(frozen=True)
class OddState(rnn.Elman):
    """A cell whose step violates the contract in one way."""

    fault: str = ""

    def step(self, params, state, x):
        state, y = super().step(params, state, x)
        return {
            "structure": lambda: (tuple(state), y),
            "shape": lambda: (rnn.ElmanState(state.hidden[..., :1]), y),
            "dtype": lambda: (rnn.ElmanState(state.hidden.astype("float16")), y),
            "bare state": lambda: state,
        }[self.fault]()


@dataclasses.dataclass
class LooseEngine:
    """An engine that is not frozen, hence not hashable."""

    def why_not(self, cell, params, state, xs):
        return None

    def __call__(self, cell, params, state, xs, *, reverse=False):
        return state, xs


def leaky(rate, state, x):
    state = (1 - rate) * state + rate * x
    return state, state


def zeros(rate, batch_shape):
    return jnp.zeros((*batch_shape, 1), jnp.float32)


def half(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)


# The call, the error, and words that its message must contain.
CALLS = {
    # unroll: the cell
    "a class for a cell": (lambda: unroll(rnn.LSTM), TypeError, "cell", "instance", "LSTM(hidden_size="),
    "a function for a cell": (lambda: unroll(leaky), TypeError, "cell", "from_step"),
    "None for a cell": (lambda: unroll(None), TypeError, "cell", "from_step"),
    "a layer for a cell": (lambda: unroll(rnn.layers.Bidirectional(CELL, CELL)), TypeError, "cell", "apply"),
    "a cell that holds arrays": (
        lambda: unroll(HoldsArrays(4, weights=np.ones(3))), TypeError, "cell", "hash", "params"
    ),
    # unroll: params
    "params of another cell": (
        lambda: unroll(rnn.GRU(4), PARAMS), TypeError, "params", "GRUParams", "LSTMParams", "init(",
    ),
    "params of another size": (lambda: unroll(rnn.LSTM(5), PARAMS), ValueError, "params.input_kernel", "(3, 20)", "(3, 16)", "input_size"),
    "no params": (lambda: unroll(params=None), TypeError, "params", "LSTMParams", "None"),
    "params that are no arrays": (
        lambda: unroll(params=PARAMS._replace(bias="zeros")), TypeError, "params.bias", "array"
    ),
    "params of two dtypes": (
        lambda: unroll(params=PARAMS._replace(bias=PARAMS.bias.astype("float64"))),
        TypeError, "params.bias", "float64", "params.input_kernel", "float32", "astype",
    ),
    # unroll: xs
    "xs of another dtype": (lambda: unroll(xs=half(XS)), TypeError, "xs", "bfloat16", "float32", "astype"),
    "xs in float64 by accident": (lambda: unroll(xs=np.ones((5, 2, 3))), TypeError, "xs", "float64", "xs.astype('float32')"),
    "integers for vectors": (lambda: unroll(xs=np.ones((5, 2, 3), int)), TypeError, "xs", "int64", "float32", "astype"),
    "too many features": (lambda: unroll(xs=jnp.ones((5, 2, 7), "float32")), ValueError, "xs", "7", "3", "input_size=7"),
    "a single step": (lambda: unroll(xs=XS[0, 0]), ValueError, "xs", "time", "cell.step"),
    "xs without features": (lambda: unroll(xs=jnp.float32(1)), ValueError, "xs", "time", "features"),
    "an empty tree": (lambda: unroll(xs=()), ValueError, "xs", "at least one array"),
    "xs that are no arrays": (lambda: unroll(xs=["to be", "or not"]), TypeError, "xs[0]", "array", "str"),
    "ragged lists": (lambda: unroll(xs=[XS, XS[:3]]), ValueError, "xs[1]", "agree", "time"),
    "vectors for images": (
        lambda: unroll(CONV, CONV.init(KEY, 3, "float32"), XS[:, 0]), ValueError, "xs", "3 axes", "(5, 3)",
    ),
    # unroll: state
    "a bare array for a state": (lambda: unroll(state=jnp.zeros((2, 4))), TypeError, "state", "LSTMState", "init_state"),
    "a tuple for a state": (lambda: unroll(state=tuple(STATE)), TypeError, "state", "LSTMState", "init_state"),
    "a state without batch": (
        lambda: unroll(state=CELL.init_state(PARAMS)), ValueError, "state.hidden", "(2, 4)", "(4,)", "batch_shape",
    ),
    "a state of another dtype": (
        lambda: unroll(state=half(STATE)), TypeError, "state.hidden", "float32", "bfloat16", "cast",
    ),
    "a state of strings": (
        lambda: unroll(state=rnn.LSTMState("a", "b")), TypeError, "state.hidden", "array",
    ),
    # unroll: lengths, mask, starts
    "lengths and mask": (
        lambda: unroll(lengths=jnp.array([5, 2]), mask=MASK), ValueError, "lengths", "mask", "one of them",
    ),
    "lengths beyond time": (lambda: unroll(lengths=jnp.array([5, 6])), ValueError, "lengths", "6", "5 steps"),
    "lengths below zero": (lambda: unroll(lengths=jnp.array([-1, 5])), ValueError, "lengths", "-1"),
    "lengths of floats": (lambda: unroll(lengths=jnp.array([1.0, 2.0])), TypeError, "lengths", "integers", "float64"),
    "lengths of booleans": (lambda: unroll(lengths=jnp.array([True, False])), TypeError, "lengths", "bool", "mask"),
    "one length for all rows": (lambda: unroll(lengths=3), ValueError, "lengths", "(2,)", "()", "every row"),
    "lengths of too many rows": (lambda: unroll(lengths=jnp.ones(3, int)), ValueError, "lengths", "(2,)", "(3,)"),
    "lengths of words": (lambda: unroll(lengths="all"), TypeError, "lengths", "array"),
    "a mask of numbers": (lambda: unroll(mask=MASK.astype("float32")), TypeError, "mask", "float32", "mask != 0"),
    "a mask with batch first": (lambda: unroll(mask=MASK.T), ValueError, "mask", "(5, 2)", "(2, 5)", "time comes first"),
    "a mask for one row": (lambda: unroll(mask=MASK[:, 0]), ValueError, "mask", "(5, 2)", "broadcasting"),
    "a tree for a mask": (lambda: unroll(mask=(MASK, MASK)), ValueError, "mask", "(5, 2)", "(2, 5, 2)"),
    "starts of numbers": (lambda: unroll(starts=jnp.zeros((5, 2), int)), TypeError, "starts", "int", "starts != 0"),
    "starts for one row": (lambda: unroll(starts=MASK[:, 0]), ValueError, "starts", "(5, 2)", "broadcasting"),
    # unroll: the rest
    "a word for reverse": (lambda: unroll(reverse="no"), TypeError, "reverse", "True or False", "'no'"),
    "a number for reverse": (lambda: unroll(reverse=1), TypeError, "reverse", "True or False"),
    "a number for a key": (lambda: unroll(NOISY, key=0), TypeError, "key", "jax.random.key(0)"),
    "several keys": (lambda: unroll(NOISY, key=jax.random.split(KEY)), TypeError, "key", "one", "[2]"),
    "an engine's name": (lambda: unroll(engine="hoisted"), TypeError, "engine", "jaxrnn.engines", "'hoisted'"),
    "an engine's class": (
        lambda: unroll(engine=rnn.engines.Sequential), TypeError, "engine", "Sequential()",
    ),
    "an unhashable engine": (lambda: unroll(engine=LooseEngine()), TypeError, "engine", "hashable", "frozen"),
    # a user's cell
    "a step that changes the structure": (
        lambda: unroll(OddState(4, fault="structure"), rnn.Elman(4).init(KEY, 3, "float32")),
        TypeError, "step", "structure", "ElmanState", "OddState",
    ),
    "a step that changes the shape": (
        lambda: unroll(OddState(4, fault="shape"), rnn.Elman(4).init(KEY, 3, "float32")),
        ValueError, "step", ".hidden", "(2, 4)", "(2, 1)", "OddState",
    ),
    "a step that changes the dtype": (
        lambda: unroll(OddState(4, fault="dtype"), rnn.Elman(4).init(KEY, 3, "float32")),
        TypeError, "step", ".hidden", "float16", "float32", "OddState",
    ),
    "a step without an output": (
        lambda: unroll(OddState(4, fault="bare state"), rnn.Elman(4).init(KEY, 3, "float32")),
        TypeError, "OddState.step", "(state, y)",
    ),
    # from_step
    "no function for a step": (
        lambda: rnn.from_step(3, init_state=zeros), TypeError, "step", "function", "3"
    ),
    "a state for init_state": (
        lambda: rnn.from_step(leaky, init_state=jnp.zeros(3)), TypeError, "init_state", "function",
    ),
    "no function for init": (
        lambda: rnn.from_step(leaky, init_state=zeros, init=()), TypeError, "init", "function",
    ),
    "a word for input_rank": (
        lambda: rnn.from_step(leaky, init_state=zeros, input_rank="1"), TypeError, "input_rank", "int",
    ),
    "a negative input_rank": (
        lambda: rnn.from_step(leaky, init_state=zeros, input_rank=-1), ValueError, "input_rank", "-1",
    ),
    "an output_size of zero": (
        lambda: rnn.from_step(leaky, init_state=zeros, output_size=0), ValueError, "output_size", "positive",
    ),
    "an init_state without a batch": (
        lambda: unroll(
            rnn.from_step(leaky, init_state=lambda rate, batch_shape: jnp.zeros(1, "float32")), jnp.float32(0.5), XS[..., :1]
        ),
        ValueError, "init_state", "*batch_shape", "(2,)", "(1,)",
    ),
    # cells
    "no hidden size": (lambda: rnn.LSTM(0), ValueError, "hidden_size", "positive", "0"),
    "a fractional hidden size": (lambda: rnn.GRU(4.0), TypeError, "hidden_size", "int", "4.0"),
    "a boolean hidden size": (lambda: rnn.Elman(True), TypeError, "hidden_size", "int", "True"),
    "no projection": (lambda: rnn.ProjectedLSTM(4, -1), ValueError, "projection_size", "-1"),
    "a number for init's key": (lambda: CELL.init(0, 3), TypeError, "key", "jax.random.key(0)"),
    "a shape for input_size": (lambda: CELL.init(KEY, (3,)), TypeError, "input_size", "(3,)"),
    "an input size of zero": (lambda: CELL.init(KEY, 0), ValueError, "input_size", "positive"),
    "integer parameters": (lambda: CELL.init(KEY, 3, jnp.int32), TypeError, "dtype", "int32", "float32"),
    "complex parameters": (lambda: CELL.init(KEY, 3, complex), TypeError, "dtype", "complex", "real pairs"),
    "an unknown dtype": (lambda: CELL.init(KEY, 3, "double precision"), TypeError, "dtype", "double precision"),
    "heads that do not divide": (lambda: rnn.SLSTM(5, num_heads=2), ValueError, "num_heads", "hidden_size"),
    "a bad step's features": (
        lambda: CELL.step(PARAMS, STATE, XS[0, :, :2]), ValueError, "x", "(2, 2)", "3", "input_size",
    ),
    "a bad step's dtype": (
        lambda: CELL.step(PARAMS, STATE, XS[0].astype("float64")), TypeError, "x", "float64", "float32", "astype",
    ),
    # engines
    "no unrolling": (lambda: rnn.engines.Sequential(unroll=0), ValueError, "unroll", "positive"),
    "unrolling by a word": (lambda: rnn.engines.Hoisted(unroll="4"), TypeError, "unroll", "int"),
    "checkpoints at every zero steps": (
        lambda: rnn.engines.Hoisted(checkpoint_every=0), ValueError, "checkpoint_every", "positive",
    ),
    # initializers
    "a short chrono": (lambda: rnn.initializers.Chrono(2), ValueError, "max_time", "2"),
    "a ring of negative radius": (
        lambda: rnn.initializers.UnitRing(-1.0, 0.5), ValueError, "min_radius", "-1.0",
    ),
    # wrappers
    "a class in a wrapper": (lambda: rnn.wrappers.EmitState(rnn.LSTM), TypeError, "cell", "instance", "LSTM(hidden_size="),
    "a rate beyond one": (lambda: rnn.wrappers.Zoneout(CELL, 1.5), ValueError, "rate", "1.5"),
    "a rate that is a word": (lambda: rnn.wrappers.VariationalDropout(CELL, "half"), TypeError, "rate", "half"),
    "a residual of another width": (
        lambda: unroll(rnn.wrappers.Residual(CELL)), ValueError, "Residual", "3", "4",
    ),
    "weights that are not there": (
        lambda: unroll(rnn.wrappers.WeightDrop(CELL, 0.5, kernels=("kernel",)), key=KEY),
        ValueError, "kernels", "'kernel'", "recurrent_kernel",
    ),
    # layers and pack
    "a class in a layer": (lambda: rnn.layers.Recurrent(rnn.GRU), TypeError, "cell", "GRU(hidden_size="),
    "a bare cell for layers": (lambda: rnn.layers.Stack(CELL), TypeError, "layers", "tuple", "(layer,)"),
    "no layers": (lambda: rnn.layers.Stack(()), ValueError, "layers", "at least one"),
    "a reversed backward layer": (
        lambda: rnn.layers.Bidirectional(CELL, rnn.layers.Recurrent(CELL, reverse=True)),
        ValueError, "backward", "reverse=True",
    ),
    "a merge that is a word": (lambda: rnn.layers.Bidirectional(CELL, CELL, merge="sum"), TypeError, "merge", "operator.add"),
    "params of fewer layers": (
        lambda: rnn.layers.Stack((CELL, CELL)).apply((PARAMS,), None, XS), ValueError, "params", "2", "1", "init",
    ),
    "nothing to pack": (lambda: rnn.pack([]), ValueError, "sequences"),
    "rows that are too short": (lambda: rnn.pack([XS], row_length=3), ValueError, "row_length", "3", "5"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_message_names_the_argument_and_the_remedy(name):
    call, kind, *words = CALLS[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert [word for word in words if word not in message] == [], message
    assert len(message) < 500, message


def test_traced_lengths_out_of_range_are_clipped():
    """Under jit the values cannot be checked: rows have at most all steps of the sequence."""

    @jax.jit
    def run(lengths):
        return unroll(lengths=lengths)

    beyond, whole = run(jnp.array([9, -3])), run(jnp.array([5, 0]))
    assert jax.tree.all(jax.tree.map(np.array_equal, beyond, whole))


def main():
    for name, (call, *_) in CALLS.items():
        try:
            call()
        except Exception as error:
            print(f"{name}\n    {type(error).__name__}: {error}\n")
        else:
            print(f"{name}\n    NO ERROR\n")


if __name__ == "__main__":
    main()
