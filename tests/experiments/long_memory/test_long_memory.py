"""Long memory: the model against NumPy, its metrics, the suite, and a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

import jaxrnn as rnn
from experiments.common.errors import UserError
from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.long_memory import suite, train
from experiments.long_memory.__main__ import main
from experiments.long_memory.model import Model, make_memory_cell, mean_loss, weighted_mean
from experiments.long_memory.tasks import TASKS
from tests.support.results import read_results
from tests.support.rounding import with_noise


def small(**changes):
    training = dict(steps=2, warmup=1, validate_every=2, checkpoint_every=2, log_every=1)
    training |= changes.pop("training", {})
    return train.Config(
        **(dict(hidden=6, rows=4, length=10) | changes), training=Options(**training)
    )


def random_params(model, inputs, seed=0):
    return with_noise(model.init(jax.random.key(seed), inputs), seed)


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


def test_outputs_are_a_linear_function_of_the_states():
    model = Model(rnn.Elman(5), 3, 7)
    params = random_params(model, 2)
    xs = np.random.default_rng(1).normal(size=(6, 4, 2)).astype("f4")
    W, U, b = map(np.asarray, params.cell)
    h, expected = np.zeros((4, 5)), []
    for x in xs:
        h = np.tanh(x @ W + b + h @ U)
        expected.append(dense(params.readout["params"]["layers_0"], h))
    np.testing.assert_allclose(jax.jit(model.apply)(params, xs), expected, rtol=1e-4, atol=1e-5)


def test_a_linear_recurrence_has_a_nonlinear_layer_before_and_after():
    model = Model(rnn.LRU(5), 3, 7)
    params = random_params(model, 2)
    xs = np.random.default_rng(1).normal(size=(6, 4, 2)).astype("f4")
    assert model.linear and not Model(rnn.LSTM(5), 3, 7).linear

    @jax.jit
    def reference(params):
        encoded = jax.nn.gelu(dense(params.encoder["params"]["layers_0"], xs))
        _, ys = rnn.unroll(model.cell, params.cell, encoded)
        hidden = jax.nn.gelu(dense(params.readout["params"]["layers_0"], ys))
        return encoded, dense(params.readout["params"]["layers_2"], hidden)

    found = jax.jit(lambda params: (model.encode(params, xs), model.apply(params, xs)))(params)
    for got, expected in zip(found, reference(params), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_losses_and_accuracy_are_means_over_the_steps_with_a_target():
    batch = TASKS["temporal-order"](20).batch(np.random.default_rng(0), 5)
    outputs = np.random.default_rng(1).normal(size=(20, 5, 4))
    logs = outputs[-1] - np.log(np.exp(outputs[-1]).sum(-1, keepdims=True))
    expected = -logs[np.arange(5), batch.targets[-1]].mean()
    np.testing.assert_allclose(mean_loss(4, jnp.asarray(outputs), batch), expected, rtol=1e-5)
    numbers = TASKS["adding"](20).batch(np.random.default_rng(0), 5)
    expected = ((outputs[-1, :, 0] - numbers.targets[-1]) ** 2).mean()
    found = mean_loss(None, jnp.asarray(outputs[..., :1]), numbers)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    correct = outputs.argmax(-1) == batch.targets
    assert weighted_mean(correct, batch.weights) == pytest.approx(correct[-1].mean())


def test_cells_are_initialized_as_their_papers_recommend():
    key, size = jax.random.key(0), 4000
    bias = make_memory_cell("lstm", 4, 50).bias_init(key, (4, size), "float32")
    assert np.exp(bias[1]).max() == pytest.approx(49, rel=0.02)
    np.testing.assert_allclose(bias[0], -bias[1])
    assert make_memory_cell("lstm", 4, None) == rnn.LSTM(4)
    assert make_memory_cell("elman", 4, 50) == rnn.Elman(4)
    gru = make_memory_cell("gru", 4, 50).bias_init(key, (3, size), "float32")
    assert np.exp(gru[1]).max() == pytest.approx(49, rel=0.02) and not gru[0].any()
    assert make_memory_cell("lem", 4, 500).time_step == pytest.approx(0.096)
    radius, phase = make_memory_cell("lru", 4, 100).eigenvalue_init(key, (2, size), "float32")
    assert radius.min() > 0.9899 and radius.max() < 0.9991 and phase.max() < 0.0629


# End to end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    ["parity"]
    + [pytest.param(t, marks=pytest.mark.thorough) for t in sorted(TASKS.keys() - {"parity"})],
)
def test_two_steps_of_every_task(tmp_path, task):
    config = small(task=task, training=dict(out=tmp_path))
    result = main(config)
    assert result.outcome.step == 2
    (metrics,) = result.metrics
    assert metrics["loss"] > 0 and np.isfinite(list(metrics.values())).all()
    if task == "parity":
        assert 0.2 < metrics["accuracy"] < 0.8 and 0.2 < metrics["accuracy_longer"] < 0.8
    written = read_results(tmp_path)
    assert {name: written[name].mean for name in written} == metrics
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert len(Log(tmp_path / "metrics.jsonl").read()) >= 2
    again = main(config)
    assert again.outcome.compile_seconds == 0 and again.metrics == result.metrics
    with pytest.raises(UserError, match="holds a run with hidden=6, and this one has 5"):
        main(dataclasses.replace(config, hidden=5))


@pytest.mark.slow
def test_lstm_learns_parity(tmp_path):
    training = dict(steps=150, learning_rate=0.02, validate_every=50, checkpoint_every=50)
    result = main(
        small(
            task="parity",
            length=4,
            hidden=12,
            rows=32,
            seeds=2,
            training=training | dict(out=tmp_path),
        )
    )
    assert min(metrics["accuracy"] for metrics in result.metrics) > 0.95


def test_the_suite_is_one_table_of_all_rows_and_seeds(tmp_path, monkeypatch):
    trained = suite.Row("adding", "elman", False, 6, 4, 9, 1e-3)
    monkeypatch.setattr(suite, "ROWS", (trained,))
    config = train.Config(suite=True, suite_steps=2, training=Options(out=tmp_path))
    result = main(config)
    assert result.outcome.step == 2 and len(result.metrics) == suite.SEEDS
    assert (tmp_path / "long_memory.png").stat().st_size > 10_000
    line = (tmp_path / "table.md").read_text().splitlines()[2]
    assert line.startswith("| adding, 6 | elman | squared error |")
    assert ", ".join(f"{metrics['loss']:.4g}" for metrics in result.metrics) in line
    errors = tuple(metrics["loss"] for metrics in result.metrics)
    assert read_results(tmp_path)["adding, elman"].values == errors


def test_the_suite_plots_every_task(tmp_path):
    rows = [
        suite.Row("copy", "elman", False, 6, 4, 9, 1e-3),
        suite.Row("parity", "min-gru", False, 5, 4, 9, 1e-3),
        suite.Row("anbn", "lstm", True, 4, 4, 9, 1e-3),
    ]
    for step in (0, 9):
        Log(tmp_path / "metrics.jsonl").append(
            step, {"validation_loss": 1.0, "validation_loss_std": 0.1}
        )
    metrics = [{"loss": 0.5, "accuracy": 0.6, "accuracy_longer": 0.5, "counts_to": 7.0}] * 2
    metrics = [values | {"chance": 0.7} for values in metrics]
    runs = [suite.TrainedRow(row, metrics, tmp_path, 1.0) for row in rows]
    lines = suite.format_table(runs).splitlines()[2:]
    assert [line.split(" | ")[3:7] for line in lines] == [
        ["0.5, 0.5", "0.7000", "2 of 2", "no"],
        ["0.5, 0.5", "0.5", "0 of 2", "no"],
        ["7, 7", "0", "2 of 2", "yes"],
    ]
    suite.plot_suite(tmp_path / "suite.png", runs)
    assert (tmp_path / "suite.png").stat().st_size > 10_000


def test_criteria_of_solved_tasks(tmp_path):
    solved = {name: criterion.solved for name, criterion in suite.CRITERIA.items()}
    assert solved["adding"]({"loss": 0.009}, 500) and not solved["adding"]({"loss": 0.01}, 500)
    parity = solved["parity"]
    assert parity({"accuracy_longer": 1.0}, 40) and not parity({"accuracy_longer": 0.98}, 40)
    assert {row.task for row in suite.ROWS} == set(suite.CRITERIA)
    for row in suite.ROWS:
        assert row.config(tmp_path, Options()).training.steps == row.steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "0"], "hidden must be at least 1, got 0"),
        (["--length", "2"], "length must be at least 3, got 2"),
        (["--task", "associative-recall", "--length", "27"], "length must be at most 26"),
        (["--task", "add"], "invalid choice 'add'"),
    ],
)
def test_invalid_arguments_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit):
        tyro.cli(train.Config, args=arguments, config=(tyro.conf.OmitArgPrefixes,))
    assert message in " ".join("".join(capsys.readouterr()).replace("│", " ").split())
