"""The training loop: exact resuming, a clean end, and its errors."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from experiments.common.checkpoint import Checkpoints
from experiments.common.errors import UserError
from experiments.common.metrics import Log
from experiments.common.options import Options, make_optimizer
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder and the outcome of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


# What it does -------------------------------------------------------------------------------------


def test_steps_are_those_of_a_plain_loop(whole):
    """Loss, state, keys and optimizer against a loop written by hand."""
    options = Options(steps=24, learning_rate=0.1, warmup=4, seed=3)
    optimizer = make_optimizer(options)
    params, carry = first_params(), jnp.zeros((ROWS, SIZE))
    moments, losses = optimizer.init(params), []
    differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for step in range(24):
        key = jax.random.fold_in(jax.random.key(3), step)
        (value, carry), gradient = differentiate(params, carry, batch(step), key)
        updates, moments = optimizer.update(gradient, moments, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(value))
    step, tensors = final_state(whole[0])
    assert step == 24
    np.testing.assert_allclose(tensors["params/matrix"], params["matrix"], rtol=1e-5)
    np.testing.assert_allclose(tensors["carry"], carry, rtol=1e-5)
    lines = [line for line in Log(whole[0] / "metrics.jsonl").read() if "loss" in line]
    ends = [line["step"] for line in lines]
    windows = [np.mean(losses[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    np.testing.assert_allclose([line["loss"] for line in lines], windows, rtol=1e-5)
    assert losses[-1] < 0.2 * losses[0]


def test_the_best_parameters_are_those_of_the_best_validation(tmp_path):
    """The validation loss falls, then rises: the best is in the middle."""
    values = iter([5.0, 3.0, 1.0, 2.0])
    seen = []

    def falls_then_rises(params):
        seen.append(np.array(params["matrix"]))
        return {"loss": next(values)}

    outcome = run(tmp_path, make_task(validate=falls_then_rises))
    assert outcome.best == {"loss": 1.0, "step": 16}
    np.testing.assert_array_equal(outcome.params["matrix"], seen[2])
    assert not np.array_equal(seen[2], seen[3])


def test_the_best_parameters_can_be_chosen_by_another_metric(tmp_path):
    errors = iter([0.9, 0.5, 0.7, 0.2])
    losses = iter([5.0, 3.0, 1.0, 2.0])
    task = make_task(validate=lambda _: {"loss": next(losses), "errors": next(errors)})
    outcome = run(tmp_path, dataclasses.replace(task, monitor="errors"))
    assert outcome.best == {"loss": 2.0, "errors": 0.2, "step": 24}


def test_files_of_a_run(whole):
    folder, outcome = whole
    names = {path.name for path in folder.iterdir()}
    assert names == {"best.safetensors", "checkpoints", "curves.png", "metrics.jsonl"}
    checkpoints = {path.name for path in (folder / "checkpoints").iterdir()}
    assert checkpoints == {"step_00000018", "step_00000024"}
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [4, 6, 8, 12, 16, 18, 20, 24]
    assert [line["step"] for line in lines if "validation_loss" in line] == [0, 8, 16, 24]
    assert all(line["tokens_per_second"] > 0 for line in lines if "loss" in line)
    assert outcome.step == 24 and outcome.signal is None and outcome.compile_seconds > 0


def validations_of(values):
    """A validation that returns these losses in turn."""
    values = iter(values)
    return make_task(validate=lambda params: {"loss": next(values)})


def test_patience_stops_the_run_early_and_again_when_resumed(tmp_path):
    changes = dict(steps=80, validate_every=8, checkpoint_every=100, patience=2)
    outcome = run(tmp_path, validations_of([5, 3, 4, 2, 2, 3, 0]), **changes)
    assert (outcome.step, outcome.best) == (40, {"loss": 2, "step": 24})
    assert final_state(tmp_path)[0] == 40

    def never(step):
        raise AssertionError("it trained again")

    again = run(tmp_path, make_task(batch=never), **changes)
    assert (again.step, again.best, again.signal) == (40, outcome.best, None)
    more = run(tmp_path, validations_of([9, 1, 1, 1, 0, 3]), **(changes | {"patience": 3}))
    assert (more.step, more.best) == (80, {"loss": 0, "step": 72})


def test_patience_does_not_change_a_run_that_improves(whole, tmp_path):
    run(tmp_path, patience=1)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


# Resuming -----------------------------------------------------------------------------------------


class Stop(Exception):
    """Stands for the end of a process."""


def crashing(at_step):
    def crash_or_batch(step):
        if step == at_step:
            raise Stop
        return batch(step)

    return make_task(batch=crash_or_batch)


@pytest.mark.parametrize("crash", [1, 6, 13])
def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path, crash):
    with pytest.raises(Stop):
        run(tmp_path, crashing(crash))
    outcome = run(tmp_path)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))
    np.testing.assert_array_equal(outcome.params["matrix"], whole[1].params["matrix"])
    assert outcome.best == whole[1].best
    kept = ("step", "loss", "gradient_norm", "validation_loss")
    resumed, uninterrupted = (
        [{k: v for k, v in line.items() if k in kept} for line in Log(f / "metrics.jsonl").read()]
        for f in (tmp_path, whole[0])
    )
    assert resumed == uninterrupted
    assert outcome.step == 24


def test_after_a_damaged_checkpoint_the_one_before_is_used(whole, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, crashing(13))
    latest = Checkpoints(tmp_path / "checkpoints").latest()
    assert latest.name == "step_00000012"
    largest = max((p for p in latest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    largest.write_bytes(content)
    begun = []

    def noting(step):
        begun.append(step)
        return batch(step)

    run(tmp_path, make_task(batch=noting))
    assert begun[0] == 0 and begun[1] == 6  # the first call only gives the shapes
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


def test_a_resumed_run_writes_its_best_parameters(whole, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, crashing(13))
    (tmp_path / "best.safetensors").write_bytes(b"?")
    outcome = run(tmp_path)
    np.testing.assert_array_equal(outcome.params["matrix"], whole[1].params["matrix"])
    best = load_file(tmp_path / "best.safetensors")
    np.testing.assert_array_equal(best["params/matrix"], outcome.params["matrix"])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_changed(whole):
    def never(step):
        raise AssertionError("it trained again")

    before = contents(whole[0])
    outcome = run(whole[0], make_task(batch=never))
    assert outcome.best == whole[1].best and outcome.step == 24
    np.testing.assert_array_equal(outcome.params["matrix"], whole[1].params["matrix"])
    assert before == contents(whole[0])


def test_runs_depend_on_the_seed_only(whole, tmp_path):
    run(tmp_path / "same")
    run(tmp_path / "other", seed=4)
    assert_same_state(final_state(tmp_path / "same"), final_state(whole[0]))
    other = final_state(tmp_path / "other")[1]["params/matrix"]
    assert not np.array_equal(other, final_state(whole[0])[1]["params/matrix"])


def test_another_run_in_the_folder_is_refused_without_fresh(whole, tmp_path):
    run(tmp_path, identity={"size": 7, "cell": "lstm"}, steps=6)
    with pytest.raises(
        UserError, match="run with cell='lstm', and this one has None.*--out.*--fresh"
    ):
        run(tmp_path)
    run(tmp_path, fresh=True)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_short_runs_work(tmp_path, steps):
    assert run(tmp_path, steps=steps, warmup=100).step == steps


# Stopping -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(whole, tmp_path, number):
    def interrupting(step):
        if step == 9:
            os.kill(os.getpid(), number)
        return batch(step)

    before = signal.getsignal(number)
    outcome = run(tmp_path, make_task(batch=interrupting))
    assert (outcome.signal, outcome.step) == (number, 10)
    assert final_state(tmp_path)[0] == 10
    assert signal.getsignal(number) == before
    run(tmp_path)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


@pytest.fixture
def interrupts():
    """A process started in the background ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_second_interrupt_acts_as_usual(tmp_path):
    def impatient(step):
        if step == 9:
            for _ in range(2):  # each is handled before this returns; two pending ones are one
                signal.raise_signal(signal.SIGINT)
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, make_task(batch=impatient))
    assert final_state(tmp_path)[0] == 6


def test_minutes_stop_the_run_and_it_resumes(whole, tmp_path):
    outcome = run(tmp_path, minutes=1e-9)
    assert (outcome.step, outcome.signal) == (1, None)
    run(tmp_path)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


@pytest.mark.parametrize(("step", "bad"), [(0, np.nan), (9, np.inf), (23, np.nan)])
def test_a_loss_that_is_not_finite_stops_the_run_and_the_last_checkpoint_stays(tmp_path, bad, step):
    def poisoned(number):
        values = batch(number)
        if number == step:
            values["ys"][-1, -1, -1] = bad
        return values

    with pytest.raises(UserError) as caught:
        run(tmp_path, make_task(batch=poisoned))
    message = str(caught.value)
    assert message.startswith(f"step {step}: ")
    assert "--learning-rate (now 0.1)" in message
    good = step // 6 * 6
    if good == 0:
        assert "is kept: none yet" in message
    else:
        assert f"step_{good:08d}" in message
        assert all(np.isfinite(value).all() for value in final_state(tmp_path)[1].values())
        assert final_state(tmp_path)[0] == good
    assert (tmp_path / "curves.png").exists()


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    def root(params, carry, batch, key):
        return jnp.sqrt(jnp.sum(params["bias"] ** 2)), carry  # finite at 0, its slope is not

    with pytest.raises(UserError, match="step 0: the loss is 0, its gradient's norm nan"):
        run(tmp_path, make_task(loss=root))


def test_a_validation_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(UserError, match="validation loss is nan at step 0"):
        run(tmp_path, make_task(validate=lambda params: {"loss": np.nan}))
