"""The network of the memory tasks against NumPy, its scores, and the runs as a whole."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

import jaxrnn as rnn
from experiments.common.cli import UserError
from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.long_memory import suite as _memory_suite
from experiments.long_memory import train as long_memory
from experiments.long_memory.model import Model, cell_for, losses, weighted_mean
from experiments.long_memory.suite import ROWS, Row
from experiments.long_memory.tasks import TASKS


def small(**changes):
    training = dict(steps=2, warmup=1, validate_every=2, checkpoint_every=2, log_every=1)
    training |= changes.pop("training", {})
    return long_memory.Config(
        **(dict(hidden=6, rows=4, length=10) | changes), training=Options(**training)
    )


def random_params(model, inputs, seed=0):
    random = np.random.default_rng(seed)
    params = model.init(jax.random.key(seed), inputs)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.3 * random.normal(size=leaf.shape), jnp.float32), params
    )


def dense(params, x):
    return x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def test_the_answers_are_a_linear_function_of_the_outputs():
    model = Model(rnn.Elman(5), 3, 7)
    params = random_params(model, 2)
    xs = np.random.default_rng(1).normal(size=(6, 4, 2)).astype("f4")
    W, U, b = map(np.asarray, params.cell)
    h, answers = np.zeros((4, 5)), []
    for x in xs:
        h = np.tanh(x @ W + b + h @ U)
        answers.append(dense(params.readout["params"]["layers_0"], h))
    np.testing.assert_allclose(model.apply(params, xs), answers, rtol=1e-4, atol=1e-5)


def test_a_linear_recurrence_has_a_nonlinear_layer_before_and_after():
    model = Model(rnn.LRU(5), 3, 7)
    params = random_params(model, 2)
    xs = np.random.default_rng(1).normal(size=(6, 4, 2)).astype("f4")
    assert model.linear and not Model(rnn.LSTM(5), 3, 7).linear
    seen = jax.nn.gelu(dense(params.encoder["params"]["layers_0"], xs))
    np.testing.assert_allclose(model.encode(params, xs), seen, rtol=1e-4, atol=1e-5)
    _, ys = rnn.unroll(model.cell, params.cell, seen)
    hidden = jax.nn.gelu(dense(params.readout["params"]["layers_0"], np.asarray(ys)))
    expected = dense(params.readout["params"]["layers_2"], np.asarray(hidden))
    np.testing.assert_allclose(model.apply(params, xs), expected, rtol=1e-4, atol=1e-5)


def test_losses_and_accuracy_count_where_an_answer_is_asked_for():
    task = TASKS["temporal-order"](20)
    batch = task.batch(np.random.default_rng(0), 5)
    answers = np.random.default_rng(1).normal(size=(20, 5, 4))
    logs = answers[-1] - np.log(np.exp(answers[-1]).sum(-1, keepdims=True))
    expected = -logs[np.arange(5), batch.targets[-1]].mean()
    found = weighted_mean(losses(4, jnp.asarray(answers), batch), batch.weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    numbers = TASKS["adding"](20).batch(np.random.default_rng(0), 5)
    found = weighted_mean(losses(None, jnp.asarray(answers[..., :1]), numbers), numbers.weights)
    np.testing.assert_allclose(
        found, ((answers[-1, :, 0] - numbers.targets[-1]) ** 2).mean(), rtol=1e-5
    )


def test_cells_are_started_as_their_papers_say():
    key, size = jax.random.key(0), 4000
    bias = cell_for("lstm", 4, 50).bias_init(key, (4, size), "float32")
    assert np.exp(bias[1]).max() == pytest.approx(49, rel=0.02)
    np.testing.assert_allclose(bias[0], -bias[1])
    assert cell_for("lstm", 4, None) == rnn.LSTM(4)
    assert cell_for("elman", 4, 50) == rnn.Elman(4)
    gru = cell_for("gru", 4, 50).bias_init(key, (3, size), "float32")
    assert np.exp(gru[1]).max() == pytest.approx(49, rel=0.02) and not gru[0].any()
    assert cell_for("lem", 4, 500).time_step == pytest.approx(0.096)
    radius, phase = cell_for("lru", 4, 100).eigenvalue_init(key, (2, size), "float32")
    assert radius.min() > 0.9899 and radius.max() < 0.9991 and phase.max() < 0.0629


# The whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(TASKS))
def test_two_steps_of_every_task(tmp_path, task):
    result = long_memory.main(small(task=task, training=dict(out=tmp_path)))
    assert result.outcome.step == 2
    (scores,) = result.test
    assert scores["loss"] > 0 and np.isfinite(list(scores.values())).all()
    assert json.loads((tmp_path / "test.json").read_text()) == [scores]
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert len(Log(tmp_path / "metrics.jsonl").read()) >= 2


def test_it_learns_goes_on_where_it_stopped_and_knows_other_runs(tmp_path):
    training = dict(steps=150, learning_rate=0.02, validate_every=50, checkpoint_every=50)
    config = small(
        task="parity", length=4, hidden=12, rows=32, seeds=2, training=training | dict(out=tmp_path)
    )
    result = long_memory.main(config)
    assert min(scores["accuracy"] for scores in result.test) > 0.95 and len(result.test) == 2
    again = long_memory.main(config)
    assert again.outcome.compile_seconds == 0 and again.test == result.test
    with pytest.raises(UserError, match="holds a run with hidden=12, and this one has 5"):
        long_memory.main(dataclasses.replace(config, hidden=5))


def test_the_suite_makes_one_table_of_all_rows_and_seeds(tmp_path, monkeypatch):
    rows = (
        Row("adding", "elman", False, 6, 4, 9, 1e-3),
        Row("parity", "min-gru", False, 5, 4, 9, 1e-3),
        Row("anbn", "lstm", True, 3, 4, 9, 1e-3),
    )
    monkeypatch.setattr(long_memory, "ROWS", rows)
    config = long_memory.Config(suite=True, suite_steps=2, training=Options(out=tmp_path))
    result = long_memory.main(config)
    assert len(result.test) == 3 * len(rows)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    for number, (row, line) in enumerate(zip(rows, lines[2:], strict=True)):
        assert line.startswith(f"| {row.task}, {row.length} | {row.cell} |")
        score = _memory_suite.MEASURES[row.task].score
        values = [scores[score] for scores in result.test[3 * number : 3 * number + 3]]
        assert ", ".join(f"{value:.4g}" for value in values) in line
    assert (tmp_path / "long_memory.png").stat().st_size > 10_000


def test_what_counts_as_solved():
    row = ROWS[0]
    solved = {name: measure.solved for name, measure in _memory_suite.MEASURES.items()}
    assert solved["adding"]({"loss": 0.009}, row) and not solved["adding"]({"loss": 0.01}, row)
    assert solved["parity"]({"beyond": 1.0}, row) and not solved["parity"]({"beyond": 0.98}, row)
    assert {row.task for row in ROWS} == set(_memory_suite.MEASURES)
    for row in ROWS:
        long_memory.Config(**row.options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "0"], "hidden must be at least 1, got 0"),
        (["--length", "2"], "length must be at least 3, got 2"),
        (["--task", "associative-recall", "--length", "27"], "length must be at most 26"),
        (["--task", "add"], "invalid choice 'add'"),
    ],
)
def test_bad_arguments_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit):
        tyro.cli(long_memory.Config, args=arguments, config=(tyro.conf.OmitArgPrefixes,))
    assert message in " ".join("".join(capsys.readouterr()).replace("│", " ").split())
