"""Intervals that cover what they say, by how often they did lately.

A network is surer of what it has not seen than it should be. As in Y. Romano, E. Patterson and
E. Candès, "Conformalized quantile regression", 2019, its quantiles are moved so that on a part of
the data that it has not learnt from, each has as many targets below it as it says. Here they are
moved in proportion to their distance from the median, so that a wide interval stays the wider one,
and for each step ahead by itself.
"""

import numpy as np

from experiments.forecast.report import LEVELS, Forecast

_MIDDLE = len(LEVELS) // 2


def calibrate(forecast: Forecast, actual: np.ndarray, origins: slice) -> Forecast:
    """Moves the quantiles of all forecasts, by those from some origins.

    Args:
        forecast: with quantiles `[time, horizon, levels]`.
        actual: what came, `[time, horizon]`.
        origins: from where it was forecast, for the comparison; nothing may be missing there.
    """
    quantiles = forecast.quantiles
    assert quantiles is not None
    median = quantiles[..., _MIDDLE : _MIDDLE + 1]
    distance = quantiles - median
    error = (actual[..., None] - median)[origins]
    moved = quantiles.copy()
    for index, level in enumerate(LEVELS):
        if index != _MIDDLE:
            # Of how many distances the target was on the quantile's side of the median.
            ratio = error[..., 0] / distance[origins, :, index]
            share = level if index > _MIDDLE else 1 - level
            stretch = np.maximum(np.quantile(ratio, share, axis=0), 0)
            moved[..., index] = median[..., 0] + stretch * distance[..., index]
    return forecast._replace(quantiles=np.sort(moved, -1))
