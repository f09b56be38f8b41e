"""The features and targets of every forecast origin, shared by all models.

Row t holds nothing from after step t, except covariates that are known in advance (calendar,
holidays) and, on request, the future of the others.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from experiments.common.data.series import Series, calendar_features
from experiments.common.errors import UserError


class Split(NamedTuple):
    """The first step of the validation part, and of the test part."""

    valid: int
    test: int


def make_split(series: Series, test: int, valid: int) -> Split:
    """Splits off the last `test` steps for the test and the `valid` before them for validation."""
    length = len(series.values)
    split = Split(length - test - valid, length - test)
    least = 4 * series.seasons[1]
    if split.valid < least or min(test, valid) < series.seasons[0]:
        raise UserError(
            f"data: {length} steps leave {split.valid} for training with {valid} of validation "
            f"and {test} of test, expected at least {least}. Change --test and --valid"
        )
    return split


@dataclass(frozen=True)
class Table:
    """Features and targets of every origin.

    Attributes:
        xs: the features, `[time, features]`.
        base: the forecast that a model adds to, in the series' unit, `[time, horizon]`.
        actual: the true values, `[time, horizon]`; NaN beyond the end.
        scale: the standard deviation of the base's errors in training, `[horizon]`.
        first: the first origin with all its features.
        split: where validation and test begin.
    """

    xs: np.ndarray
    base: np.ndarray
    actual: np.ndarray
    scale: np.ndarray
    first: int
    split: Split

    @cached_property
    def targets(self) -> np.ndarray:
        """The errors of the base in units of their scale, `[time, horizon]`."""
        return ((self.actual - self.base) / self.scale).astype(np.float32)


def make_table(series: Series, horizon: int, split: Split, *, future: bool = False) -> Table:
    """Computes the features and targets.

    The base is the last value plus the change over the same steps one long season before.

    Args:
        series: the series.
        horizon: the number of steps ahead.
        split: where validation and test begin; scales come from the training part alone.
        future: whether all covariates are known in advance, as from a perfect forecast of them.
    """
    short, long = series.seasons
    y, train = series.values, split.valid
    longest = min(long, split.test - split.valid - 1, len(y) - split.test)
    if not 1 <= horizon <= longest:
        raise UserError(f"horizon must be from 1 to {longest}, got {horizon}")
    changes = np.diff(y, prepend=y[:1]) / _nonzero_std(np.diff(y[:train]))
    past = series.past_covariates
    past = (past - past[:train].mean(0)) / _nonzero_std(past[:train])
    known = np.concatenate([series.future_covariates, calendar_features(series)], -1)
    steps = range(1, horizon + 1)
    # Covariates at every step would be many features: they are sampled.
    sampled = sorted({*np.linspace(0, horizon, 13).astype(int)})
    lags = sorted({*range(min(3, short)), *np.linspace(0, short, 9).astype(int)})
    levels = [y - y[:train].mean(), y - shift(y, -short), y - shift(y, -long)]
    columns = [
        np.stack(levels, -1) / y[:train].std(),
        *(shift(changes, -lag)[:, None] for lag in range(short + 1)),
        *(shift(changes, step - long)[:, None] for step in steps),
        *(shift(power, -lag) for power in (past, past**2) for lag in lags),
        *(shift(past, step - long) for step in sampled),
        known,
        *(
            shift(series.future_covariates, step - back)
            for step in sampled[1:]
            for back in (0, short, long)
        ),
    ]
    if future:
        columns += [shift(power, step) for power in (past, past**2) for step in sampled]
    actual = np.stack([shift(y, step, np.nan) for step in steps], -1)
    season_before = np.stack([shift(y, step - long) for step in steps], -1)
    base = (y - shift(y, -long))[:, None] + season_before
    first = long + 1
    scale = _nonzero_std((actual - base)[first : train - horizon])
    return Table(np.concatenate(columns, -1).astype(np.float32), base, actual, scale, first, split)


def naive_forecasts(series: Series, horizon: int) -> dict[str, np.ndarray]:
    """The last value and seasonal naive forecasts, `[time, horizon]` each, by name."""

    def seasonal(season: int) -> np.ndarray:
        # A step beyond one season repeats the last season before the origin.
        lags = [step % season + 1 - season for step in range(horizon)]
        return np.stack([shift(series.values, lag) for lag in lags], -1)

    names = {"last value": 1} | {f"{season} steps before": season for season in series.seasons}
    return {name: seasonal(season) for name, season in names.items()}


def shift(column: np.ndarray, steps: int, fill: float | None = None) -> np.ndarray:
    """Row t is the column's row t + steps; beyond the ends it is the nearest row, or `fill`."""
    wanted = np.arange(len(column)) + steps
    inside = np.clip(wanted, 0, len(column) - 1)
    return column[inside] if fill is None else np.where(wanted == inside, column[inside], fill)


def _nonzero_std(columns: np.ndarray) -> np.ndarray:
    std = columns.std(0)
    return np.where(std > 0, std, 1.0)
