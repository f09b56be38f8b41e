"""Only the import changes, and with it only the speed."""

import io
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import linen as nn
from rich.console import Console

from experiments.benchmark import from_flax

SMALL = {"batch_size": 16, "hidden_size": 8, "digits": 1, "rounds": 2, "seconds": 0.1}


def test_both_trainings_take_the_same_steps(monkeypatch):
    clock = [0.0]  # moved by the steps: three seconds in Flax, one second here

    def make_step(model, optimizer):
        step = compiled(model, optimizer)

        def timed(*arguments):
            clock[0] += 3.0 if model.RNN is nn.RNN else 1.0
            return step(*arguments)

        return timed

    compiled = from_flax.make_step
    monkeypatch.setattr(from_flax, "make_step", make_step)
    monkeypatch.setattr(from_flax, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    console = Console(file=io.StringIO(), width=100)
    losses, times = from_flax.main(from_flax.Config(steps=12, points=(), **SMALL), console)
    np.testing.assert_allclose(losses["ours"], losses["flax"], rtol=1e-4)
    assert losses["ours"][-1] < losses["ours"][0]
    assert times == {"training step": (3.0, 1.0, 3.0)}
    assert "training step" in console.file.getvalue()


@pytest.mark.parametrize(("api", "kind"), [("linen", "gru"), ("nnx", "lstm")])
def test_a_layer_is_compared_and_timed(api, kind):
    times = from_flax.compare_layers(from_flax.Config(**SMALL), api, kind, "3,2,4,5")
    assert min(times) > 0


def test_flax_is_the_first_of_a_ratio(monkeypatch):
    monkeypatch.setattr(from_flax, "compile_program", lambda function, *_, **__: function)
    monkeypatch.setattr(from_flax, "compare", lambda *programs, **_: programs)
    made = []
    make = from_flax.LAYERS["nnx"][0]

    def record(RNN, *arguments):
        made.append(RNN)
        return make(RNN, *arguments)

    monkeypatch.setitem(from_flax.LAYERS, "nnx", (record, *from_flax.LAYERS["nnx"][1:]))
    from_flax.compare_layers(from_flax.Config(**SMALL), "nnx", "gru", "3,2,4,5")
    assert [RNN.__module__.split(".")[0] for RNN in made] == ["flax", "jaxrnn"]


@pytest.mark.thorough
def test_all_layers_are_timed():
    config = from_flax.Config(steps=0, points=("3,2,4,5",), **SMALL)
    with jax.numpy_dtype_promotion("standard"):
        times = from_flax.main(config).times
    assert list(times) == [
        "linen lstm 3,2,4,5",
        "linen gru 3,2,4,5",
        "nnx lstm 3,2,4,5",
        "nnx gru 3,2,4,5",
    ]


def test_a_sum_is_encoded_character_by_character():
    batch = from_flax.sums(np.random.default_rng(0), 4, 2)
    for question, length, answer in zip(
        batch["questions"], batch["lengths"], batch["answers"], strict=True
    ):
        text = "".join(from_flax.SYMBOLS[i] for i in question.argmax(-1))
        a, b = map(int, text[:length].split("+"))
        assert text[length:].strip() == ""
        spelled = "".join(from_flax.SYMBOLS[i] for i in answer.argmax(-1)).strip()
        assert spelled == f"={a + b}$"
