"""The import is changed, and nothing but the speed changes with it."""

import jax
import numpy as np

from experiments.benchmark import from_flax


def test_both_trainings_take_the_same_steps_and_both_layers_are_timed():
    config = from_flax.Config(
        steps=12, batch_size=16, hidden_size=8, digits=1, points=("3,2,4,5",), rounds=5, seconds=0.1
    )
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        losses, ratios = from_flax.main(config)
    np.testing.assert_allclose(losses["ours"], losses["flax"], rtol=1e-4)
    assert losses["ours"][-1] < losses["ours"][0]
    assert [r.what for r in ratios] == [
        "training step",
        "linen lstm 3,2,4,5",
        "linen gru 3,2,4,5",
        "nnx lstm 3,2,4,5",
        "nnx gru 3,2,4,5",
    ]
    assert all(r.flax_ms > 0 and r.ours_ms > 0 and r.ratio > 0 for r in ratios)


def test_a_sum_is_written_as_it_is_read():
    batch = from_flax.sums(np.random.default_rng(0), 4, 2)
    for question, length, answer in zip(
        batch["questions"], batch["lengths"], batch["answers"], strict=True
    ):
        text = "".join(from_flax.SYMBOLS[i] for i in question.argmax(-1))
        a, b = map(int, text[:length].split("+"))
        assert text[length:].strip() == ""
        spelled = "".join(from_flax.SYMBOLS[i] for i in answer.argmax(-1)).strip()
        assert spelled == f"={a + b}$"
