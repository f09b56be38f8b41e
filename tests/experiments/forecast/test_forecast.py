"""Forecasts: what they may look at, the linear model and the losses against their definitions."""

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
from experiments.forecast import features as inputs
from experiments.forecast import train as forecast
from experiments.forecast.conformal import calibrate
from experiments.forecast.linear import PENALTIES, fit_linear
from experiments.forecast.model import losses
from experiments.forecast.report import LEVELS, Forecast, draw, scores
from tests.support import small_series

HORIZON = 6


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_series.write(tmp_path_factory.mktemp("series") / "own.csv")


@pytest.fixture(scope="module")
def series(path):
    return _series.own(path)


def small(path, **changes):
    training = dict(steps=6, warmup=1, validate_every=3, checkpoint_every=3, log_every=2)
    training |= changes.pop("training", {})
    defaults = dict(data=path, hidden=6, layers=1, horizon=HORIZON, batch=3, time=8, lead=3)
    defaults |= dict(test=50, valid=40, dropout=0.0, members=2)
    return forecast.Config(**(defaults | changes), training=Options(**training))


def parts(config):
    series = forecast.load_series(config)
    begin = inputs.split(series, config.test, config.valid)
    table = inputs.make_table(series, config.horizon, begin.valid, future=config.future)
    linear = fit_linear(table, begin, LEVELS)
    data = forecast.make_data(config, table, linear, begin)
    return series, begin, table, linear, data


# Inputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("future", [False, True])
def test_nothing_from_after_the_origin_moves_an_input(series, future):
    """Spoil all after an origin: its inputs stay, but for the future of a covariate, if asked."""
    origin, train = 200, 150
    spoilt_values, spoilt_past = series.values.copy(), series.past.copy()
    spoilt_values[origin + 1 :] += 1000
    spoilt_past[origin + 1 :] += 1000
    spoilt = series._replace(values=spoilt_values, past=spoilt_past)
    before, after = (inputs.make_table(s, HORIZON, train, future=future) for s in (series, spoilt))
    same = np.array_equal(before.xs[: origin + 1], after.xs[: origin + 1])
    assert same is not future
    np.testing.assert_array_equal(before.base[: origin + 1], after.base[: origin + 1])
    np.testing.assert_array_equal(before.scale, after.scale)
    assert not np.array_equal(before.xs[origin + 1], after.xs[origin + 1])
    values_only = inputs.make_table(series._replace(values=spoilt_values), HORIZON, train)
    plain = inputs.make_table(series, HORIZON, train)
    np.testing.assert_array_equal(plain.xs[: origin + 1], values_only.xs[: origin + 1])


def test_every_input_matters_to_some_lag(series):
    """Each value of the last day and of the stretch a week before moves the inputs of an origin."""
    origin = 200
    plain = inputs.make_table(series, HORIZON, 150)
    short, long = series.seasons
    for lag in [*range(short + 1), *range(long - HORIZON, long + 1)]:
        values = series.values.copy()
        values[origin - lag] += 5
        moved = inputs.make_table(series._replace(values=values), HORIZON, 150)
        assert not np.array_equal(plain.xs[origin], moved.xs[origin]), lag


def test_targets_and_base_are_where_they_should_be(series):
    table = inputs.make_table(series, HORIZON, 150)
    y, long = series.values, series.seasons[1]
    for origin, step in ((100, 1), (170, 4), (233, HORIZON)):
        assert table.actual[origin, step - 1] == y[origin + step]
        expected = y[origin] + y[origin + step - long] - y[origin - long]
        assert table.base[origin, step - 1] == pytest.approx(expected)
    assert np.isnan(table.actual[-1]).all() and np.isnan(table.actual[-2, 1:]).all()
    np.testing.assert_allclose(
        table.restore(table.targets)[50:150], table.actual[50:150], rtol=1e-6
    )


def test_naive_forecasts_look_back_whole_seasons(series):
    y = series.values
    given = inputs.naive(series, HORIZON)
    for origin in (60, 200):
        for step in range(1, HORIZON + 1):
            expected = (
                y[origin],
                y[origin + step - 4] if step <= 4 else y[origin + step - 8],
                y[origin + step - 28],
            )
            assert tuple(f[origin, step - 1] for f in given.values()) == expected


def test_a_split_that_leaves_too_little_is_named(series):
    with pytest.raises(UserError, match="280 steps leave 30 for training .* 112 are needed"):
        inputs.split(series, 200, 50)
    with pytest.raises(UserError, match="horizon must be from 1 to 28, got 29"):
        inputs.make_table(series, 29, 100)


# The linear model ---------------------------------------------------------------------------------


def test_the_linear_model_is_ridge_with_the_penalty_that_validation_prefers(path):
    _, begin, table, linear, _ = parts(small(path))
    train = np.arange(table.first, begin.valid - HORIZON)
    valid = np.arange(begin.valid, begin.test - HORIZON)
    xs = np.asarray(table.xs, np.float64)
    unit = xs[table.first : begin.valid].std(0)
    xs = (xs - xs[table.first : begin.valid].mean(0)) / np.where(unit > 0, unit, 1)
    xs = np.concatenate([np.ones((len(xs), 1)), xs], -1)
    targets = (table.actual - table.base) / table.scale

    def ridge(rows, step, penalty):
        shrink = np.sqrt(penalty) * np.eye(xs.shape[1])
        shrink[0] = 0
        stacked = (
            np.concatenate([xs[rows], shrink]),
            np.concatenate([targets[rows, step], np.zeros(len(shrink))]),
        )
        return np.linalg.lstsq(*stacked, rcond=None)[0]

    for step in (0, HORIZON - 1):
        errors = [
            ((xs[valid] @ ridge(train, step, penalty) - targets[valid, step]) ** 2).mean()
            for penalty in PENALTIES
        ]
        penalty = PENALTIES[int(np.argmin(errors))]
        assert linear.penalty[step] == penalty
        weights = ridge(np.arange(table.first, begin.test - HORIZON), step, penalty)
        expected = table.base[:, step] + xs @ weights * table.scale[step]
        np.testing.assert_allclose(linear.point[60:, step], expected[60:], rtol=1e-6)
        trained = table.base[:, step] + xs @ ridge(train, step, penalty) * table.scale[step]
        np.testing.assert_allclose(linear.trained[60:, step], trained[60:], rtol=1e-6)
        spread = np.quantile(table.actual[valid, step] - trained[valid], LEVELS)
        np.testing.assert_allclose(
            linear.quantiles[60:, step] - linear.point[60:, step, None],
            np.tile(spread, (220, 1)),
            rtol=1e-5,
        )


# Losses and scores --------------------------------------------------------------------------------


def test_losses_are_squares_and_pinballs():
    random = np.random.default_rng(0)
    given, targets = random.normal(size=(3, 2, 1 + len(LEVELS))), random.normal(size=(3, 2))
    targets[0, 1] = np.nan
    expected = np.zeros((3, 2))
    for where in np.ndindex(3, 2):
        y = targets[where]
        if np.isfinite(y):
            expected[where] = 0.5 * (y - given[where][0]) ** 2
            for level, q in zip(LEVELS, given[where][1:], strict=True):
                expected[where] += level * (y - q) if y > q else (1 - level) * (q - y)
    got = losses(jnp.asarray(given), jnp.asarray(targets))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    gradient = jax.grad(lambda g: losses(g, jnp.asarray(targets)).sum())(jnp.asarray(given))
    assert np.isfinite(gradient).all() and not gradient[0, 1].any()


def test_the_quantile_of_a_sample_has_the_least_loss():
    sample = np.random.default_rng(1).gamma(2.0, size=4000)
    wanted = np.quantile(sample, LEVELS)
    best = losses(jnp.asarray([[0.0, *wanted]]), jnp.asarray(sample)[:, None]).mean()
    for index in range(len(LEVELS)):
        for shift in (-0.2, 0.2):
            other = np.array([0.0, *wanted])
            other[1 + index] += shift
            assert losses(jnp.asarray([other]), jnp.asarray(sample)[:, None]).mean() > best


def test_scores_are_those_of_every_target_of_the_test(series):
    begin = inputs.Split(190, 230)
    random = np.random.default_rng(3)
    point = random.normal(100, 5, size=(280, HORIZON))
    quantiles = point[..., None] + np.sort(random.normal(0, 9, size=(280, HORIZON, 5)), -1)
    values = scores(series, begin, Forecast(point, quantiles))
    for step in (1, HORIZON):
        squares, inside, shares = [], [], []
        for target in range(230, 280):
            y, origin = series.values[target], target - step
            squares.append((point[origin, step - 1] - y) ** 2)
            shares.append(abs(quantiles[origin, step - 1, 2] - y) / y)
            low, high = quantiles[origin, step - 1, [1, 3]]
            inside.append(low <= y <= high)
        assert values[f"rmse {step}"] == pytest.approx(np.sqrt(np.mean(squares)))
        assert values[f"nmse {step}"] == pytest.approx(np.mean(squares) / series.values.var())
        assert values[f"mape {step}"] == pytest.approx(100 * np.mean(shares))
        assert values[f"80 % {step}"] == np.mean(inside)
    steps = range(1, HORIZON + 1)
    assert values["mape all"] == pytest.approx(np.mean([values[f"mape {s}"] for s in steps]))
    squares = [values[f"rmse {step}"] ** 2 for step in steps]
    assert values["rmse all"] == pytest.approx(np.sqrt(np.mean(squares)))
    assert "mape 1" not in scores(
        series._replace(values=series.values - 100), begin, Forecast(point)
    )


# The network --------------------------------------------------------------------------------------


def test_quantiles_never_cross(path):
    config = small(path, layers=2)
    model = forecast.make_model(config)
    params = model.init(jax.random.key(0), 5)
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(leaf + random.normal(size=leaf.shape), jnp.float32), params
    )
    xs = jnp.asarray(random.normal(size=(9, 3, 5)), jnp.float32)
    given = model.apply(params, xs, slice(None))
    assert given.shape == (9, 3, HORIZON, 6)
    assert (np.diff(given[..., 1:], axis=-1) > 0).all()
    assert not np.allclose(given[..., 0], given[..., 3])
    some = model.apply(params, xs, slice(2, None, 3))
    np.testing.assert_allclose(some, given[2::3], rtol=1e-5, atol=1e-5)


def test_an_ensemble_is_the_mean_of_networks_that_learn_alone(path):
    config = small(path, members=3)
    model = forecast.make_model(config)
    params = jax.tree.map(
        lambda leaf: (
            leaf + 0.1 * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)
        ),
        model.init(jax.random.key(3), 5),
    )
    xs = jnp.asarray(np.random.default_rng(5).normal(size=(9, 2, 5)), jnp.float32)
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(3)]
    alone = [model.model.apply(member, xs, slice(None)) for member in members]
    assert not np.allclose(alone[0], alone[1])
    given = model.apply(params, xs, slice(None))
    np.testing.assert_allclose(given, np.mean(alone, 0), rtol=1e-5, atol=1e-6)
    # Without dropout, what each gives in training is what it gives alone.
    each = model.each(params, xs, slice(None), jax.random.key(0))
    np.testing.assert_allclose(each, np.stack(alone), rtol=1e-5, atol=1e-6)


def test_calibrated_quantiles_cover_what_they_say_where_they_are_calibrated():
    random = np.random.default_rng(6)
    median = random.normal(100, 10, size=(600, 2, 1))
    width = random.uniform(0.5, 3, size=(600, 2, 1))
    quantiles = median + width * np.array([-1.5, -1.0, 0.0, 0.7, 2.0])
    actual = median[..., 0] + width[..., 0] * random.standard_t(4, size=(600, 2))
    origins = slice(100, 500)
    given = calibrate(Forecast(median[..., 0], quantiles), actual, origins)
    below = (actual[origins, :, None] <= given.quantiles[origins]).mean(0)
    wanted = np.delete(np.array(LEVELS), 2)
    np.testing.assert_allclose(np.delete(below, 2, -1), np.tile(wanted, (2, 1)), atol=1 / 400)
    np.testing.assert_array_equal(given.quantiles[..., 2], median[..., 0])
    # A quantile keeps its distance from the median in proportion to what it was, for each step.
    ratio = np.delete(
        (given.quantiles - median) / (quantiles - median + (quantiles == median)), 2, -1
    )
    np.testing.assert_allclose(ratio, np.tile(ratio[:1], (600, 1, 1)), rtol=1e-9)


def test_every_origin_of_the_test_is_forecast_once_and_as_in_training(path):
    """A forecast of `predict` is that of a stretch which ends at its origin."""
    config = small(path)
    series, begin, table, _, data = parts(config)
    model = forecast.make_model(config)
    params = model.init(jax.random.key(2), data.xs.shape[1])
    params = jax.tree.map(lambda leaf: leaf + 0.05 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape), params)  # fmt: skip  # noqa: E501
    given = forecast.predict(config, table, data, model, params)
    origins = np.arange(begin.valid, len(series.values) - 1)
    assert np.isfinite(given.point[origins]).all() and np.isnan(given.point[: origins[0]]).all()
    raw = np.full((len(data.xs), HORIZON, 1 + len(LEVELS)), np.nan)
    for first in range(begin.valid, len(series.values) - 1, config.time):
        xs = data.xs[first - config.lead : first + config.time][:, None]
        alone = model.apply(params, jnp.asarray(xs), slice(config.lead, None))[:, 0]
        stretch = slice(first, first + len(alone))
        raw[stretch] = data.base[stretch, :, None] + alone * data.scale[:, None]
    np.testing.assert_allclose(given.point[origins], raw[origins, :, 0], rtol=1e-5)
    known = slice(begin.valid, begin.test - HORIZON)
    expected = calibrate(Forecast(raw[..., 0], raw[..., 1:]), table.actual, known).quantiles
    np.testing.assert_allclose(given.quantiles[origins], expected[origins], rtol=1e-4)


def test_batches_stay_in_the_training_part_and_validation_in_its_own(path):
    config = small(path)
    _, begin, _, _, data = parts(config)
    marked = data._replace(
        xs=np.arange(len(data.xs), dtype=np.float32)[:, None], targets=data.targets * np.nan
    )
    marked.targets[:] = np.arange(len(data.xs))[:, None]
    task = forecast.make_task(config, marked, forecast.make_model(config))
    seen = np.concatenate([task.batch(step)["targets"].ravel() for step in range(60)])
    assert seen.min() == data.first and seen.max() < begin.valid - HORIZON
    assert len(np.unique(seen)) > 0.9 * (begin.valid - HORIZON - data.first)
    held = forecast.side_by_side(marked, begin.valid, begin.test - HORIZON, config)["targets"]
    expected = np.arange(begin.valid, begin.test - HORIZON)
    np.testing.assert_array_equal(np.sort(held[..., 0][np.isfinite(held[..., 0])]), expected)
    batch = task.batch(0)
    np.testing.assert_array_equal(batch["xs"][config.lead :, :, 0], batch["targets"][..., 0])
    before = np.maximum(batch["targets"][0, :, 0] - config.lead, data.first)
    np.testing.assert_array_equal(batch["xs"][0, :, 0], before)


# The whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["linear", "naive"])
def test_it_runs_reports_draws_and_is_found_again(path, tmp_path, base):
    config = small(path, base=base, seeds=2, training=dict(out=tmp_path / "run"))
    result = forecast.main(config)
    assert result.outcome.step == 6
    network = result.figures["network (gru)"]
    assert len(network) == 2 and network[0]["rmse 1"] != network[1]["rmse 1"]
    shown = (tmp_path / "run" / "scores.txt").read_text()
    assert "linear autoregression" in shown and "±" in shown and f"{HORIZON} ahead" in shown
    assert (tmp_path / "run" / "forecast.png").stat().st_size > 20_000
    losses = [x for x in Log(tmp_path / "run" / "metrics.jsonl").read() if "loss" in x]
    assert len(losses) >= 3
    again = forecast.main(config)
    assert again.outcome.compile_seconds == 0 and again.figures == result.figures


@pytest.mark.parametrize("horizon", [1, HORIZON])
def test_the_picture_shows_every_method(series, tmp_path, monkeypatch, horizon):
    """A curve of one point is drawn as nothing: a horizon of 1 needs bars."""
    begin = inputs.split(series, test=50, valid=40)
    generator = np.random.default_rng(0)

    def drawn():
        point = series.values[:, None] + generator.normal(size=(len(series.values), horizon))
        return Forecast(point, point[..., None] + np.linspace(-1, 1, len(LEVELS)))

    drawings = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawings.append(figure))
    network, *others = [drawn() for _ in range(3)]
    figures = [scores(series, begin, forecast) for forecast in (network, *others)]
    methods = {"naive": figures[2:], "network": figures[:2]}
    draw(tmp_path / "x.png", series, begin, network, methods)
    (figure,) = drawings
    _, errors, coverage = figure.axes
    bars = [patch.get_width() for patch in errors.patches]
    curves = [line.get_ydata() for line in errors.lines]
    assert len(bars if horizon == 1 else curves) == 2 and min(bars, default=1) > 0
    for line in coverage.lines[:4]:
        assert len(line.get_xdata()) > 1 or line.get_marker() == "o"
    names = errors.get_yticklabels() if horizon == 1 else errors.get_legend().texts
    assert [name.get_text() for name in names] == ["naive", "network"]


def test_what_the_linear_model_gives_is_where_the_network_begins(path, tmp_path):
    config = small(path, training=dict(steps=1, warmup=0, learning_rate=1e-12, out=tmp_path))
    _, begin, _, linear, _ = parts(config)
    result = forecast.main(config)
    expected = scores(forecast.load_series(config), begin, Forecast(linear.trained))
    for step in (1, HORIZON):
        got = result.figures["network (gru)"][0][f"rmse {step}"]
        assert got == pytest.approx(expected[f"rmse {step}"], rel=1e-4)


def test_it_learns_what_the_linear_model_cannot(tmp_path):
    """A week's end that is lower by a product of calendar columns, and a squared temperature."""
    # 300 days, for with the 70 of the other tests a network overfits from its first steps.
    longer = small_series.write(tmp_path / "longer.csv", days=300)
    training = dict(steps=150, learning_rate=0.01, validate_every=50, out=tmp_path, warmup=10)
    config = small(longer, hidden=16, batch=8, test=200, valid=200, training=training)
    outcome = forecast.main(config).outcome
    first = Log(tmp_path / "metrics.jsonl").read()[0]["validation_loss"]
    assert outcome.best["loss"] < 0.95 * first


def test_stopped_and_resumed_it_is_the_same(path, tmp_path):
    whole = forecast.main(small(path, training=dict(out=tmp_path / "whole")))
    stopped = small(path, training=dict(out=tmp_path / "parts"))
    early = dataclasses.replace(stopped.training, minutes=1e-9)
    forecast.main(dataclasses.replace(stopped, training=early))
    assert forecast.main(stopped).figures == whole.figures


@pytest.mark.parametrize("name", ["electricity", "sunspots"])
def test_two_steps_on_the_real_series_where_it_is_cached(tmp_path, name):
    wheel = {"electricity": _series.ELECTRICITY, "sunspots": _series.SUNSPOTS}[name]
    if not (_fetch.cache_folder() / wheel.filename).is_file():
        pytest.skip("the series is not in the cache folder")
    sizes = dict(horizon=2, hidden=4, test=17520, valid=3360, time=96)
    if name == "sunspots":
        sizes |= dict(horizon=1, test=35, valid=40, time=24)
    config = small(None, series=name, training=dict(steps=2, out=tmp_path), **sizes)
    figures = forecast.main(config).figures
    expected = {"electricity": ("rmse 1", 151.634), "sunspots": ("nmse 1", 0.4158)}
    measure, value = expected[name]
    assert figures["last value"][0][measure] == pytest.approx(value, abs=1e-3)
    assert np.isfinite(figures["network (gru)"][0]["rmse 1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"lead": -1}, "lead must be 0 or more, got -1"),
    ],
)
def test_bad_options_are_named(path, change, message):
    with pytest.raises(ValueError, match=message):
        small(path, **change)
