"""A series cut into long seasons, and the linear judges of which days are odd."""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from experiments.common.data.series import Series, calendar_features
from experiments.common.errors import UserError


class Weeks(NamedTuple):
    """Stretches of one long season (a week), one from the start of every short one (a day).

    Fields:
        values: `[time, weeks]`, in standard deviations.
        calendar: what is known of each step beforehand, `[time, weeks, features]`.
        where: the step of the series that each step is, `[time, weeks]`.
        phase: how far into the long season each begins, `[weeks]`.
        valid: which weeks are for validation: a whole week of every eighth, `[weeks]`.
        train: which are for training: before the test, and no step shared with validation.
        test: which are held out: all steps after the training part, `[weeks]`.
    """

    values: np.ndarray
    calendar: np.ndarray
    where: np.ndarray
    phase: np.ndarray
    valid: np.ndarray
    train: np.ndarray
    test: np.ndarray


def cut(series: Series, test: int) -> Weeks:
    """Cuts a series; the last `test` steps are for the test."""
    short, long = series.seasons
    length = len(series.values)
    begin = length - test
    if begin < 16 * long or test < 2 * long:
        raise UserError(
            f"data: {length} steps, {test} of them for the test, are too few: {16 * long} are "
            f"needed before the test, {2 * long} in it. Change --test"
        )
    known = series.values[:begin]
    values = (series.values - known.mean()) / known.std()
    days = day_numbers(series)
    starts = np.flatnonzero(np.diff(days, prepend=-1))
    where = starts[starts <= length - long] + np.arange(long)[:, None]
    eighth = days[where] // (long // short) % 8 == 7
    in_training = (where < begin).all(0)
    valid = in_training & eighth[0] & (days[where[0]] % (long // short) == 0)
    train = in_training & ~eighth.any(0)
    after = np.asarray((where >= begin).all(0))
    minutes = series.times[where[0]].astype(np.int64)
    return Weeks(
        values[where].astype(np.float32),
        calendar_features(series)[where].astype(np.float32),
        where,
        minutes // series.minutes % long,
        valid,
        train,
        after,
    )


def errors_by_day(weeks: Weeks, squares: np.ndarray, series: Series) -> np.ndarray:
    """The mean of squared errors `[time, weeks]` on each day, over all weeks that it is in."""
    days = day_numbers(series)
    sums = np.bincount(days[weeks.where].ravel(), squares.ravel(), days[-1] + 1)
    return sums / np.maximum(np.bincount(days[weeks.where].ravel(), minlength=len(sums)), 1)


def day_numbers(series: Series) -> np.ndarray:
    """The day that each step belongs to, counted from the first."""
    days = series.times.astype("datetime64[D]").astype(np.int64)
    return days - days[0]


def rank_statistic(scores: np.ndarray, odd: np.ndarray) -> float:
    """How often an odd day has a higher score than another: the area under the ROC curve.

    Example:
        >>> rank_statistic(np.array([0.1, 0.7, 0.3, 0.9]), np.array([False, True, False, True]))
        1.0
    """
    ranks, count = rankdata(scores), odd.sum()
    return float((ranks[odd].sum() - count * (count + 1) / 2) / (count * (len(odd) - count)))


def principal(weeks: Weeks, size: int) -> np.ndarray:
    """What the linear autoencoder gives back, `[time, weeks]`: principal components of weeks.

    Weeks are turned to begin on the same weekday, so that one component is one pattern.
    """
    turned, back = _turned(weeks)
    mean = turned[:, weeks.train].mean(1, keepdims=True)
    vectors, _, _ = np.linalg.svd(turned[:, weeks.train] - mean, full_matrices=False)
    vectors = vectors[:, :size]
    return np.take_along_axis(mean + vectors @ (vectors.T @ (turned - mean)), back, 0)


def average(weeks: Weeks) -> np.ndarray:
    """The mean of each time of the week over training, `[time, weeks]`."""
    turned, back = _turned(weeks)
    mean = turned[:, weeks.train].mean(1, keepdims=True)
    return np.take_along_axis(np.broadcast_to(mean, turned.shape), back, 0)


def _turned(weeks: Weeks) -> tuple[np.ndarray, np.ndarray]:
    """Weeks turned to one weekday, and the order that turns them back."""
    length = len(weeks.values)
    steps = np.arange(length)[:, None]
    order, back = (steps - weeks.phase) % length, (steps + weeks.phase) % length
    return np.take_along_axis(weeks.values, order, 0), back
