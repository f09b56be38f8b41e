"""Forecast metrics: errors and coverage by step ahead, as tables and as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import mean_pinball_loss

from experiments.common.data.series import Series
from experiments.common.plots import format_dates
from experiments.common.seeds import mean_and_std
from experiments.forecast.features import Split
from experiments.forecast.model import LEVELS, MEDIAN, Forecast

_INTERVALS = {"80 %": (1, 3), "95 %": (0, 4)}
_NOMINAL = [100 * (LEVELS[high] - LEVELS[low]) for low, high in _INTERVALS.values()]
_COLORS = ("#bbbbbb", "#8fa3b0", "#5b7083", "#d08c2e", "#b3362d", "#444444")
_COLUMNS = {"rmse": "RMSE", "nmse": "MSE/variance", "mape": "MAPE %", "pinball": "pinball"}
_COLUMNS |= {name: f"in {name}" for name in _INTERVALS}

Results = Mapping[str, Sequence[Mapping[str, np.ndarray]]]
"""The metrics of every method and seed."""


def evaluate(series: Series, split: Split, forecast: Forecast) -> dict[str, np.ndarray]:
    """Computes the metrics of each step ahead on the test part, `[horizon]` each, by name.

    The absolute percentage error (`mape`) is that of the median where there is one: the median
    minimizes absolute errors as the mean minimizes squared errors. It is left out where a target
    is not positive.
    """
    steps = np.arange(1, forecast.point.shape[1] + 1)
    times = np.arange(split.test, len(series.values))[:, None]
    actual = np.broadcast_to(series.values[times], (len(times), len(steps)))
    point = median = forecast.point[times - steps, steps - 1]
    metrics = {}
    if forecast.quantiles is not None:
        quantiles = forecast.quantiles[times - steps, steps - 1]
        median = quantiles[..., MEDIAN]
        for name, (low, high) in _INTERVALS.items():
            inside = (quantiles[..., low] <= actual) & (actual <= quantiles[..., high])
            metrics[name] = inside.mean(0)
        pinball = [
            mean_pinball_loss(actual, quantiles[..., i], alpha=level, multioutput="raw_values")
            for i, level in enumerate(LEVELS)
        ]
        metrics["pinball"] = np.mean(pinball, 0)
    mse = ((actual - point) ** 2).mean(0)
    metrics |= {"rmse": np.sqrt(mse), "nmse": mse / series.variance}
    if (actual > 0).all():
        metrics["mape"] = 100 * (np.abs(actual - median) / actual).mean(0)
    return metrics


def summarize(horizon: int, results: Results) -> dict[str, dict[str, list[float]]]:
    """The metrics of each method at the next step, at the last and over all, one number a seed."""

    def over_all(name: str, values: np.ndarray) -> float:
        return float(np.sqrt((values**2).mean()) if name == "rmse" else values.mean())

    selections: dict[str, Any] = {"1 ahead": lambda name, values: float(values[0])}
    if horizon > 1:
        selections[f"{horizon} ahead"] = lambda name, values: float(values[-1])
        selections[f"1 to {horizon} ahead"] = over_all
    return {
        method: {
            f"{name}, {title}": [select(name, metrics[name]) for metrics in seeds]
            for title, select in selections.items()
            for name in _COLUMNS
            if name in seeds[0]
        }
        for method, seeds in results.items()
    }


def format_tables(series: Series, horizon: int, results: Results) -> str:
    """Formats a table for the next step, the last step, and all steps; one row a method."""
    found = summarize(horizon, results)
    titles = dict.fromkeys(key.partition(", ")[2] for values in found.values() for key in values)
    lines = [f"{series.name}, test part; mean over seeds ± standard deviation"]
    for title in titles:
        rows = [[title, *_COLUMNS.values()]]
        for method, values in found.items():
            columns = (values.get(f"{name}, {title}", []) for name in _COLUMNS)
            rows.append([method, *(mean_and_std(column, "{:.4g}", "{:.2g}") for column in columns)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append("")
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def plot_forecast(
    path: Path, series: Series, split: Split, forecast: Forecast, results: Results
) -> None:
    """Plots forecasts of a part of the test, and every method's errors and coverage."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes: Any = figure.subplot_mosaic([["week", "week"], ["errors", "coverage"]])
    _plot_week(axes["week"], series, split, forecast)
    horizon = forecast.point.shape[1]
    if horizon > 1:
        _plot_by_step(axes["errors"], axes["coverage"], horizon, results)
    else:
        _plot_next_step(axes["errors"], axes["coverage"], results)
    axes["coverage"].set(title="targets inside the interval, %")
    figure.savefig(path, dpi=120)


def _plot_by_step(errors: Any, coverage: Any, horizon: int, results: Results) -> None:
    """Errors and coverage by step ahead, a curve for each method."""
    steps = range(1, horizon + 1)
    for (method, seeds), color in zip(results.items(), _COLORS, strict=False):
        rmse = np.array([metrics["rmse"] for metrics in seeds])
        errors.plot(steps, rmse.mean(0), ".-", color=color, label=method, markersize=4)
        if len(rmse) > 1:
            low, high = rmse.min(0), rmse.max(0)
            errors.fill_between(steps, low, high, color=color, alpha=0.3, linewidth=0)
        for interval, style in zip(_INTERVALS, ("--", "-"), strict=True):
            if interval in seeds[0]:
                inside = 100 * np.mean([metrics[interval] for metrics in seeds], 0)
                coverage.plot(steps, inside, style, color=color, label=f"{method}, {interval}")
    errors.set(title="error by step ahead", xlabel="steps ahead", ylabel="RMSE", yscale="log")
    errors.legend(fontsize="small")
    for nominal in _NOMINAL:
        coverage.axhspan(nominal - 3, nominal + 3, color="#dddddd", linewidth=0)
        coverage.axhline(nominal, color="#888888", linewidth=0.8)
    coverage.set(xlabel="steps ahead")
    coverage.legend(fontsize="small")


def _plot_next_step(errors: Any, coverage: Any, results: Results) -> None:
    """Errors and coverage of the only step ahead, a row for each method; black: range of seeds."""
    for row, (seeds, color) in enumerate(zip(results.values(), _COLORS, strict=False)):
        rmse = np.array([metrics["rmse"][0] for metrics in seeds])
        errors.barh(row, rmse.mean(), color=color)
        errors.plot([rmse.min(), rmse.max()], [row, row], color="black")
        errors.annotate(f" {rmse.mean():.4g}", (rmse.max(), row), va="center")
        for interval in _INTERVALS:
            if interval in seeds[0]:
                inside = [100 * metrics[interval][0] for metrics in seeds]
                coverage.plot(inside, [row] * len(inside), "o", color=color, alpha=0.7)
    for nominal in _NOMINAL:
        coverage.axvspan(nominal - 3, nominal + 3, color="#dddddd", linewidth=0)
        coverage.axvline(nominal, color="#888888", linewidth=0.8)
    for axes in (errors, coverage):
        axes.set_yticks(range(len(results)), list(results))
        axes.set_ylim(len(results) - 0.5, -0.5)
        axes.spines[["top", "right"]].set_visible(False)
    errors.set(title="error of the next step, RMSE")
    errors.margins(x=0.1)


def _plot_week(axes: Any, series: Series, split: Split, forecast: Forecast) -> None:
    """Forecasts of the whole horizon, one after another, over about one long season."""
    assert forecast.quantiles is not None
    horizon, length = forecast.point.shape[1], len(series.values) - split.test
    count = min(max(1, series.seasons[1] // horizon), length // horizon)
    # A whole number of horizons, at most two long seasons, into the test.
    skipped = min(2 * series.seasons[1], length - count * horizon) // horizon * horizon
    first = split.test + skipped
    shown = slice(first, first + count * horizon)
    times, values = series.times[shown], series.values[shown]
    origins = first + horizon * np.arange(count) - 1
    point = forecast.point[origins].reshape(-1)
    quantiles = forecast.quantiles[origins].reshape(-1, len(LEVELS))
    for (name, (low, high)), alpha in zip(_INTERVALS.items(), (0.35, 0.18), strict=True):
        bounds = quantiles[:, low], quantiles[:, high]
        axes.fill_between(times, *bounds, color="#b3362d", alpha=alpha, linewidth=0, label=name)
    axes.plot(times, point, color="#b3362d", linewidth=1, label="forecast")
    if horizon > 1:
        for time in times[::horizon]:
            axes.axvline(time, color="#aaaaaa", linewidth=0.6)
    axes.plot(times, values, color="#222222", linewidth=1.2, label="actual")
    format_dates(axes)
    axes.set(
        title=f"{count} forecasts, {horizon} ahead" + ", each made at a gray line" * (horizon > 1),
        ylabel=series.name,
        xlim=(times[0], times[-1]),
    )
    axes.legend(loc="upper right", ncols=4, fontsize="small")
