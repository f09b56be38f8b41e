"""Several seeds side by side: each equals a run of its own."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.common.seeds import fit_seeds, one_seed, over_seeds
from tests.support import toy
from tests.support.toy import ROWS, SIZE, assert_same_state, final_state, make_task, run

SEEDS = (3, 8, 5)


def init(key):
    return {"matrix": 0.1 * jax.random.normal(key, (SIZE, SIZE)), "bias": jnp.full(SIZE, 0.1)}


def side_by_side(folder, task=None, seeds=SEEDS, **changes):
    defaults = dict(steps=24, learning_rate=0.1, warmup=4, log_every=4)
    defaults |= dict(validate_every=8, checkpoint_every=6)
    with open(os.devnull, "w") as nowhere:
        return fit_seeds(
            task or make_task(),
            init,
            lambda params: jnp.zeros((ROWS, SIZE)),
            seeds=seeds,
            options=Options(**(defaults | changes)),
            folder=folder,
            identity={"size": SIZE},
            console=Console(file=nowhere),
        )


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    return folder, side_by_side(folder)


@pytest.mark.parametrize("index", range(3))
def test_each_seed_equals_a_run_of_its_own(together, tmp_path, index):
    seed = SEEDS[index]
    alone = run(tmp_path, params=init(jax.random.key(seed)), seed=seed)
    tensors, own = final_state(together[0])[1], final_state(tmp_path)[1]
    assert tensors.keys() == own.keys()
    for name, value in own.items():
        np.testing.assert_allclose(tensors[name][index], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert alone.step == together[1].step


def test_seeds_differ_and_best_holds_their_standard_deviation(together):
    folder, outcome = together
    losses = [toy.validate(one_seed(outcome.params, index))["loss"] for index in range(3)]
    assert len(set(losses)) == 3
    assert outcome.best["loss"] == pytest.approx(np.mean(losses))
    assert outcome.best["loss_std"] == pytest.approx(np.std(losses, ddof=1))
    lines = [x for x in Log(folder / "metrics.jsonl").read() if "validation_loss" in x]
    assert lines[-1]["validation_loss_std"] > 0
    rates = [x["tokens_per_second"] for x in Log(folder / "metrics.jsonl").read() if "loss" in x]
    assert min(rates) > 0


def test_a_resumed_run_equals_an_uninterrupted_one(together, tmp_path):
    side_by_side(tmp_path, minutes=1e-9)
    side_by_side(tmp_path)
    assert_same_state(final_state(tmp_path), final_state(together[0]))


def test_the_standard_deviation_of_one_seed_is_zero():
    values = over_seeds(toy.validate, jax.tree.map(lambda p: p[None], toy.first_params()), 1)
    assert values["loss_std"] == 0
    assert values["twice"] == pytest.approx(2 * values["loss"])


def test_one_seed_that_diverges_is_named(tmp_path):
    def poisoned(params, carry, batch, key):
        value, carry = toy.loss(params, carry, batch, key)
        first = jax.random.key_data(key)[0]
        return jnp.where(first == spoilt, jnp.nan, value), carry

    spoilt = jax.random.key_data(jax.random.fold_in(jax.random.key(8), 6))[0]
    with pytest.raises(Exception, match="step 6: the loss is nan"):
        side_by_side(tmp_path, make_task(loss=poisoned))


@pytest.mark.parametrize("seeds", [(), (1, 2, 1)])
def test_no_seeds_and_the_same_twice_are_refused(tmp_path, seeds):
    with pytest.raises(ValueError, match="seeds must be one or more different numbers, got"):
        side_by_side(tmp_path, seeds=seeds)


def test_other_seeds_are_another_run(together):
    with pytest.raises(Exception, match=r"seed=\[3, 8, 5\], and this one has \[3, 8\]"):
        side_by_side(together[0], seeds=(3, 8))
