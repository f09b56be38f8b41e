"""Reconstruction errors, anomalous days, and plots of codes and reconstructed weeks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from experiments.autoencode.data import Weeks, day_numbers, errors_by_day
from experiments.common.data.series import Series
from experiments.common.plots import format_dates
from experiments.common.seeds import mean_and_std

_RED, _GRAY = "#b3362d", "#aaaaaa"


class Metrics(NamedTuple):
    """Metrics of one method.

    Attributes:
        train: mean squared error on the training weeks, in variances.
        test: mean squared error on the held-out weeks.
        auc: area under the ROC curve of the marked days by their error, None if none are marked.
        test_auc: the same among the days of the test part.
        anomalies: the ten days with the largest errors, the largest first.
    """

    train: float
    test: float
    auc: float | None
    test_auc: float | None
    anomalies: tuple[str, ...]


def evaluate(series: Series, weeks: Weeks, values: np.ndarray) -> Metrics:
    """Computes the metrics of reconstructed values, `[time, weeks]`."""
    squares = (values - weeks.values) ** 2
    errors, marked = errors_by_day(weeks, squares, series), marked_days(series)
    first_test_day = day_numbers(series)[weeks.steps[0, weeks.test][0]]
    first = series.times[0].astype("datetime64[D]")
    return Metrics(
        float(squares[:, weeks.train].mean()),
        float(squares[:, weeks.test].mean()),
        _auc(errors, marked),
        _auc(errors[first_test_day:], marked[first_test_day:]),
        tuple(str(first + day) for day in np.argsort(-errors)[:10]),
    )


def marked_days(series: Series) -> np.ndarray:
    """Which days have a future covariate, such as holidays, `[days]`."""
    return np.bincount(day_numbers(series), series.future_covariates.sum(-1)) > 0


def format_table(series: Series, results: Mapping[str, Sequence[Metrics]]) -> str:
    """Formats a table of all methods, and the anomalies of the last one."""
    marked, first = marked_days(series), series.times[0].astype("datetime64[D]")
    lines = [
        f"{series.name}: mean squared error of weeks, in variances; area under the ROC curve of "
        f"{marked.sum()} marked days among {len(marked)}, and among those held out",
        "",
        f"{'':28}{'trained on':>16}{'held out':>16}{'marked days':>16}{'held out':>16}",
    ]
    for name, seeds in results.items():
        columns = zip(*((m.train, m.test, m.auc, m.test_auc) for m in seeds), strict=True)
        values = ([value for value in column if value is not None] for column in columns)
        cells = (mean_and_std(column, "{:.4f}", "{:.1g}") for column in values)
        lines.append(f"{name:28}" + "".join(f"{cell:>16}" for cell in cells))
    anomalies = list(results.values())[-1][0].anomalies
    dates = {str(first + day) for day in np.flatnonzero(marked)}
    starred = ", ".join(f"{day}*" if day in dates else day for day in anomalies)
    lines += ["", f"the network's most anomalous days (* marked): {starred}"]
    return "\n".join(lines)


def plot_weeks(
    path: Path, series: Series, weeks: Weeks, codes: np.ndarray, values: np.ndarray
) -> None:
    """Plots the codes `[weeks, code]`, errors by day, and two reconstructed weeks."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes: Any = figure.subplot_mosaic([["map", "days"], ["usual", "odd"]])
    squares = (values - weeks.values) ** 2
    _plot_codes(figure, axes["map"], series, weeks, codes)
    _plot_days(axes["days"], series, weeks, errors_by_day(weeks, squares, series))
    held_out = np.flatnonzero(weeks.test)
    by_error = held_out[np.argsort(squares.mean(0)[held_out])]
    for name, title, week in (
        ("usual", "median", by_error[len(by_error) // 2]),
        ("odd", "largest", by_error[-1]),
    ):
        _plot_week(axes[name], series, weeks, values, week)
        axes[name].set_title(f"held-out week with the {title} error")
    axes["usual"].set_ylabel(f"{series.name}, standardized")
    figure.savefig(path, dpi=120)


def _plot_codes(figure: Figure, axes: Any, series: Series, weeks: Weeks, codes: np.ndarray) -> None:
    """The first two principal components of the codes, colored by the time of the year."""
    flat = np.zeros((len(codes), 2))
    size = min(2, codes.shape[1])
    flat[:, :size] = PCA(size, svd_solver="full").fit_transform(codes)
    marked = marked_days(series)[day_numbers(series)[weeks.steps]].any(0)
    begins = series.times[weeks.steps[0]]
    months = (begins - begins.astype("datetime64[Y]")).astype(float) / (365.25 * 1440) * 12
    points = axes.scatter(*flat.T, c=months, cmap="twilight", s=9, vmin=0, vmax=12)
    axes.scatter(*flat[marked].T, facecolors="none", edgecolors=_RED, s=26, linewidth=0.6)
    figure.colorbar(points, ax=axes, label="month of the first day")
    title = "codes (PCA); red: weeks with a marked day"
    axes.set(title=title, xticks=[], yticks=[])


def _plot_days(axes: Any, series: Series, weeks: Weeks, errors: np.ndarray) -> None:
    marked = marked_days(series)
    dates = series.times[0].astype("datetime64[D]") + np.arange(len(errors))
    axes.plot(dates[~marked], errors[~marked], ".", color=_GRAY, markersize=3, label="other days")
    axes.plot(dates[marked], errors[marked], "o", color=_RED, markersize=5, label="marked days")
    axes.axvline(series.times[weeks.steps[0, weeks.test][0]], color="#444444", linestyle=":")
    axes.set(title="error by day; held out right of the line", yscale="log")
    axes.set(ylabel="squared error, in variances")
    axes.legend(fontsize="small")
    format_dates(axes)


def _plot_week(axes: Any, series: Series, weeks: Weeks, values: np.ndarray, week: int) -> None:
    """One week and its reconstruction, with its marked days in red."""
    steps = weeks.steps[:, week]
    times, days = series.times[steps], series.times[steps].astype("datetime64[D]")
    axes.plot(times, weeks.values[:, week], color="#222222", label="actual")
    axes.plot(times, values[:, week], color=_RED, label="reconstructed")
    for day in np.unique(days[marked_days(series)[day_numbers(series)[steps]]]):
        axes.axvspan(day, day + np.timedelta64(1, "D"), color=_RED, alpha=0.12, linewidth=0)
    axes.legend(fontsize="small")
    format_dates(axes)


def _auc(scores: np.ndarray, marked: np.ndarray) -> float | None:
    return float(roc_auc_score(marked, scores)) if 0 < marked.sum() < len(marked) else None
