"""The exponential moving average (EMA) of the parameters: its values, uses, and resuming."""

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from experiments.common.options import Options
from experiments.common.step import init_state, make_step
from experiments.common.training import fit
from tests.experiments.common.test_seeds import SEEDS, init, side_by_side
from tests.support.toy import (
    ROWS,
    SIZE,
    assert_same_state,
    batch,
    final_state,
    first_params,
    loss,
    make_task,
    run,
)


def states(**changes):
    """The state before every step, and after the last."""
    options = Options(**(dict(steps=7, learning_rate=0.1, warmup=2, seed=3) | changes))
    step = make_step(loss, options)
    seen = [init_state(first_params(), np.zeros((ROWS, SIZE), "float32"), options)]
    step = jax.jit(step)
    for number in range(options.steps):
        seen.append(step(seen[-1], batch(number), np.int32(number))[0])
    return seen


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9999])
def test_the_ema_weights_decay_with_age(decay):
    plain, averaged = states(), states(average=decay)
    for name in ("matrix", "bias"):
        visited = np.stack([np.asarray(state.params[name], np.float64) for state in plain[1:]])
        for count in range(1, len(plain)):
            weights = decay ** np.arange(count)[::-1]
            expected = np.average(visited[:count], axis=0, weights=weights)
            np.testing.assert_allclose(averaged[count].ema[name], expected, rtol=1e-5, atol=1e-7)
        # What is trained is what would be without.
        np.testing.assert_array_equal(averaged[-1].params[name], plain[-1].params[name])
        assert not np.allclose(expected, visited[-1], rtol=1e-3)
    assert averaged[-1].eval_params is averaged[-1].ema
    assert plain[-1].ema is None and plain[-1].eval_params is plain[-1].params


def test_before_the_first_step_the_ema_is_the_initial_parameters():
    first = states(steps=1, average=0.9)[0]
    for name, value in first_params().items():
        np.testing.assert_array_equal(first.ema[name], value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with an EMA: its folder, its outcome, and the validated parameters."""
    folder, seen = tmp_path_factory.mktemp("whole"), []

    def validate(params):
        seen.append(np.array(params["matrix"]))
        return {"loss": 10.0 - len(seen)}  # always better: the last is the best

    return folder, run(folder, make_task(validate=validate), average=0.9), seen


def test_validation_and_the_best_parameters_use_the_ema(whole):
    folder, outcome, seen = whole
    _, tensors = final_state(folder)
    best = load_file(folder / "best.safetensors")
    for value in (outcome.params["matrix"], best["params/matrix"], seen[-1]):
        np.testing.assert_array_equal(value, tensors["ema/matrix"])
    assert not np.allclose(tensors["ema/matrix"], tensors["params/matrix"], rtol=1e-3)
    assert {name for name in best} == {"params/matrix", "params/bias"}


def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path):
    def crash_or_batch(step):
        if step == 13:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, make_task(batch=crash_or_batch), average=0.9)
    outcome = run(tmp_path, average=0.9)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))
    assert outcome.step == 24


def test_without_average_the_checkpoint_holds_no_ema(tmp_path):
    run(tmp_path, steps=6)
    assert not [name for name in final_state(tmp_path)[1] if name.startswith("ema")]


def test_the_ema_is_printed(tmp_path, capsys):
    for decay, said in ((0.9, True), (0.0, False)):
        fit(
            make_task(),
            first_params(),
            np.zeros((ROWS, SIZE), "float32"),
            options=Options(steps=2, average=decay),
            folder=tmp_path / str(decay),
            identity={},
            console=Console(soft_wrap=True),
        )
        assert ("the EMA of the parameters, decay 0.9" in capsys.readouterr().out) is said


def test_each_of_several_seeds_has_its_own_ema(tmp_path):
    side_by_side(tmp_path / "together", average=0.9)
    run(tmp_path / "alone", params=init(jax.random.key(SEEDS[1])), seed=SEEDS[1], average=0.9)
    own, others = final_state(tmp_path / "alone")[1], final_state(tmp_path / "together")[1]
    np.testing.assert_allclose(others["ema/matrix"][1], own["ema/matrix"], rtol=1e-5)
