"""What a forecast may look at: a table with one row for every origin, and what comes after it.

Row t holds nothing from after t but what is known in advance (the calendar, holidays), unless the
future of the covariates is asked for. All forecasts learn from the same table.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.common.data.series import Series, calendar
from experiments.common.errors import UserError


class Table(NamedTuple):
    """Inputs and targets of every origin, in units that a network likes.

    Fields:
        xs: the inputs, `[time, features]`.
        base: a naive forecast in the series' unit, `[time, horizon]`: the last value, moved as the
            long season before moved.
        actual: what came, `[time, horizon]`; NaN beyond the end.
        scale: the naive forecast's error in training, `[horizon]`.
        first: the first origin that has all its inputs.
    """

    xs: np.ndarray
    base: np.ndarray
    actual: np.ndarray
    scale: np.ndarray
    first: int

    @property
    def targets(self) -> np.ndarray:
        """What is to be learnt: the naive forecast's error over its scale, `[time, horizon]`."""
        return ((self.actual - self.base) / self.scale).astype(np.float32)

    def restore(self, residual: np.ndarray) -> np.ndarray:
        """Forecasts `[time, horizon]` in the series' unit."""
        return self.base + residual * self.scale


class Split(NamedTuple):
    """The first step of the validation part, and of the test part."""

    valid: int
    test: int


def split(series: Series, test: int, valid: int) -> Split:
    """The last `test` steps are for the test, the `valid` before them for validation."""
    length = len(series.values)
    begin = Split(length - test - valid, length - test)
    least = 4 * series.seasons[1]
    if begin.valid < least or min(test, valid) < series.seasons[0]:
        raise UserError(
            f"data: {length} steps leave {begin.valid} for training beside {valid} of validation "
            f"and {test} of test; {least} are needed. Change --test and --valid"
        )
    return begin


def make_table(series: Series, horizon: int, train: int, *, future: bool = False) -> Table:
    """Lays the inputs out.

    Args:
        series: the series.
        horizon: how many steps to look ahead; no more than the long season.
        train: how many steps are for training: means and scales come from these alone.
        future: whether covariates are known in advance, too, as by a perfect forecast of them.
    """
    short, long = series.seasons
    if not 1 <= horizon <= long:
        raise UserError(f"horizon must be from 1 to {long}, got {horizon}")
    y, length = series.values, len(series.values)
    at = _Lagged(length)
    y_unit, (d_unit,) = y[:train].std(), _units(np.diff(y[:train])[:, None])
    moves = np.diff(y, prepend=y[:1]) / d_unit
    past = (series.past - series.past[:train].mean(0)) / _units(series.past[:train])
    ahead = np.concatenate([series.ahead, calendar(series)], -1)
    hours = sorted({*np.linspace(0, horizon, 13).astype(int)})
    columns = [
        ((y - y[:train].mean()) / y_unit)[:, None],
        ((y - at(y, -short)) / y_unit)[:, None],
        ((y - at(y, -long)) / y_unit)[:, None],
        *(at(moves, -lag)[:, None] for lag in range(short + 1)),
        *(at(moves, step - long)[:, None] for step in range(1, horizon + 1)),
        *(at(power, -lag) for power in _powers(past) for lag in _lags(short)),
        *(at(past, step - long) for step in hours),
        *(at(ahead, step) for step in hours[:1]),
        *(at(series.ahead, step - back) for step in hours[1:] for back in (0, short, long)),
    ]
    if future:
        columns += [at(power, step) for power in _powers(past) for step in hours]
    actual = np.stack([at(y, step, np.nan) for step in range(1, horizon + 1)], -1)
    before = np.stack([at(y, step - long) for step in range(1, horizon + 1)], -1)
    base = (y - at(y, -long))[:, None] + before
    first = long + 1
    errors = (actual - base)[first : train - horizon]
    xs = np.concatenate(columns, -1).astype(np.float32)
    return Table(xs, base, actual, _units(errors), first)


def naive(series: Series, horizon: int) -> dict[str, np.ndarray]:
    """Forecasts that need no model, `[time, horizon]` each: the last value, and seasons before."""
    at = _Lagged(len(series.values))
    y, (short, long) = series.values, series.seasons
    steps = range(1, horizon + 1)

    def season(length: int) -> np.ndarray:
        # A step further ahead than the season is long is answered by the season before.
        backs = (length * -(-step // length) for step in steps)
        return np.stack([at(y, step - back) for step, back in zip(steps, backs, strict=True)], -1)

    return {
        "last value": season(1),
        f"{short} steps before": season(short),
        f"{long} steps before": season(long),
    }


class _Lagged:
    """Columns moved in time."""

    def __init__(self, length: int):
        self.steps = np.arange(length)

    def __call__(self, column: np.ndarray, by: int, beyond: float | None = None) -> np.ndarray:
        """Row t is the column's row t + by; beyond the ends the nearest, or a given value."""
        wanted = self.steps + by
        moved = column[np.clip(wanted, 0, len(self.steps) - 1)]
        if beyond is not None:
            moved = np.where((wanted >= 0) & (wanted < len(self.steps)), moved, beyond)
        return moved


def _lags(short: int) -> list[int]:
    return sorted({*range(min(3, short)), *np.linspace(0, short, 9).astype(int)})


def _powers(columns: np.ndarray) -> Sequence[np.ndarray]:
    return columns, columns**2


def _units(columns: np.ndarray) -> np.ndarray:
    spread = columns.std(0)
    return np.where(spread > 0, spread, 1.0)
