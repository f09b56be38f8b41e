"""The autoencoder of weeks: windows, baselines, metrics, the model, and a run."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.autoencode import data
from experiments.autoencode import train as autoencode
from experiments.autoencode.report import evaluate, format_table, marked_days
from experiments.common.data.series import load_csv
from experiments.common.errors import UserError
from experiments.common.metrics import Log
from experiments.common.options import Options
from tests.support import small_series
from tests.support.results import read_results
from tests.support.rounding import rounding_error, with_noise


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_series.write(tmp_path_factory.mktemp("series") / "own.csv", days=168)


@pytest.fixture(scope="module")
def series(path):
    return load_csv(path)


@pytest.fixture(scope="module")
def weeks(series):
    return data.make_weeks(series, 140)


def small(path, **changes):
    training = dict(steps=6, warmup=1, validate_every=3, checkpoint_every=3, log_every=2)
    training |= changes.pop("training", {})
    defaults = dict(data=path, hidden=6, code=3, batch=4, test=140)
    return autoencode.Config(**(defaults | changes), training=Options(**training))


# Weeks --------------------------------------------------------------------------------------------


def test_a_week_begins_at_every_midnight_and_the_parts_share_no_step(series, weeks):
    assert weeks.values.shape == (28, 162)
    np.testing.assert_array_equal(weeks.steps[:, 5], 20 + np.arange(28))
    known = series.values[:-140]
    expected = (series.values[weeks.steps] - known.mean()) / known.std()
    np.testing.assert_allclose(weeks.values, expected, rtol=1e-5)
    steps = {
        name: set(weeks.steps[:, part].ravel())
        for name, part in (("valid", weeks.valid), ("train", weeks.train), ("test", weeks.test))
    }
    assert not steps["valid"] & steps["train"] and not steps["valid"] & steps["test"]
    assert not steps["train"] & steps["test"] and min(steps["test"]) == len(series.values) - 140
    assert weeks.valid.sum() == 2 and weeks.train.sum() > 80


def test_weeks_begin_at_local_midnight_across_changes_of_the_clock(series):
    """A day of three steps, as in spring: all later weeks still begin at midnight."""
    kept = np.arange(len(series.values)) != 101
    names = ("times", "values", "past_covariates", "future_covariates")
    moved = series._replace(**{name: getattr(series, name)[kept] for name in names})
    begins = moved.times[data.make_weeks(moved, 140).steps[0]]
    assert (begins == begins.astype("datetime64[D]")).all()
    assert len(np.unique(begins)) == len(begins) >= 160


def test_in_bfloat16_sums_over_time_and_rows_are_in_32_bits(path, weeks):
    config = small(path, batch=32)
    model = autoencode.make_model(config)
    params = with_noise(model.init(jax.random.key(0), weeks.calendar.shape[-1]))
    assert rounding_error(autoencode.make_task(config, weeks, model), params) < 0.01


def test_too_little_data_is_an_error(series):
    with pytest.raises(UserError, match="672 steps, 400 .* too few: expected at least 448 before"):
        data.make_weeks(series, 400)


# Baselines and metrics ----------------------------------------------------------------------------


def test_baselines_are_the_mean_and_principal_components_of_aligned_weeks(weeks):
    """All components reconstruct everything; few leave the least error that is possible."""
    np.testing.assert_allclose(data.reconstruct_pca(weeks, 28), weeks.values, atol=1e-4)
    aligned = np.stack(
        [np.roll(week, phase) for week, phase in zip(weeks.values.T, weeks.phase, strict=True)], -1
    )
    mean = aligned[:, weeks.train].mean(1, keepdims=True)
    left = np.linalg.svd(aligned[:, weeks.train] - mean, compute_uv=False)[3:]
    squares = (data.reconstruct_pca(weeks, 3) - weeks.values)[:, weeks.train] ** 2
    assert squares.sum() == pytest.approx((left**2).sum(), rel=1e-3)
    squares = (data.mean_week(weeks) - weeks.values)[:, weeks.test] ** 2
    expected = ((aligned - mean) ** 2)[:, weeks.test].mean()
    assert squares.mean() == pytest.approx(expected, rel=1e-4)


def test_errors_by_day_are_means_over_all_weeks_with_that_day(series, weeks):
    squares = np.random.default_rng(2).random(weeks.values.shape)
    errors = data.errors_by_day(weeks, squares, series)
    for day in (0, 3, 80, 167):
        assert errors[day] == pytest.approx(squares[weeks.steps // 4 == day].mean())


def test_the_auc_counts_ordered_pairs_of_days(series, weeks):
    values = weeks.values + np.random.default_rng(0).normal(size=weeks.values.shape)
    errors = data.errors_by_day(weeks, (values - weeks.values) ** 2, series)
    marked = marked_days(series)
    pairs = errors[marked][:, None] > errors[~marked]
    assert evaluate(series, weeks, values).auc == pytest.approx(pairs.mean())


def test_metrics_of_a_method_that_fails_on_marked_days(series, weeks):
    values, marked = weeks.values.copy(), marked_days(series)
    assert marked.sum() == (series.future_covariates[::4, 0] > 0).sum() > 5
    values[marked[weeks.steps // 4]] += 2.0
    values[weeks.steps // 4 == 10] += 0.5
    metrics = evaluate(series, weeks, values)
    assert metrics.auc == metrics.test_auc == 1.0
    share = marked[weeks.steps // 4][:, weeks.test].mean()
    assert metrics.test == pytest.approx(4 * share, rel=1e-4)
    first = np.datetime64("2021-01-04")
    assert all(marked[(np.datetime64(day) - first).astype(int)] for day in metrics.anomalies[:5])
    assert f"{metrics.anomalies[0]}*" in format_table(series, {"a method": [metrics]})
    bare = series._replace(future_covariates=np.zeros((len(series.values), 0)))
    unmarked = evaluate(bare, weeks, values)
    assert unmarked.auc is None
    assert format_table(bare, {"a method": [unmarked]}).splitlines()[3].split()[-2:] == ["-", "-"]


# The network --------------------------------------------------------------------------------------


def test_only_the_code_and_the_calendar_reach_the_decoder(path, weeks):
    model = autoencode.make_model(small(path))
    params = model.init(jax.random.key(0), weeks.calendar.shape[-1])
    values, calendar = weeks.values[:, :4], weeks.calendar[:, :4]
    other = values + np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
    codes, reconstructed = autoencode.reconstruct(model, params, values, calendar)
    assert codes.shape == (4, 3)
    assert not np.allclose(autoencode.reconstruct(model, params, other, calendar)[0], codes)
    decode = jax.jit(model.decode)
    np.testing.assert_allclose(decode(params, codes, calendar), reconstructed, rtol=1e-4, atol=1e-5)
    assert not np.allclose(decode(params, codes + 1, calendar), reconstructed)


def test_batches_are_of_the_training_weeks(path, weeks):
    task = autoencode.make_task(small(path), weeks, autoencode.make_model(small(path)))
    allowed = weeks.values[:, weeks.train].T
    for step in range(5):
        for week in task.batch(step)["values"].T:
            assert (allowed == week).all(1).any()


# End to end ---------------------------------------------------------------------------------------


def test_a_run_learns_reports_and_is_found_again(path, tmp_path):
    training = dict(steps=30, learning_rate=0.01, validate_every=10, out=tmp_path)
    config = small(path, seeds=2, training=training)
    result = autoencode.main(config)
    first = Log(tmp_path / "metrics.jsonl").read()[0]["validation_loss"]
    assert result.outcome.best["loss"] < 0.95 * first
    network = result.metrics["network (gru)"]
    assert len(network) == 2 and network[0] != network[1]
    assert 0 <= network[0].auc <= 1
    shown = (tmp_path / "test_metrics.txt").read_text()
    assert "3 principal components" in shown and "±" in shown and "anomalous days" in shown
    written = read_results(tmp_path)
    assert written["test"].values == tuple(metrics.test for metrics in network)
    (mean,) = result.metrics["mean week"]
    assert written["mean week/auc"].mean == mean.auc
    assert (tmp_path / "weeks.png").stat().st_size > 20_000
    again = autoencode.main(config)
    assert again.outcome.compile_seconds == 0 and again.metrics == result.metrics
    with pytest.raises(UserError, match="holds a run with code=3, and this one has 4"):
        autoencode.main(dataclasses.replace(config, code=4))


def test_invalid_options_are_named(path):
    with pytest.raises(ValueError, match="code must be at least 1, got 0"):
        small(path, code=0)
