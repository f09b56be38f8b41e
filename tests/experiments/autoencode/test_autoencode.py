"""The autoencoder of weeks: cuts, judges of odd days, and the whole, against their definitions."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.autoencode import data as _weeks
from experiments.autoencode import train as autoencode
from experiments.autoencode.report import holidays, measure
from experiments.common.data import fetch as _fetch
from experiments.common.data import series as _series
from experiments.common.errors import UserError
from experiments.common.options import Options
from tests.support import small_series


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_series.write(tmp_path_factory.mktemp("series") / "own.csv", days=168)


@pytest.fixture(scope="module")
def series(path):
    return _series.load_csv(path)


@pytest.fixture(scope="module")
def weeks(series):
    return _weeks.cut(series, 140)


def small(path, **changes):
    training = dict(steps=6, warmup=1, validate_every=3, checkpoint_every=3, log_every=2)
    training |= changes.pop("training", {})
    defaults = dict(data=path, hidden=6, code=3, batch=4, test=140)
    return autoencode.Config(**(defaults | changes), training=Options(**training))


# Cutting ------------------------------------------------------------------------------------------


def test_a_week_begins_at_every_midnight_and_no_step_is_shared(series, weeks):
    assert weeks.values.shape == (28, 162)
    np.testing.assert_array_equal(weeks.where[:, 5], 20 + np.arange(28))
    known = series.values[:-140]
    expected = (series.values[weeks.where] - known.mean()) / known.std()
    np.testing.assert_allclose(weeks.values, expected, rtol=1e-5)
    steps = {
        name: set(weeks.where[:, part].ravel())
        for name, part in (("valid", weeks.valid), ("train", weeks.train), ("test", weeks.test))
    }
    assert not steps["valid"] & steps["train"] and not steps["valid"] & steps["test"]
    assert not steps["train"] & steps["test"] and min(steps["test"]) == len(series.values) - 140
    assert weeks.valid.sum() == 2 and weeks.train.sum() > 80


def test_weeks_begin_with_the_local_day_though_clocks_change(series):
    """A day of three steps, as in spring: all later weeks still begin at midnight."""
    kept = np.arange(len(series.values)) != 101
    names = ("times", "values", "past_covariates", "future_covariates")
    moved = series._replace(**{name: getattr(series, name)[kept] for name in names})
    cut = _weeks.cut(moved, 140)
    begins = moved.times[cut.where[0]]
    assert (begins == begins.astype("datetime64[D]")).all()
    assert len(np.unique(begins)) == len(begins) >= 160


def test_too_little_is_named(series):
    with pytest.raises(UserError, match="672 steps, 400 of them for the test, are too few: 448"):
        _weeks.cut(series, 400)


# Judging ------------------------------------------------------------------------------------------


def test_the_rank_statistic_counts_pairs():
    random = np.random.default_rng(0)
    values, odd = random.integers(0, 6, 40).astype(float), random.random(40) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in values[odd] for b in values[~odd]]
    assert _weeks.rank_statistic(values, odd) == pytest.approx(np.mean(pairs))


def test_principal_components_give_back_what_they_span(weeks):
    """All of them give everything back; few give back the best that so few can, by SVD."""
    np.testing.assert_allclose(_weeks.principal(weeks, 28), weeks.values, atol=1e-4)
    begins_on = weeks.phase // 4
    turned = np.stack(
        [np.roll(week, 4 * day) for week, day in zip(weeks.values.T, begins_on, strict=True)], -1
    )
    mean = turned[:, weeks.train].mean(1, keepdims=True)
    left = np.linalg.svd(turned[:, weeks.train] - mean, compute_uv=False)[3:]
    squares = (_weeks.principal(weeks, 3) - weeks.values)[:, weeks.train] ** 2
    assert squares.sum() == pytest.approx((left**2).sum(), rel=1e-3)
    spread = ((turned - mean) ** 2)[:, weeks.test].mean()
    assert ((_weeks.average(weeks) - weeks.values) ** 2)[:, weeks.test].mean() == pytest.approx(
        spread, rel=1e-4
    )


def test_errors_by_day_are_means_over_all_weeks_with_that_day(series, weeks):
    squares = np.random.default_rng(2).random(weeks.values.shape)
    got = _weeks.errors_by_day(weeks, squares, series)
    for day in (0, 3, 80, 167):
        assert got[day] == pytest.approx(squares[weeks.where // 4 == day].mean())


def test_what_is_measured(series, weeks):
    values = weeks.values.copy()
    odd = holidays(series)
    assert odd.sum() == (series.future_covariates[::4, 0] > 0).sum() > 5
    values[odd[weeks.where // 4]] += 2.0  # fails on days off, and a little on the tenth
    values[weeks.where // 4 == 10] += 0.5
    got = measure(series, weeks, values)
    assert got.holidays == got.held_out_holidays == 1.0
    share = odd[weeks.where // 4][:, weeks.test].mean()
    assert got.test == pytest.approx(4 * share, rel=1e-4)
    first = np.datetime64("2021-01-04")
    assert all(odd[(np.datetime64(day) - first).astype(int)] for day in got.oddest[:5])
    bare = series._replace(future_covariates=np.zeros((len(series.values), 0)))
    assert measure(bare, weeks, values).holidays is None


# The network --------------------------------------------------------------------------------------


def test_only_the_code_and_the_calendar_reach_the_decoder(path, weeks):
    model = autoencode.make_model(small(path))
    params = model.init(jax.random.key(0), weeks.calendar.shape[-1])
    values, calendar = weeks.values[:, :4], weeks.calendar[:, :4]
    codes, back = autoencode.reconstruct(model, params, values, calendar)
    assert codes.shape == (4, 3)
    other = values + np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
    assert not np.allclose(model.encode(params, other, calendar), codes)
    np.testing.assert_allclose(model.decode(params, codes, calendar), back, rtol=1e-5, atol=1e-6)
    assert not np.allclose(model.decode(params, codes + 1, calendar), back)


def test_batches_are_of_the_training_weeks(path, weeks):
    task = autoencode.make_task(small(path), weeks, autoencode.make_model(small(path)))
    allowed = weeks.values[:, weeks.train].T
    for step in range(5):
        for week in task.batch(step)["values"].T:
            assert (allowed == week).all(1).any()


# The whole ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended")
    config = small(path, seeds=2, training=dict(out=folder))
    return config, autoencode.main(config)


def test_it_runs_reports_draws_and_is_found_again(ended):
    config, result = ended
    folder = config.training.out
    network = result.figures["network (gru)"]
    assert len(network) == 2 and network[0] != network[1]
    assert 0 <= network[0].holidays <= 1
    shown = (folder / "scores.txt").read_text()
    assert "3 principal components" in shown and "±" in shown and "oddest days" in shown
    assert (folder / "weeks.png").stat().st_size > 20_000
    again = autoencode.main(config)
    assert again.outcome.compile_seconds == 0 and again.figures == result.figures


def test_stopped_and_resumed_it_is_the_same(ended, path, tmp_path):
    config, result = ended
    stopped = dataclasses.replace(config.training, out=tmp_path, minutes=1e-9)
    assert autoencode.main(dataclasses.replace(config, training=stopped)).outcome.step == 1
    resumed = dataclasses.replace(stopped, minutes=None)
    assert autoencode.main(dataclasses.replace(config, training=resumed)).figures == result.figures


def test_it_learns(path, tmp_path):
    training = dict(steps=120, learning_rate=0.01, validate_every=40, out=tmp_path)
    outcome = autoencode.main(small(path, hidden=16, batch=16, training=training)).outcome
    assert outcome.best["loss"] < 0.5


def test_two_steps_on_the_real_weeks_where_they_are_cached(tmp_path):
    if not (_fetch.cache_folder() / _series.ELECTRICITY.filename).is_file():
        pytest.skip("the series is not in the cache folder")
    config = small(None, test=17520, training=dict(steps=2, out=tmp_path))
    figures = autoencode.main(config).figures
    assert figures["mean week"][0].holidays == pytest.approx(0.956, abs=2e-3)


def test_bad_options_are_named(path):
    with pytest.raises(ValueError, match="code must be at least 1, got 0"):
        small(path, code=0)
