"""The training loop: resumes exactly, stops cleanly, and says what is wrong."""

import dataclasses
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.common import checkpoint as _checkpoint
from experiments.common.errors import DivergedError, OtherRunError
from experiments.common.metrics import Log, draw_curves
from experiments.common.options import Options, identity, make_optimizer, run_folder
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
    """An uninterrupted run's folder, and how it ended."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


# What it does -------------------------------------------------------------------------------------


def test_steps_are_those_of_a_plain_loop(whole):
    """Loss, state, keys and optimiser against the same written out by hand."""
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
    """Validations fall, then rise: what comes back is from the middle."""
    values = iter([5.0, 3.0, 1.0, 2.0])
    seen = []

    def falls_then_rises(params):
        seen.append(np.array(params["matrix"]))
        return {"loss": next(values)}

    outcome = run(tmp_path, make_task(validate=falls_then_rises))
    assert outcome.best == {"loss": 1.0, "step": 16}
    np.testing.assert_array_equal(outcome.params["matrix"], seen[2])
    assert not np.array_equal(seen[2], seen[3])


def test_the_best_parameters_can_be_chosen_by_another_value(tmp_path):
    errors = iter([0.9, 0.5, 0.7, 0.2])
    losses = iter([5.0, 3.0, 1.0, 2.0])
    task = make_task(validate=lambda _: {"loss": next(losses), "errors": next(errors)})
    outcome = run(tmp_path, dataclasses.replace(task, choose_by="errors"))
    assert outcome.best == {"loss": 2.0, "errors": 0.2, "step": 24}


def test_what_is_written(whole):
    folder, outcome = whole
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "best.safetensors",
        "curves.png",
        "metrics.jsonl",
        "step-00000018.safetensors",
        "step-00000024.safetensors",
    }
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [4, 6, 8, 12, 16, 18, 20, 24]
    assert [line["step"] for line in lines if "validation_loss" in line] == [0, 8, 16, 24]
    assert all(line["tokens_per_second"] > 0 for line in lines if "loss" in line)
    assert outcome.step == 24 and outcome.signal is None and outcome.compile_seconds > 0


def test_the_learning_rate_warms_up_and_falls_to_zero():
    """Adam's first updates have the size of the learning rate: read the schedule off them."""
    optimizer = make_optimizer(Options(steps=40, learning_rate=0.5, warmup=10, clip=1e9))
    params = jnp.zeros(1)
    state, sizes = optimizer.init(params), []
    for _ in range(41):
        update, state = optimizer.update(jnp.ones(1), state, params)
        sizes.append(-float(update[0]))
    np.testing.assert_allclose(sizes[:11], 0.5 * np.arange(11) / 10, atol=1e-5)
    expected = 0.25 * (1 + np.cos(np.pi * np.arange(31) / 30))
    np.testing.assert_allclose(sizes[10:], expected, atol=1e-5)


def test_clipping_is_by_the_global_norm_and_decay_spares_vectors():
    options = Options(steps=10, learning_rate=0.1, warmup=0, clip=1.0, weight_decay=0.5)
    params = {"matrix": jnp.full((2, 2), 3.0), "vector": jnp.full(2, 3.0)}
    zero = jax.tree.map(jnp.zeros_like, params)
    optimizer = make_optimizer(options)
    update, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(update["matrix"], -0.1 * 0.5 * 3.0, rtol=1e-5)
    np.testing.assert_array_equal(update["vector"], 0.0)
    huge = jax.tree.map(lambda p: jnp.full_like(p, 100.0), params)
    _, state = optimizer.update(huge, optimizer.init(params), params)
    moments = optax.tree.get(state, "mu")
    np.testing.assert_allclose(optax.tree.norm(moments), 0.1, rtol=1e-5)  # (1 - beta1) * clip


def validations_of(values):
    """A validation that gives these losses one after another, whatever the parameters."""
    values = iter(values)
    return make_task(validate=lambda params: {"loss": next(values)})


def test_patience_ends_the_run_when_nothing_is_better_and_again_when_resumed(tmp_path):
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


def test_a_run_that_patience_would_not_end_is_the_run_without(whole, tmp_path):
    run(tmp_path, patience=1)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


# Resuming -----------------------------------------------------------------------------------------


class Stop(Exception):
    """Stands for the end of a process, at a place that a test chooses."""


def crashing(at_step):
    def crash_or_batch(step):
        if step == at_step:
            raise Stop
        return batch(step)

    return make_task(batch=crash_or_batch)


@pytest.mark.parametrize("crash", [1, 6, 7, 13, 23])
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


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(whole, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, crashing(13))
    newest = _checkpoint.Folder(tmp_path).newest()
    assert newest.name == "step-00000012.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    begun = []

    def noting(step):
        begun.append(step)
        return batch(step)

    run(tmp_path, make_task(batch=noting))
    assert begun[0] == 0 and begun[1] == 6  # the first call only gives the shapes
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


def test_a_damaged_best_is_not_the_end(whole, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, crashing(13))
    (tmp_path / "best.safetensors").write_bytes(b"?")
    outcome = run(tmp_path)
    np.testing.assert_array_equal(outcome.params["matrix"], whole[1].params["matrix"])
    assert (tmp_path / "best.damaged").exists()


def test_a_finished_run_is_only_read(whole):
    def never(step):
        raise AssertionError("it trained again")

    before = {path: path.read_bytes() for path in whole[0].iterdir()}
    outcome = run(whole[0], make_task(batch=never))
    assert outcome.best == whole[1].best and outcome.step == 24
    np.testing.assert_array_equal(outcome.params["matrix"], whole[1].params["matrix"])
    assert before == {path: path.read_bytes() for path in whole[0].iterdir()}


def test_seeds_decide_and_nothing_else_does(whole, tmp_path):
    run(tmp_path / "same")
    run(tmp_path / "other", seed=4)
    assert_same_state(final_state(tmp_path / "same"), final_state(whole[0]))
    other = final_state(tmp_path / "other")[1]["params/matrix"]
    assert not np.array_equal(other, final_state(whole[0])[1]["params/matrix"])


def test_another_run_in_the_folder_is_refused_unless_begun_anew(whole, tmp_path):
    run(tmp_path, identity={"size": 7, "cell": "lstm"}, steps=6)
    with pytest.raises(
        OtherRunError, match="run with cell='lstm', and this one has None.*--out.*--fresh"
    ):
        run(tmp_path)
    run(tmp_path, fresh=True)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


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
    """A process that was begun in the background ignores interrupts from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_second_interrupt_acts_at_once(tmp_path):
    def impatient(step):
        if step == 9:
            for _ in range(2):  # each is handled before this returns; two pending ones are one
                signal.raise_signal(signal.SIGINT)
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, make_task(batch=impatient))
    assert final_state(tmp_path)[0] == 6


def test_minutes_end_the_run_early_and_it_goes_on_from_there(whole, tmp_path):
    outcome = run(tmp_path, minutes=1e-9)
    assert (outcome.step, outcome.signal) == (1, None)
    run(tmp_path)
    assert_same_state(final_state(tmp_path), final_state(whole[0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("step", [0, 5, 9, 23])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good(tmp_path, bad, step):
    def poisoned(number):
        values = batch(number)
        if number == step:
            values["ys"][-1, -1, -1] = bad
        return values

    with pytest.raises(DivergedError) as caught:
        run(tmp_path, make_task(batch=poisoned))
    message = str(caught.value)
    assert message.startswith(f"step {step}: ")
    assert "--learning-rate (now 0.1)" in message
    good = step // 6 * 6
    if good == 0:
        assert "none was due yet" in message
    else:
        assert f"step-{good:08d}.safetensors" in message
        assert all(np.isfinite(value).all() for value in final_state(tmp_path)[1].values())
        assert final_state(tmp_path)[0] == good
    assert (tmp_path / "curves.png").exists()


def test_a_gradient_that_is_not_finite_stops_the_run_though_the_loss_is(tmp_path):
    def root(params, carry, batch, key):
        return jnp.sqrt(jnp.sum(params["bias"] ** 2)), carry  # finite at 0, its slope is not

    with pytest.raises(DivergedError, match="step 0: the loss is 0, its gradient's norm nan"):
        run(tmp_path, make_task(loss=root))


def test_a_validation_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(DivergedError, match="validation loss is nan at step 0"):
        run(tmp_path, make_task(validate=lambda params: {"loss": np.nan}))


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"log_every": -1}, "log_every must be at least 1, got -1"),
        ({"keep": 1}, "keep must be at least 2, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be greater than 0, got nan"),
        ({"clip": -1.0}, "clip must be greater than 0, got -1.0"),
        ({"warmup": -5}, "warmup must be 0 or more, got -5"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more, got -0.1"),
        ({"devices": -1}, "devices must be 0 or more, got -1"),
        ({"patience": -1}, "patience must be 0 or more, got -1"),
        ({"average": 1.0}, r"average must be in \[0, 1\), got 1.0"),
        ({"average": -0.1}, r"average must be in \[0, 1\), got -0.1"),
        ({"average": float("nan")}, r"average must be in \[0, 1\), got nan"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"steps": 10, "accumulate": 4}, "multiple of accumulate, got 10 and 4: the last 2 would"),
        ({"schedule": "cosinus"}, r"schedule must be one of \('cosine', .*, got 'cosinus'"),
        ({"precision": "float16"}, r"precision must be one of \('float32', .*, got 'float16'"),
    ],
)
def test_bad_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Options(**change)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_short_runs_work(tmp_path, steps):
    assert run(tmp_path, steps=steps, warmup=100).step == steps


@dataclass(frozen=True)
class Config:
    size: int = 3
    folder: Path = Path("a")
    samples: tuple[float, ...] = (0.5, 1.0)
    training: Options = Options()


@pytest.mark.parametrize(
    "same",
    [
        Config(samples=(2.0,)),
        Config(training=Options(minutes=3, out=Path("b"), fresh=True, keep=5)),
        Config(training=Options(log_every=1, validate_every=1, checkpoint_every=1)),
        Config(training=Options(patience=3, devices=2)),
    ],
)
def test_what_only_reports_does_not_make_another_run(same):
    assert identity(same, reporting=["samples"]) == identity(Config(), reporting=["samples"])


@pytest.mark.parametrize(
    "other",
    [
        Config(size=4),
        Config(samples=(2.0,)),
        Config(folder=Path("c")),
        *(Config(training=Options(**{name: 7})) for name in ("steps", "seed", "warmup", "clip")),
        *(Config(training=Options(**{name: 7.0})) for name in ("learning_rate", "weight_decay")),
        *(Config(training=Options(schedule=name)) for name in ("constant", "one-cycle")),
        Config(training=Options(precision="bfloat16")),
        Config(training=Options(accumulate=2)),
        Config(training=Options(average=0.5)),
    ],
)
def test_what_decides_makes_another_run_with_a_folder_of_its_own(other):
    one, another = identity(Config()), identity(other)
    assert one != another and one == json.loads(json.dumps(one))
    assert run_folder(Options(), "char_lm", one) != run_folder(Options(), "char_lm", another)
    assert run_folder(Options(), "char_lm", one) == run_folder(Options(), "char_lm", dict(one))
    assert run_folder(Options(out=Path("mine")), "char_lm", one) == Path("mine")


# Metrics ------------------------------------------------------------------------------------------


def test_half_a_line_is_skipped_and_rewound(tmp_path):
    log = Log(tmp_path / "metrics.jsonl")
    assert log.read() == []
    log.append(1, {"loss": 2.0})
    log.append(2, {"loss": 1.5})
    with log.path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert log.read() == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
    log.rewind(1)
    log.append(2, {"loss": 1.25})
    assert log.path.read_text() == '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.25}\n'


def test_identity_leaves_out_what_only_reports(): ...


def test_curves_without_anything_to_draw_are_drawn(tmp_path):
    draw_curves(tmp_path / "a.png", [], "nothing", "nats")
    assert (tmp_path / "a.png").stat().st_size > 1000
