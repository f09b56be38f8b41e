"""How good forecasts were: errors, coverage, a table of them, and a week to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.common.data.series import Series
from experiments.common.plots import format_dates
from experiments.forecast.features import Split

LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
"""The quantiles that are forecast: two intervals and the median."""
_INTERVALS = {"80 %": (1, 3), "95 %": (0, 4)}
_WANTED = [100 * (LEVELS[high] - LEVELS[low]) for low, high in _INTERVALS.values()]
_COLOURS = ("#bbbbbb", "#8fa3b0", "#5b7083", "#d08c2e", "#b3362d", "#444444")


Figures = Mapping[str, Sequence[Mapping[str, float]]]
"""What `scores` gives, by method and seed."""


class Forecast(NamedTuple):
    """Forecasts from every origin, in the series' unit; NaN where there is none.

    Fields:
        point: `[time, horizon]`.
        quantiles: `[time, horizon, levels]`, or None.
    """

    point: np.ndarray
    quantiles: np.ndarray | None = None


def scores(series: Series, begin: Split, forecast: Forecast) -> dict[str, float]:
    """Errors on every target of the test part: of each step ahead `h` as `rmse h`, `mape h`, ...

    `rmse all` and the like are over all steps ahead. The percentage error is that of the median
    where there is one, since the median minimises absolute errors as the mean minimises squared
    ones.
    """
    values: dict[str, float] = {}
    actual = series.values[begin.test :]
    steps = range(1, forecast.point.shape[1] + 1)
    for step in steps:
        origins = np.arange(begin.test, len(series.values)) - step
        point = median = forecast.point[origins, step - 1]
        if forecast.quantiles is not None:
            quantiles = forecast.quantiles[origins, step - 1]
            median = quantiles[:, len(LEVELS) // 2]
            for name, (low, high) in _INTERVALS.items():
                inside = (quantiles[:, low] <= actual) & (actual <= quantiles[:, high])
                values[f"{name} {step}"] = float(inside.mean())
            error = actual[:, None] - quantiles
            levels = np.array(LEVELS)
            pinball = np.maximum(levels * error, (levels - 1) * error)
            values[f"pinball {step}"] = float(pinball.mean())
        squares = (actual - point) ** 2
        values[f"rmse {step}"] = float(np.sqrt(squares.mean()))
        values[f"nmse {step}"] = float(squares.mean() / series.variance)
        # A percentage means nothing of what is 0, as sunspots can be.
        if (actual > 0).all():
            values[f"mape {step}"] = float(100 * (np.abs(actual - median) / actual).mean())
    for name in {key.rsplit(" ", 1)[0] for key in values}:
        each = np.array([values[f"{name} {step}"] for step in steps])
        # Squared errors are averaged, and not their roots.
        together = np.sqrt((each**2).mean()) if name == "rmse" else each.mean()
        values[f"{name} all"] = float(together)
    return values


def show(series: Series, horizon: int, figures: Figures) -> str:
    """A table for the next step, one for the last, and one over all; one method a row."""
    steps = {"1": "1 ahead", str(horizon): f"{horizon} ahead", "all": f"1 to {horizon} ahead"}
    if horizon == 1:
        steps = {"1": "1 ahead"}
    columns = {"rmse": "RMSE", "nmse": "MSE/variance", "mape": "MAPE %", "pinball": "pinball"}
    columns |= {name: f"in {name}" for name in _INTERVALS}
    shown = [f"{series.name}, test part; mean over seeds ± standard deviation"]
    for step, title in steps.items():
        rows = [[title, *columns.values()]]
        for method, seeds in figures.items():
            rows.append(
                [method, *(_spread([s.get(f"{c} {step}") for s in seeds]) for c in columns)]
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        shown += [
            "",
            *("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows),
        ]
    return "\n".join(line.rstrip() for line in shown)


def draw(path: Path, series: Series, begin: Split, forecast: Forecast, figures: Figures) -> None:
    """Draws a forecast of a stretch of the test part, and every method's errors and coverage."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes: Any = figure.subplot_mosaic([["week", "week"], ["errors", "coverage"]])
    _draw_stretch(axes["week"], series, begin, forecast)
    horizon = forecast.point.shape[1]
    if horizon > 1:
        _draw_steps(axes["errors"], axes["coverage"], horizon, figures)
    else:
        _draw_next(axes["errors"], axes["coverage"], figures)
    axes["coverage"].set(title="targets inside the interval, %")
    figure.savefig(path, dpi=120)


def _draw_steps(errors: Any, coverage: Any, horizon: int, measured: Figures) -> None:
    """Errors and coverage against the step ahead, a curve for each method."""
    steps = range(1, horizon + 1)
    for (name, seeds), colour in zip(measured.items(), _COLOURS, strict=False):
        lines = np.array([[figures[f"rmse {step}"] for step in steps] for figures in seeds])
        errors.plot(steps, lines.mean(0), ".-", color=colour, label=name, markersize=4)
        if len(lines) > 1:
            low, high = lines.min(0), lines.max(0)
            errors.fill_between(steps, low, high, color=colour, alpha=0.3, linewidth=0)
        for interval, style in zip(_INTERVALS, ("--", "-"), strict=True):
            if f"{interval} 1" in seeds[0]:
                inside = np.mean(
                    [[figures[f"{interval} {s}"] for s in steps] for figures in seeds], 0
                )
                coverage.plot(steps, 100 * inside, style, color=colour, label=f"{name}, {interval}")
    errors.set(title="error by step ahead", xlabel="steps ahead", ylabel="RMSE", yscale="log")
    errors.legend(fontsize="small")
    for wanted in _WANTED:
        coverage.axhspan(wanted - 3, wanted + 3, color="#dddddd", linewidth=0)
        coverage.axhline(wanted, color="#888888", linewidth=0.8)
    coverage.set(xlabel="steps ahead")
    coverage.legend(fontsize="small")


def _draw_next(errors: Any, coverage: Any, measured: Figures) -> None:
    """Errors and coverage of the only step ahead, a row for each method; black: all its seeds."""
    for row, (seeds, colour) in enumerate(zip(measured.values(), _COLOURS, strict=False)):
        rmse = np.array([figures["rmse 1"] for figures in seeds])
        errors.barh(row, rmse.mean(), color=colour)
        errors.plot([rmse.min(), rmse.max()], [row, row], color="black")
        errors.annotate(f" {rmse.mean():.4g}", (rmse.max(), row), va="center")
        for interval in _INTERVALS:
            if f"{interval} 1" in seeds[0]:
                inside = [100 * figures[f"{interval} 1"] for figures in seeds]
                coverage.plot(inside, [row] * len(inside), "o", color=colour, alpha=0.7)
    for wanted in _WANTED:
        coverage.axvspan(wanted - 3, wanted + 3, color="#dddddd", linewidth=0)
        coverage.axvline(wanted, color="#888888", linewidth=0.8)
    for axes in (errors, coverage):
        axes.set_yticks(range(len(measured)), list(measured))
        axes.set_ylim(len(measured) - 0.5, -0.5)
        axes.spines[["top", "right"]].set_visible(False)
    errors.set(title="error of the next step, RMSE")
    errors.margins(x=0.1)


def _draw_stretch(axes: Any, series: Series, begin: Split, forecast: Forecast) -> None:
    """Forecasts of the whole horizon, one after another, over about a long season."""
    assert forecast.quantiles is not None
    horizon, left = forecast.point.shape[1], len(series.values) - begin.test
    count = min(max(1, series.seasons[1] // horizon), left // horizon)
    # From the start of a day, two weeks into the test where there is room.
    skipped = min(2 * series.seasons[1], left - count * horizon) // horizon * horizon
    first = begin.test + skipped
    stretch = slice(first, first + count * horizon)
    times, values = series.times[stretch], series.values[stretch]
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
        title=f"{count} forecasts, {horizon} ahead" + ", each made at a grey line" * (horizon > 1),
        ylabel=series.name,
        xlim=(times[0], times[-1]),
    )
    axes.legend(loc="upper right", ncols=4, fontsize="small")


def _spread(values: Sequence[float | None]) -> str:
    present = np.array([value for value in values if value is not None])
    if not present.size:
        return "-"
    spread = f" ±{present.std(ddof=1):.2g}" if present.size > 1 else ""
    return f"{present.mean():.4g}{spread}"
