"""Conformal calibration of prediction intervals.

A split-conformal method on top of quantile regression, after Y. Romano, E. Patterson and E. Candès,
"Conformalized quantile regression", 2019. It departs from the paper in three ways: the score of a
target is its distance from the predicted median relative to that of the predicted quantile, so that
wide intervals stay wider; each quantile is calibrated on its own, and for each step ahead; and the
quantile of the scores has no finite-sample correction.
"""

import numpy as np

from experiments.forecast.model import LEVELS, MEDIAN, Forecast


def calibrate(forecast: Forecast, actual: np.ndarray, origins: slice) -> Forecast:
    """Rescales all quantiles around the median so that they cover the targets of some origins.

    Args:
        forecast: the forecasts, with quantiles `[time, horizon, levels]`.
        actual: the targets, `[time, horizon]`.
        origins: the calibration set, on which all targets must be known.
    """
    quantiles = forecast.quantiles
    assert quantiles is not None
    median = quantiles[..., MEDIAN, None]
    distance = quantiles - median
    error = actual[origins] - median[origins, :, 0]
    calibrated = quantiles.copy()
    for index, level in enumerate(LEVELS):
        if index != MEDIAN:
            scores = error / distance[origins, :, index]
            share = level if index > MEDIAN else 1 - level
            scale = np.maximum(np.quantile(scores, share, axis=0), 0)
            calibrated[..., index] = median[..., 0] + scale * distance[..., index]
    return forecast._replace(quantiles=np.sort(calibrated, -1))
