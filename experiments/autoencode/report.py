"""How well weeks came back, which days did not, and a map of the codes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.autoencode.data import Weeks, day_numbers, errors_by_day, rank_statistic
from experiments.common.data.series import Series
from experiments.common.plots import format_dates

_RED, _BLUE, _GREY = "#b3362d", "#3b6a92", "#aaaaaa"


class Codes(NamedTuple):
    """What a network made of all weeks: codes `[weeks, code]`, and values `[time, weeks]`."""

    codes: np.ndarray
    values: np.ndarray


class Measured(NamedTuple):
    """How well one method did.

    Fields:
        train: mean squared error on the weeks of training, in variances.
        test: the same on the held-out weeks.
        holidays: the rank statistic of the holidays among all days, None if none are known.
        held_out_holidays: the same among the days of the test.
        oddest: the days of the largest error, first the oddest.
    """

    train: float
    test: float
    holidays: float | None
    held_out_holidays: float | None
    oddest: tuple[str, ...]


def measure(series: Series, weeks: Weeks, values: np.ndarray) -> Measured:
    """Measures what a method gave back, `[time, weeks]`."""
    squares = (values - weeks.values) ** 2
    days = errors_by_day(weeks, squares, series)
    odd, held_out = holidays(series), _held_out(series, weeks)
    first = series.times[0].astype("datetime64[D]")
    return Measured(
        float(squares[:, weeks.train].mean()),
        float(squares[:, weeks.test].mean()),
        _rank(days, odd),
        _rank(days[held_out], odd[held_out]),
        tuple(str(first + day) for day in np.argsort(-days)[:10]),
    )


def holidays(series: Series) -> np.ndarray:
    """Which days are marked beforehand, `[days]`."""
    days = day_numbers(series)
    marks = (
        series.future_covariates.sum(-1)
        if series.future_covariates.shape[-1]
        else np.zeros(len(days))
    )
    return np.bincount(days, marks) > 0


def show(series: Series, figures: Mapping[str, Sequence[Measured]]) -> str:
    """A table, and the oddest days."""
    odd = holidays(series)
    lines = [
        f"{series.name}: squared error of weeks, in variances; area under the ROC curve of "
        f"{odd.sum()} marked days among {len(odd)}, and among those held out",
        "",
        f"{'':28}{'trained on':>16}{'held out':>16}{'marked days':>16}{'held out':>16}",
    ]
    for name, seeds in figures.items():
        # The four figures; what comes after them is no number.
        cells = [_spread([seed[:4][column] for seed in seeds]) for column in range(4)]
        lines.append(f"{name:28}" + "".join(f"{cell:>16}" for cell in cells))
    network = list(figures.values())[-1][0]
    lines += ["", f"the network's oddest days (* marked): {_named(series, network.oddest)}"]
    return "\n".join(lines)


def draw(path: Path, series: Series, weeks: Weeks, network: Codes) -> None:
    """Draws the map of the codes, errors by day, and two weeks with what came back."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes: Any = figure.subplot_mosaic([["map", "days"], ["usual", "odd"]])
    squares = (network.values - weeks.values) ** 2
    odd, days = holidays(series), errors_by_day(weeks, squares, series)
    marked = np.array([odd[day_numbers(series)[steps]].any() for steps in weeks.where.T])
    _draw_map(figure, axes["map"], series, weeks, network.codes, marked)
    dates = series.times[0].astype("datetime64[D]") + np.arange(len(days))
    axes["days"].plot(dates[~odd], days[~odd], ".", color=_GREY, markersize=3, label="other days")
    axes["days"].plot(dates[odd], days[odd], "o", color=_RED, markersize=5, label="marked days")
    axes["days"].axvline(
        series.times[weeks.where[0, weeks.test][0]], color="#444444", linestyle=":"
    )
    axes["days"].set(title="error by day; held out right of the line", yscale="log")
    axes["days"].set(ylabel="squared error, in variances")
    axes["days"].legend(fontsize="small")
    held_out = np.flatnonzero(weeks.test)
    by_error = held_out[np.argsort(squares.mean(0)[held_out])]
    chosen = {"usual": ("median", len(by_error) // 2), "odd": ("largest", -1)}
    for name, (error, place) in chosen.items():
        week = by_error[place]
        times, numbers = series.times[weeks.where[:, week]], day_numbers(series)
        axes[name].plot(times, weeks.values[:, week], color="#222222", label="actual")
        axes[name].plot(times, network.values[:, week], color=_RED, label="given back")
        red = odd[numbers[weeks.where[:, week]]]
        for day in np.unique(times[red].astype("datetime64[D]")):
            axes[name].axvspan(
                day, day + np.timedelta64(1, "D"), color=_RED, alpha=0.12, linewidth=0
            )
        axes[name].set_title(f"held-out week of the {error} error")
        axes[name].legend(fontsize="small")
    for name in ("days", *chosen):
        format_dates(axes[name])
    axes["usual"].set_ylabel(f"{series.name}, standardised")
    figure.savefig(path, dpi=120)


def _draw_map(
    figure: Figure, axes: Any, series: Series, weeks: Weeks, codes: np.ndarray, marked: np.ndarray
) -> None:
    """The codes' first two principal components, coloured by the time of the year."""
    centred = codes - codes.mean(0)
    flat = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    if flat.shape[1] == 1:
        flat = np.concatenate([flat, np.zeros_like(flat)], -1)
    begins = series.times[weeks.where[0]]
    months = (begins - begins.astype("datetime64[Y]")).astype(float) / (365.25 * 1440) * 12
    points = axes.scatter(*flat.T, c=months, cmap="twilight", s=9, vmin=0, vmax=12)
    axes.scatter(*flat[marked].T, facecolors="none", edgecolors=_RED, s=26, linewidth=0.6)
    figure.colorbar(points, ax=axes, label="month in which the week begins")
    axes.set(title="map of the codes; red: weeks with a marked day", xticks=[], yticks=[])


def _held_out(series: Series, weeks: Weeks) -> np.ndarray:
    """Which days belong to the test, `[days]`."""
    days = day_numbers(series)
    begin = days[weeks.where[0, weeks.test][0]]
    return np.arange(days[-1] + 1) >= begin


def _rank(scores: np.ndarray, odd: np.ndarray) -> float | None:
    return rank_statistic(scores, odd) if 0 < odd.sum() < len(odd) else None


def _named(series: Series, days: Sequence[str]) -> str:
    odd, first = holidays(series), series.times[0].astype("datetime64[D]")
    numbers = [(np.datetime64(day) - first).astype(int) for day in days]
    return ", ".join(
        day + "*" * bool(odd[number]) for day, number in zip(days, numbers, strict=True)
    )


def _spread(values: Sequence[float | None]) -> str:
    present = np.array([value for value in values if value is not None])
    if not present.size:
        return "-"
    spread = f" ±{present.std(ddof=1):.1g}" if present.size > 1 else ""
    return f"{present.mean():.4f}{spread}"
