"""Classification: the model against NumPy, the splits, the report, and a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments.classify import train as classify
from experiments.classify.data import Data, Sequences, pad
from experiments.classify.report import Predictions, confusion, summarize
from experiments.common.errors import UserError
from experiments.common.options import Options
from tests.support.results import read_results
from tests.support.rounding import rounding_error, with_noise

CLASSES = ("a", "b", "c")


def sequences(count, seed):
    """Class k rises k times as fast; three channels, the last one constant."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    found = []
    for label in labels:
        time = random.integers(3, 7)
        rise = np.outer(np.arange(time), [label + 1, -label]) + 0.1 * random.normal(size=(time, 2))
        found.append(np.concatenate([rise, np.ones((time, 1))], 1).astype("f4"))
    return Sequences(found, labels.astype(np.int32))


def write(folder):
    for part, count, seed in (("TRAIN", 24, 0), ("TEST", 12, 1)):
        lines = ["@data"]
        for x, label in zip(*sequences(count, seed), strict=True):
            channels = [",".join(map(str, channel)) for channel in x.T]
            lines.append(":".join([*channels, CLASSES[label]]))
        (folder / f"Mine_{part}.ts").write_text("\n".join(lines) + "\n")


def small(folder=None, **changes):
    training = dict(steps=2, warmup=1, validate_every=2, checkpoint_every=2, log_every=1)
    training |= dict(out=None if folder is None else folder / "run") | changes.pop("training", {})
    defaults = dict(data="own", path=folder, hidden=5, members=2, rows=8, seeds=2, cell="elman")
    return classify.Config(**(defaults | changes), training=Options(**training))


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


def elman(params, xs):
    h, ys = np.zeros(params.bias.shape), []
    for x in xs:
        h = np.tanh(x @ params.input_kernel + params.bias + h @ params.recurrent_kernel)
        ys.append(h)
    return np.array(ys)


def test_noise_has_the_dtype_of_the_sequences():
    xs = classify.add_noise(jax.random.key(0), jnp.zeros((50, 9, 3), "bfloat16"), 0.5, 2.0)
    assert xs.dtype == jnp.bfloat16
    steps = xs.astype("float32")
    assert 0.4 < (steps - steps.mean(0)).std() < 0.6 and 1 < steps.mean(0).std() < 3


def test_in_bfloat16_gradients_differ_by_rounding_only(tmp_path):
    train, config = sequences(24, 0), small(tmp_path, rows=24, noise=0.0, offset=0.0, dropout=0.0)
    model = classify.make_model(config, Data(train, train, CLASSES))
    params = with_noise(model.init(jax.random.key(0), 3))
    assert rounding_error(classify.make_task(config, model, train), params) < 0.02


def test_logits_are_of_pooled_statistics_of_both_directions_up_to_the_length(folder):
    """The ensemble averages the probabilities of its members, and padding has no influence."""
    config = small(folder, noise=0.5, dropout=0.5)
    data = classify.load(config)
    model = classify.make_model(config, data)
    params = with_noise(model.init(jax.random.key(0), 3))
    rows = data.test.sequences
    xs, lengths = pad(rows, 9)
    xs[np.arange(9)[:, None] >= lengths] = np.nan
    logits = jax.jit(model.apply)(params, xs, lengths)
    for member in range(2):
        one = jax.tree.map(lambda leaf, i=member: np.asarray(leaf[i]), params)
        ((forward, backward),) = one.layers
        readout = one.readout["params"]
        for row, x in enumerate(rows):
            ys = np.concatenate([elman(forward, x), elman(backward, x[::-1])], -1)
            features = np.concatenate([ys.mean(0), np.sqrt(ys.var(0) + 1e-4)])
            expected = features @ readout["kernel"] + readout["bias"]
            np.testing.assert_allclose(logits[member, row], expected, rtol=1e-4, atol=1e-5)
    predictions, values = classify.evaluate(model, params, data.test)
    expected = np.mean(jax.nn.softmax(logits), 0)
    np.testing.assert_allclose(predictions.probabilities, expected, rtol=1e-4)
    true = expected[np.arange(12), data.test.labels]
    assert values["loss"] == pytest.approx(-np.log(true).mean(), rel=1e-4)
    assert values["accuracy"] == (expected.argmax(-1) == data.test.labels).mean()


@pytest.mark.parametrize("name", ["noise", "offset", "dropout"])
def test_noise_and_dropout_are_drawn_for_each_member_in_training(folder, name):
    config = small(folder, **({"noise": 0.0, "offset": 0.0, "dropout": 0.0} | {name: 0.5}))
    data = classify.load(config)
    model = classify.make_model(config, data)
    params = model.init(jax.random.key(0), 3)
    same = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 2), params)
    task = classify.make_task(config, model, data.train)
    xs, lengths, _ = task.batch(0)
    logits = jax.jit(model.apply)(same, xs, lengths, key=jax.random.key(1))
    assert not np.allclose(logits[0], logits[1])


@pytest.mark.parametrize(("noise", "offset"), [(0.5, 0.0), (0.0, 0.2)])
def test_noise_differs_between_steps_and_an_offset_does_not(noise, offset):
    xs = jax.random.normal(jax.random.key(0), (50, 40, 6))
    added = np.asarray(classify.add_noise(jax.random.key(1), xs, noise, offset) - xs)
    if offset:
        np.testing.assert_allclose(added, np.broadcast_to(added[:1], added.shape), atol=1e-5)
        added = added[0]
    assert added.std() == pytest.approx(noise + offset, rel=0.1)
    assert len(np.unique(added.round(6))) > 0.9 * added.size


def test_a_sequence_of_one_step_has_a_finite_gradient():
    ys, lengths = jnp.ones((3, 1, 2)).at[1:].set(0), jnp.array([1])
    gradient = jax.jit(jax.grad(lambda ys: classify.pool_statistics(ys, lengths).sum()))(ys)
    np.testing.assert_allclose(gradient[0], 1)  # that of the mean alone


def test_channels_are_standardized_by_the_training_part_alone(folder):
    data = classify.load(small(folder))
    raw = np.concatenate(sequences(24, 0).sequences)
    test = np.concatenate(sequences(12, 1).sequences)
    scale = raw.std(0) + 1e-6
    np.testing.assert_allclose(
        np.concatenate(data.test.sequences)[:, :2],
        ((test - raw.mean(0)) / scale)[:, :2],
        rtol=1e-4,
        atol=1e-4,
    )
    assert np.abs(np.concatenate(data.train.sequences)[:, 2]).max() < 1e-3  # constant: no blow-up


def test_folds_are_even_over_the_classes_and_never_see_the_test(folder):
    config = small(folder, folds=4)
    data = classify.load(config)
    held_out = []
    for fold in range(4):
        train, rest = classify.split(config, data, fold)
        assert np.bincount(rest.labels).tolist() == [2, 2, 2]
        assert np.bincount(train.labels).tolist() == [6, 6, 6]
        held_out += [x.tobytes() for x in rest.sequences]
        assert not {x.tobytes() for x in train.sequences} & {x.tobytes() for x in rest.sequences}
    assert sorted(held_out) == sorted(x.tobytes() for x in data.train.sequences)
    assert classify.split(small(folder), data, 0) == (data.train, data.test)


def test_every_epoch_shows_every_sequence_once(folder):
    config = small(folder)
    data = classify.load(config)
    task = classify.make_task(config, classify.make_model(config, data), data.train)
    labels = np.concatenate([task.batch(step)[2] for step in range(3, 6)])
    assert np.bincount(labels).tolist() == [8, 8, 8]
    lasts = [x[-1] for x in task.batch(4)[0].swapaxes(0, 1)]
    assert len(lasts) == 8
    np.testing.assert_array_equal(task.batch(4)[0], task.batch(4)[0])


def test_a_run_learns_reports_and_is_found_again(folder):
    training = dict(steps=60, learning_rate=0.02, validate_every=30, checkpoint_every=30)
    config = small(folder, hidden=8, noise=0.1, dropout=0.1, training=training)
    result = classify.main(config)
    assert [metrics["seed"] for metrics in result.metrics] == [0, 1]
    assert min(metrics["accuracy"] for metrics in result.metrics) >= 11 / 12
    accuracies = tuple(metrics["accuracy"] for metrics in result.metrics)
    assert read_results(folder / "run")["accuracy"].values == accuracies
    assert (folder / "run" / "confusion.png").stat().st_size > 10_000
    again = classify.main(config)
    assert again.outcome.compile_seconds == 0
    assert [s["loss"] for s in again.metrics] == [s["loss"] for s in result.metrics]
    with pytest.raises(UserError, match="holds a run with hidden=8, and this one has 9"):
        classify.main(dataclasses.replace(config, hidden=9))


@pytest.mark.thorough
def test_two_steps_of_cross_validation(folder):
    result = classify.main(small(folder, folds=2, seeds=1, members=1))
    assert len(result.metrics) == 2 and result.outcome.step == 2
    accuracies = [metrics["accuracy"] for metrics in result.metrics]
    found = read_results(folder / "run")["accuracy"]
    assert found.values == pytest.approx([np.mean(accuracies)])  # of the folds of the one seed


# Report -------------------------------------------------------------------------------------------


def test_confusion_matrix_margins_and_accuracy():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]])
    runs = [
        Predictions(probabilities, np.array([0, 2, 2])),
        Predictions(probabilities[:2], np.array([0, 1])),
    ]
    assert confusion(runs).tolist() == [[2, 0, 0], [0, 1, 0], [0, 1, 1]]
    np.testing.assert_allclose(runs[0].margins, [0.5, -0.1, 0.1])
    summary = summarize(runs, "test")
    assert summary.startswith("test: accuracy 83.33%, the mean of 2 runs (66.67% to 100.00%")
    assert summary.endswith("1 of 5 predictions wrong")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "own"], "path must be a folder if data is own"),
        (["--folds", "1"], "folds must be 0, or 2 or more, got 1"),
        (["--dropout", "1"], "dropout must be in [0, 1), got 1.0"),
        (["--noise", "-1"], "noise must be 0 or more, got -1.0"),
        (["--offset", "-1"], "offset must be 0 or more, got -1.0"),
        (["--members", "0"], "members must be at least 1, got 0"),
    ],
)
def test_invalid_arguments_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit):
        tyro.cli(classify.Config, args=arguments, config=(tyro.conf.OmitArgPrefixes,))
    assert message in " ".join("".join(capsys.readouterr()).replace("│", " ").split())


def test_more_folds_than_sequences_are_an_error(folder):
    with pytest.raises(UserError, match="folds must be at most 24, the training sequences"):
        classify.load(small(folder, folds=25))


def test_the_classes_of_the_data_are_the_outputs():
    data = Data(sequences(6, 0), sequences(3, 1), CLASSES)
    assert classify.make_model(small(seeds=1, data="mnist-rows"), data).model.classes == 3
