"""Weeks of a series, and the baselines that reconstruct them: the mean week and PCA."""

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from experiments.common.data.series import Series, calendar_features
from experiments.common.errors import UserError


class Weeks(NamedTuple):
    """Windows of one long season (a week) that start at every short season (a day).

    Attributes:
        values: standardized values, `[time, weeks]`.
        calendar: calendar features, `[time, weeks, features]`.
        steps: the index in the series, `[time, weeks]`.
        phase: the position of the first step within the long season, `[weeks]`.
        train: which weeks are for training: before the test, without a step of validation.
        valid: which weeks are for validation: one whole week of every eight.
        test: which weeks are held out: all steps after the training part.
    """

    values: np.ndarray
    calendar: np.ndarray
    steps: np.ndarray
    phase: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def make_weeks(series: Series, test: int) -> Weeks:
    """Cuts a series into weeks; the last `test` steps are for the test."""
    short, long = series.seasons
    length = len(series.values)
    begin = length - test
    if begin < 16 * long or test < 2 * long:
        raise UserError(
            f"data: {length} steps, {test} of them for the test, are too few: expected at least "
            f"{16 * long} before the test and {2 * long} in it. Change --test"
        )
    known = series.values[:begin]
    values = ((series.values - known.mean()) / known.std()).astype(np.float32)
    days, days_per_week = day_numbers(series), long // short
    starts = np.flatnonzero(np.diff(days, prepend=-1))
    steps = starts[starts <= length - long] + np.arange(long)[:, None]
    eighth = days[steps] // days_per_week % 8 == 7
    before_test = (steps < begin).all(0)
    return Weeks(
        values[steps],
        calendar_features(series)[steps].astype(np.float32),
        steps,
        series.times[steps[0]].astype(np.int64) // series.minutes % long,
        train=before_test & ~eighth.any(0),
        valid=before_test & eighth[0] & (days[steps[0]] % days_per_week == 0),
        test=np.asarray((steps >= begin).all(0)),
    )


def day_numbers(series: Series) -> np.ndarray:
    """The number of days between the first step and each step, `[time]`."""
    days = series.times.astype("datetime64[D]").astype(np.int64)
    return days - days[0]


def errors_by_day(weeks: Weeks, squares: np.ndarray, series: Series) -> np.ndarray:
    """Mean squared error of each day, from the squared errors `[time, weeks]` of all its weeks."""
    days = day_numbers(series)
    where, count = days[weeks.steps].ravel(), days[-1] + 1
    sums = np.bincount(where, squares.ravel(), count)
    return sums / np.maximum(np.bincount(where, minlength=count), 1)


def mean_week(weeks: Weeks) -> np.ndarray:
    """The mean of each time of the week over the training weeks, `[time, weeks]`."""
    aligned, order = _align(weeks)
    mean = aligned[:, weeks.train].mean(1, keepdims=True)
    return np.take_along_axis(np.broadcast_to(mean, aligned.shape), order, 0)


def reconstruct_pca(weeks: Weeks, size: int) -> np.ndarray:
    """Reconstructs all weeks from principal components of the training weeks, `[time, weeks]`."""
    aligned, order = _align(weeks)
    train = aligned[:, weeks.train].T
    pca = PCA(min(size, *train.shape), svd_solver="full").fit(train)
    return np.take_along_axis(pca.inverse_transform(pca.transform(aligned.T)).T, order, 0)


def _align(weeks: Weeks) -> tuple[np.ndarray, np.ndarray]:
    """Rotates all weeks to start on the same weekday; also returns the indices that undo it."""
    length = len(weeks.values)
    time = np.arange(length)[:, None]
    aligned = np.take_along_axis(weeks.values, (time - weeks.phase) % length, 0)
    return aligned, (time + weeks.phase) % length
