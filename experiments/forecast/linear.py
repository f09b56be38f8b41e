"""A linear autoregression with many inputs, fitted as well as one can: ridge, tuned for each step.

One regression for each step ahead, from the same table of inputs as the network's: the last day of
values, the same stretch a week before, covariates and calendar. The penalty is chosen for each step
by the error on the validation part; then all is fitted again to training and validation together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.forecast.features import Split, Table

PENALTIES = tuple(10.0**power for power in range(-4, 5))


class Linear(NamedTuple):
    """Forecasts of the linear model, and how uncertain it is.

    Fields:
        point: `[time, horizon]`.
        quantiles: `[time, horizon, levels]`, the point moved by the quantiles of its own errors on
            the validation part, before that took part in the fit.
        penalty: the ridge penalty of each step ahead, `[horizon]`.
        trained: what `point` was before the validation part took part in the fit.
        scale: the error of `trained` in training, `[horizon]`.
    """

    point: np.ndarray
    quantiles: np.ndarray
    penalty: np.ndarray
    trained: np.ndarray
    scale: np.ndarray


def fit_linear(table: Table, begin: Split, levels: Sequence[float]) -> Linear:
    """Fits and forecasts at every origin."""
    horizon = table.base.shape[1]
    xs = table.xs.astype(np.float64)
    mean, unit = xs[table.first : begin.valid].mean(0), xs[table.first : begin.valid].std(0)
    xs = np.concatenate([np.ones((len(xs), 1)), (xs - mean) / np.where(unit > 0, unit, 1)], -1)
    targets = (table.actual - table.base) / table.scale
    train = slice(table.first, begin.valid - horizon)
    valid = slice(begin.valid, begin.test - horizon)
    both = slice(table.first, begin.test - horizon)
    solve = _Ridge(xs[train], targets[train])
    tried = np.stack([solve(np.full(horizon, penalty)) for penalty in PENALTIES])
    errors = [((targets[valid] - xs[valid] @ weights) ** 2).mean(0) for weights in tried]
    choice = np.argmin(errors, 0)
    penalty = np.array(PENALTIES)[choice]
    chosen = tried[choice, :, np.arange(horizon)].T
    left = targets[valid] - xs[valid] @ chosen
    spread = np.quantile(left, levels, axis=0).T  # [horizon, levels]
    residual = xs @ _Ridge(xs[both], targets[both])(penalty)
    point, trained = table.restore(residual), table.restore(xs @ chosen)
    scale = (table.actual - trained)[train].std(0)
    quantiles = point[..., None] + spread * table.scale[:, None]
    return Linear(point, quantiles, penalty, trained, scale)


class _Ridge:
    """Ridge regression for many penalties: one eigendecomposition, the intercept unpenalised."""

    def __init__(self, xs: np.ndarray, ys: np.ndarray):
        self.x_mean, self.y_mean = xs.mean(0), ys.mean(0)
        centred = xs - self.x_mean
        values, self.vectors = np.linalg.eigh(centred.T @ centred)
        self.values = np.maximum(values, 0)
        self.right = self.vectors.T @ (centred.T @ (ys - self.y_mean))

    def __call__(self, penalty: np.ndarray) -> np.ndarray:
        """Weights `[features, targets]`, one penalty a target; the first feature is the 1."""
        weights = self.vectors @ (self.right / (self.values[:, None] + penalty))
        weights[0] += self.y_mean - self.x_mean @ weights
        return weights
