"""The repr of every public class is the call that makes the instance, without addresses."""

import contextlib
import importlib
import inspect
import pkgutil

import jax
import pytest

import jaxrnn as rnn
from jaxrnn._frozen import constructor_call


def modules():
    """jaxrnn and its public modules, as far as what they need is installed."""
    yield rnn
    for _, name, _ in pkgutil.walk_packages(rnn.__path__, "jaxrnn."):
        if "._" not in name:
            with contextlib.suppress(ImportError):
                yield importlib.import_module(name)


def classes(module):
    """The public classes of a module: those of ``__all__``, or those that it defines."""
    for name, kind in vars(module).items():
        if inspect.isclass(kind) and not getattr(kind, "_is_protocol", False):
            own = kind.__module__ == module.__name__ and name[0] != "_"
            if name in module.__all__ if hasattr(module, "__all__") else own:
                yield kind


MODULES = list(modules())
CLASSES = sorted(
    {k for module in MODULES for k in classes(module) if k.__module__.startswith("jaxrnn")},
    key=lambda kind: (kind.__module__, kind.__name__),
)
NAMES = {name: value for module in [rnn, *MODULES] for name, value in vars(module).items()}
NAMES |= {kind.__name__: kind for kind in CLASSES} | {"inf": float("inf")}

CELL = rnn.Elman(4)
ARGUMENTS = {
    "hidden_size": 4,
    "kernel_shape": (3,),
    "spatial_shape": (5,),
    "cell": CELL,
    "forward": CELL,
    "backward": CELL,
    "layers": (rnn.GRU(4), CELL),
    "max_time": 10,
    "rate": 0.1,
    "rule": rnn.learning.RTRL(),
}


def smallest(kind):
    """An instance from the arguments that it needs."""
    required = [
        parameter.name
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
    ]
    if kind is rnn.wrappers.RecurrentDropout:
        return kind(rnn.GRU(4), 0.1)
    if "rngs" in inspect.signature(kind.__init__).parameters:
        return kind(CELL, in_features=3, rngs=importlib.import_module("flax.nnx").Rngs(0))
    return kind(**{name: ARGUMENTS.get(name, 1) for name in required})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_repr_is_the_call_that_makes_the_instance(kind):
    value = smallest(kind)
    assert " at 0x" not in repr(value)
    if type(value).__repr__ is constructor_call:
        assert eval(repr(value), dict(NAMES)) == value


def leaky(rate, state, x):
    return state, x


def test_defaults_are_left_out_and_functions_have_names():
    assert repr(rnn.LSTM(64)) == "LSTM(hidden_size=64)"
    relu = rnn.Elman(8, activation=rnn.activations.relu)
    assert repr(relu) == "Elman(hidden_size=8, activation=relu)"
    zoneout = rnn.wrappers.Zoneout(rnn.LSTM(4), rate=0.1)
    assert repr(zoneout) == "Zoneout(cell=LSTM(hidden_size=4), rate=0.1)"
    assert repr(rnn.engines.Hoisted(unroll=2)) == "Hoisted(unroll=2)"
    stack = rnn.layers.Stack((relu,), residual=True)
    assert repr(stack) == f"Stack(layers=(Recurrent(cell={relu!r}),), residual=True)"
    cell = rnn.from_step(leaky, init_state=lambda rate, batch: (), output_size=1)
    assert repr(cell) == "from_step(leaky, init_state=<lambda>, output_size=1)"
    partial = rnn.Elman(8, activation=jax.tree_util.Partial(leaky, 1))
    assert "leaky" in repr(partial) and " at 0x" not in repr(partial)
    assert repr(rnn.initializers.Constant(1.0)) == "Constant(value=1.0)"
