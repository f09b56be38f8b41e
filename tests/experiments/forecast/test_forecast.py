"""Forecasting: features without leaks, and models, losses and metrics against definitions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.common.data import fetch as _fetch
from experiments.common.data import series as _series
from experiments.common.errors import UserError
from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.forecast import features
from experiments.forecast import train as forecast
from experiments.forecast.conformal import calibrate
from experiments.forecast.linear import PENALTIES
from experiments.forecast.model import LEVELS, MEDIAN, Forecast, losses
from experiments.forecast.report import evaluate, format_tables, plot_forecast
from tests.support import small_series
from tests.support.results import read_results
from tests.support.rounding import with_noise

HORIZON = 6


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_series.write(tmp_path_factory.mktemp("series") / "own.csv")


@pytest.fixture(scope="module")
def series(path):
    return _series.load_csv(path)


def small(path, **changes):
    training = dict(steps=6, warmup=1, validate_every=3, checkpoint_every=3, log_every=2)
    training |= changes.pop("training", {})
    defaults = dict(data=path, hidden=6, layers=1, horizon=HORIZON, batch=3, time=8, lead=3)
    defaults |= dict(test=50, valid=40, dropout=0.0, members=2)
    return forecast.Config(**(defaults | changes), training=Options(**training))


@pytest.fixture(scope="module")
def loaded(path):
    return forecast.load(small(path))


# Features -----------------------------------------------------------------------------------------

SPLIT = features.Split(150, 230)


@pytest.mark.parametrize("future", [False, True])
def test_features_do_not_depend_on_later_steps(series, future):
    """Only the future of the covariates changes the features, and only on request."""
    origin = 200
    values, past = series.values.copy(), series.past_covariates.copy()
    values[origin + 1 :] += 1000
    past[origin + 1 :] += 1000
    changed = series._replace(values=values, past_covariates=past)
    before, after = (
        features.make_table(each, HORIZON, SPLIT, future=future) for each in (series, changed)
    )
    assert np.array_equal(before.xs[: origin + 1], after.xs[: origin + 1]) is not future
    np.testing.assert_array_equal(before.base[: origin + 1], after.base[: origin + 1])
    np.testing.assert_array_equal(before.scale, after.scale)
    assert not np.array_equal(before.xs[origin + 1], after.xs[origin + 1])
    changed = series._replace(values=values)
    values_only = features.make_table(changed, HORIZON, SPLIT, future=future)
    np.testing.assert_array_equal(before.xs[: origin + 1], values_only.xs[: origin + 1])


def test_every_lag_is_a_feature(series):
    """Each value of the last day and of the steps ahead a week before changes the features."""
    origin = 200
    plain = features.make_table(series, HORIZON, SPLIT)
    short, long = series.seasons
    for lag in [*range(short + 1), *range(long - HORIZON, long + 1)]:
        values = series.values.copy()
        values[origin - lag] += 5
        moved = features.make_table(series._replace(values=values), HORIZON, SPLIT)
        assert not np.array_equal(plain.xs[origin], moved.xs[origin]), lag


def test_targets_and_base_follow_their_definitions(series):
    table = features.make_table(series, HORIZON, SPLIT)
    y, long = series.values, series.seasons[1]
    for origin, step in ((100, 1), (170, 4), (233, HORIZON)):
        assert table.actual[origin, step - 1] == y[origin + step]
        expected = y[origin] + y[origin + step - long] - y[origin - long]
        assert table.base[origin, step - 1] == pytest.approx(expected)
    assert np.isnan(table.actual[-1]).all() and np.isnan(table.actual[-2, 1:]).all()
    restored = table.base + table.targets * table.scale
    np.testing.assert_allclose(restored[50:150], table.actual[50:150], rtol=1e-6)
    errors = (table.actual - table.base)[table.first : SPLIT.valid - HORIZON]
    np.testing.assert_allclose(table.scale, errors.std(0))


def test_seasonal_naive_forecasts_repeat_whole_seasons(series):
    y = series.values
    forecasts = features.naive_forecasts(series, HORIZON)
    for origin in (60, 200):
        for step in range(1, HORIZON + 1):
            expected = (
                y[origin],
                y[origin + step - 4] if step <= 4 else y[origin + step - 8],
                y[origin + step - 28],
            )
            assert tuple(f[origin, step - 1] for f in forecasts.values()) == expected


def test_too_little_data_is_an_error(series):
    with pytest.raises(UserError, match="280 steps leave 30 for training .* at least 112"):
        features.make_split(series, 200, 50)
    with pytest.raises(UserError, match="horizon must be from 1 to 28, got 29"):
        features.make_table(series, 29, SPLIT)
    with pytest.raises(UserError, match="horizon must be from 1 to 19, got 20"):
        features.make_table(series, 20, features.Split(200, 220))


# The linear model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, HORIZON])
def test_the_linear_model_is_ridge_regression_tuned_on_the_validation_part(path, horizon):
    config = small(path, base="naive", horizon=horizon)
    series, table, linear = forecast.load(config)
    begin = features.make_split(series, config.test, config.valid)
    train = np.arange(table.first, begin.valid - horizon)
    valid = np.arange(begin.valid, begin.test - horizon)
    xs = np.asarray(table.xs, np.float64)
    unit = xs[table.first : begin.valid].std(0)
    xs = (xs - xs[table.first : begin.valid].mean(0)) / np.where(unit > 0, unit, 1)
    xs = np.concatenate([np.ones((len(xs), 1)), xs], -1)
    targets = (table.actual - table.base) / table.scale

    def ridge(rows, step, penalty):
        penalties = penalty * np.eye(xs.shape[1])
        penalties[0] = 0  # the intercept
        normal = xs[rows].T @ xs[rows] + penalties
        return np.linalg.solve(normal, xs[rows].T @ targets[rows, step])

    for step in (0, horizon - 1):
        errors = [
            ((xs[valid] @ ridge(train, step, penalty) - targets[valid, step]) ** 2).mean()
            for penalty in PENALTIES
        ]
        penalty = PENALTIES[int(np.argmin(errors))]
        assert linear.penalty[step] == penalty
        weights = ridge(np.arange(table.first, begin.test - horizon), step, penalty)
        expected = table.base[:, step] + xs @ weights * table.scale[step]
        np.testing.assert_allclose(linear.point[60:, step], expected[60:], rtol=1e-6)
        trained = table.base[:, step] + xs @ ridge(train, step, penalty) * table.scale[step]
        np.testing.assert_allclose(linear.trained[60:, step], trained[60:], rtol=1e-6)
        errors = np.quantile(table.actual[valid, step] - trained[valid], LEVELS)
        np.testing.assert_allclose(
            linear.quantiles[60:, step] - linear.point[60:, step, None],
            np.tile(errors, (220, 1)),
            rtol=1e-5,
        )


def test_the_network_corrects_the_base_of_its_choice(loaded, path):
    series, table, linear = loaded
    np.testing.assert_array_equal(table.base, linear.trained)
    _, naive, _ = forecast.load(small(path, base="naive"))
    expected = features.make_table(series, HORIZON, table.split)
    np.testing.assert_array_equal(naive.base, expected.base)
    np.testing.assert_array_equal(naive.scale, expected.scale)


# Losses and metrics -------------------------------------------------------------------------------


def test_losses_are_squared_errors_and_pinball_losses():
    random = np.random.default_rng(0)
    predicted, targets = random.normal(size=(3, 2, 1 + len(LEVELS))), random.normal(size=(3, 2))
    targets[0, 1] = np.nan
    expected = np.zeros((3, 2))
    for where in np.ndindex(3, 2):
        y = targets[where]
        if np.isfinite(y):
            expected[where] = 0.5 * (y - predicted[where][0]) ** 2
            for level, q in zip(LEVELS, predicted[where][1:], strict=True):
                expected[where] += level * (y - q) if y > q else (1 - level) * (q - y)

    @jax.jit
    def value_and_gradient(predicted):
        value, pullback = jax.vjp(lambda p: losses(p, jnp.asarray(targets)), predicted)
        return value, pullback(jnp.ones_like(value))[0]

    value, gradient = value_and_gradient(jnp.asarray(predicted))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all() and not gradient[0, 1].any() and gradient[0, 0].all()


def test_metrics_follow_their_definitions(series):
    split = features.Split(190, 230)
    random = np.random.default_rng(3)
    point = random.normal(100, 5, size=(280, HORIZON))
    quantiles = point[..., None] + np.sort(random.normal(0, 9, size=(280, HORIZON, 5)), -1)
    metrics = evaluate(series, split, Forecast(point, quantiles))
    for step in (1, HORIZON):
        squares, inside, shares, pinballs = [], [], [], []
        for target in range(230, 280):
            y, origin = series.values[target], target - step
            squares.append((point[origin, step - 1] - y) ** 2)
            shares.append(abs(quantiles[origin, step - 1, 2] - y) / y)
            low, high = quantiles[origin, step - 1, [1, 3]]
            inside.append(low <= y <= high)
            for level, q in zip(LEVELS, quantiles[origin, step - 1], strict=True):
                pinballs.append(level * (y - q) if y > q else (1 - level) * (q - y))
        found = {name: values[step - 1] for name, values in metrics.items()}
        assert found["rmse"] == pytest.approx(np.sqrt(np.mean(squares)))
        assert found["nmse"] == pytest.approx(np.mean(squares) / series.values.var())
        assert found["mape"] == pytest.approx(100 * np.mean(shares))
        assert found["80 %"] == np.mean(inside)
        assert found["pinball"] == pytest.approx(np.mean(pinballs))
    negative = series._replace(values=series.values - 100)
    assert "mape" not in evaluate(negative, split, Forecast(point))


def test_tables_average_squared_errors_over_steps_and_metrics_over_seeds(series):
    seeds = [{"rmse": np.array([3.0, 1.0]), "80 %": np.array([0.75, 0.25])}] * 2
    lines = format_tables(series, 2, {"a method": seeds}).splitlines()
    assert lines[2].split()[:3] == ["1", "ahead", "RMSE"] and "in 80 %" in lines[2]
    assert lines[3].split() == ["a", "method", "3", "±0", "-", "-", "-", "0.75", "±0", "-"]
    assert lines[-1].split()[2] == "2.236" and lines[-1].split()[-3:] == ["0.5", "±0", "-"]


# The network --------------------------------------------------------------------------------------


def test_members_predict_quantiles_that_never_cross(path):
    model = forecast.make_model(small(path, layers=2))
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + random.normal(size=leaf.shape), jnp.float32),
        model.init(jax.random.key(0), 5),
    )
    xs = jnp.asarray(random.normal(size=(9, 3, 5)), jnp.float32)
    predicted = jax.jit(lambda params: model.apply(params, xs, slice(None)))(params)
    assert predicted.shape == (2, 9, 3, HORIZON, 1 + len(LEVELS))
    assert (np.diff(predicted[..., 1:], axis=-1) > 0).all()
    assert not np.allclose(predicted[..., 0], predicted[..., 1 + MEDIAN])
    second = jax.tree.map(lambda leaf: leaf[1], params)
    alone = jax.jit(lambda params: model.model.apply(params, xs, slice(2, None, 3)))(second)
    np.testing.assert_allclose(alone, predicted[1, 2::3], rtol=1e-5, atol=1e-5)
    assert not np.allclose(predicted[0], predicted[1])


def test_a_key_turns_on_dropout(path):
    model = forecast.make_model(small(path, dropout=0.5)).model
    params = with_noise(model.init(jax.random.key(0), 5))
    xs = jax.random.normal(jax.random.key(1), (9, 3, 5))
    apply = jax.jit(lambda key: model.apply(params, xs, slice(None), key))
    one, other, without = apply(jax.random.key(2)), apply(jax.random.key(3)), apply(None)
    assert not np.allclose(one, other) and not np.allclose(one, without)


def test_an_untrained_network_forecasts_the_linear_model(path, loaded):
    _, table, linear = loaded
    config = small(path)
    model = forecast.make_model(config)
    params = model.init(jax.random.key(1), table.xs.shape[1])
    predicted = forecast.predict(config, table, model, params)
    rows = slice(table.split.valid, -1)
    np.testing.assert_allclose(predicted.point[rows], linear.trained[rows], rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class CountingModel:
    """Two members that predict from two features: of the window's first step, and of each step."""

    def apply(self, params, xs, at):
        value = xs[at][..., 0] / 100 + xs[:1, :, 0] / 10_000
        one = value[..., None, None] + jnp.arange(1.0 + len(LEVELS)) + jnp.zeros((HORIZON, 1))
        return jnp.stack([one - 1, one + 1])


def test_every_origin_is_forecast_once_with_its_lead(path, loaded):
    series, table, _ = loaded
    config = small(path)
    steps = np.arange(len(table.xs), dtype=np.float32)
    marked = dataclasses.replace(table, xs=steps[:, None])
    predicted = forecast.predict(config, marked, CountingModel(), ())
    begin = table.split.valid
    origins = np.arange(begin, len(series.values) - 1)
    first = begin + (origins - begin) // config.time * config.time
    expected = (
        table.base[origins]
        + table.scale * (origins / 100 + (first - config.lead) / 10_000)[:, None]
    )
    np.testing.assert_allclose(predicted.point[origins], expected, rtol=1e-5)
    assert np.isnan(predicted.point[:begin]).all() and np.isnan(predicted.point[-1]).all()
    # The intervals are calibrated on the validation part.
    below = (table.actual[..., None] <= predicted.quantiles)[begin : table.split.test - HORIZON]
    np.testing.assert_allclose(below[..., 0].mean(0), LEVELS[0], atol=1 / len(below))


def test_calibrated_quantiles_have_their_nominal_coverage():
    random = np.random.default_rng(6)
    median = random.normal(100, 10, size=(600, 2, 1))
    width = random.uniform(0.5, 3, size=(600, 2, 1))
    quantiles = median + width * np.array([-1.5, -1.0, 0.0, 0.7, 2.0])
    actual = median[..., 0] + width[..., 0] * random.standard_t(4, size=(600, 2))
    origins = slice(100, 500)
    calibrated = calibrate(Forecast(median[..., 0], quantiles), actual, origins).quantiles
    below = (actual[origins, :, None] <= calibrated[origins]).mean(0)
    nominal = np.delete(np.array(LEVELS), MEDIAN)
    np.testing.assert_allclose(np.delete(below, MEDIAN, -1), np.tile(nominal, (2, 1)), atol=1 / 400)
    np.testing.assert_array_equal(calibrated[..., MEDIAN], median[..., 0])
    # All distances from the median are rescaled by one factor for each quantile and step ahead.
    factor = np.delete((calibrated - median) / (quantiles - median + (quantiles == median)), 2, -1)
    np.testing.assert_allclose(factor, np.tile(factor[:1], (600, 1, 1)), rtol=1e-9)


def test_batches_stay_in_the_training_part_and_validation_in_its_own(path, loaded):
    _, table, _ = loaded
    config = small(path)
    steps = np.arange(len(table.xs), dtype=np.float32)[:, None]
    marked = dataclasses.replace(
        table, xs=steps, actual=np.tile(steps, HORIZON), base=0 * table.base, scale=np.ones(HORIZON)
    )
    task = forecast.make_task(config, marked, forecast.make_model(config))
    valid, test = table.split
    seen = np.concatenate([task.batch(step)["targets"].ravel() for step in range(60)])
    assert seen.min() == table.first and seen.max() < valid - HORIZON
    assert len(np.unique(seen)) > 0.9 * (valid - HORIZON - table.first)
    held = forecast.all_windows(marked, valid, test - HORIZON, config)["targets"][..., 0]
    np.testing.assert_array_equal(
        np.sort(held[np.isfinite(held)]), steps[valid : test - HORIZON, 0]
    )
    batch = task.batch(0)
    np.testing.assert_array_equal(batch["xs"][config.lead :, :, 0], batch["targets"][..., 0])
    before = np.maximum(batch["targets"][0, :, 0] - config.lead, table.first)
    np.testing.assert_array_equal(batch["xs"][0, :, 0], before)


# End to end ---------------------------------------------------------------------------------------


def test_a_run_learns_reports_and_is_found_again(path, tmp_path):
    training = dict(steps=30, learning_rate=0.01, validate_every=10, out=tmp_path)
    config = small(path, seeds=2, training=training)
    result = forecast.main(config)
    first = Log(tmp_path / "metrics.jsonl").read()[0]["validation_loss"]
    assert result.outcome.step == 30 and result.outcome.best["loss"] < first
    network = result.metrics["network (gru)"]
    assert len(network) == 2 and network[0]["rmse"][0] != network[1]["rmse"][0]
    shown = (tmp_path / "test_metrics.txt").read_text()
    assert "linear autoregression" in shown and "±" in shown and f"{HORIZON} ahead" in shown
    written = read_results(tmp_path)
    assert written["rmse, 1 ahead"].values == tuple(metrics["rmse"][0] for metrics in network)
    last = f"pinball, {HORIZON} ahead"
    assert written[last].values == tuple(metrics["pinball"][-1] for metrics in network)
    naive = result.metrics["last value"][0]["rmse"]
    over_all = written[f"last value/rmse, 1 to {HORIZON} ahead"].mean
    assert over_all == pytest.approx(np.sqrt((naive**2).mean()))
    assert (tmp_path / "forecast.png").stat().st_size > 20_000
    again = forecast.main(config)
    assert again.outcome.compile_seconds == 0
    np.testing.assert_equal(again.metrics, result.metrics)


@pytest.mark.parametrize("horizon", [1, HORIZON])
def test_the_plot_shows_every_method(series, tmp_path, monkeypatch, horizon):
    """A curve of one point is invisible: a horizon of 1 needs bars."""
    split = features.make_split(series, test=50, valid=40)
    random = np.random.default_rng(0)

    def draw():
        point = series.values[:, None] + random.normal(size=(len(series.values), horizon))
        return Forecast(point, point[..., None] + np.linspace(-1, 1, len(LEVELS)))

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    forecasts = [draw() for _ in range(3)]
    metrics = [evaluate(series, split, each) for each in forecasts]
    methods = {"naive": metrics[2:], "network": metrics[:2]}
    plot_forecast(tmp_path / "x.png", series, split, forecasts[0], methods)
    ((_, errors, coverage),) = (figure.axes for figure in figures)
    bars = [patch.get_width() for patch in errors.patches]
    curves = [line.get_ydata() for line in errors.lines]
    assert len(bars if horizon == 1 else curves) == 2 and min(bars, default=1) > 0
    for line in coverage.lines[:4]:
        assert len(line.get_xdata()) > 1 or line.get_marker() == "o"
    names = errors.get_yticklabels() if horizon == 1 else errors.get_legend().texts
    assert [name.get_text() for name in names] == ["naive", "network"]


@pytest.mark.slow
def test_it_learns_what_the_linear_model_cannot(tmp_path):
    """The load depends on a product of calendar features, and on the squared temperature."""
    # 300 days: with the 70 of the other tests a network overfits from its first steps.
    longer = small_series.write(tmp_path / "longer.csv", days=300)
    training = dict(steps=150, learning_rate=0.01, validate_every=50, out=tmp_path, warmup=10)
    config = small(longer, hidden=16, batch=8, test=200, valid=200, training=training)
    outcome = forecast.main(config).outcome
    first = Log(tmp_path / "metrics.jsonl").read()[0]["validation_loss"]
    assert outcome.best["loss"] < 0.95 * first


@pytest.mark.thorough
def test_two_steps_on_sunspots_where_they_are_cached(tmp_path):
    if not (_fetch.cache_folder() / _series.SUNSPOTS.filename).is_file():
        pytest.skip("the series is not in the cache folder")
    sizes = dict(horizon=1, hidden=4, test=35, valid=40, time=24)
    config = small(None, series="sunspots", training=dict(steps=2, out=tmp_path), **sizes)
    metrics = forecast.main(config).metrics
    assert metrics["last value"][0]["nmse"][0] == pytest.approx(0.4158, abs=1e-3)
    assert np.isfinite(metrics["network (gru)"][0]["rmse"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"lead": -1}, "lead must be 0 or more, got -1"),
    ],
)
def test_invalid_options_are_named(path, change, message):
    with pytest.raises(ValueError, match=message):
        small(path, **change)
