"""The linear baseline: ridge regression on the network's inputs, tuned for each step ahead.

There is one autoregression for each step ahead. Its penalty has the least error on the validation
part; it is then fitted again on the training and validation parts together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from experiments.forecast.features import Table

PENALTIES = tuple(10.0**power for power in range(-4, 5))


class Linear(NamedTuple):
    """Forecasts of the linear model.

    Attributes:
        point: `[time, horizon]`.
        quantiles: `[time, horizon, levels]`: the point plus the quantiles of the errors of
            `trained` on the validation part.
        penalty: the ridge penalty of each step ahead, `[horizon]`.
        trained: the forecasts of the fit on the training part alone, `[time, horizon]`.
        scale: the standard deviation of the errors of `trained` in training, `[horizon]`.
    """

    point: np.ndarray
    quantiles: np.ndarray
    penalty: np.ndarray
    trained: np.ndarray
    scale: np.ndarray


def fit_linear(table: Table, levels: Sequence[float]) -> Linear:
    """Fits the model and forecasts from every origin."""
    first, split, horizon = table.first, table.split, table.base.shape[1]
    scaler = StandardScaler().fit(table.xs[first : split.valid].astype(np.float64))
    xs = scaler.transform(table.xs.astype(np.float64))
    targets = (table.actual - table.base) / table.scale
    train = slice(first, split.valid - horizon)
    valid = slice(split.valid, split.test - horizon)
    both = slice(first, split.test - horizon)

    def predict(rows: slice, penalty: Any) -> np.ndarray:
        model = Ridge(penalty, solver="cholesky").fit(xs[rows], targets[rows])
        return model.predict(xs).reshape(targets.shape)  # scikit-learn drops the axis of one step

    errors = [
        ((targets - predict(train, penalty))[valid] ** 2).mean(axis=0) for penalty in PENALTIES
    ]
    penalty = np.array(PENALTIES)[np.argmin(errors, 0)]
    trained, point = (table.base + predict(rows, penalty) * table.scale for rows in (train, both))
    error_quantiles = np.quantile((table.actual - trained)[valid], levels, axis=0).T
    scale = (table.actual - trained)[train].std(0)
    return Linear(point, point[..., None] + error_quantiles, penalty, trained, scale)
