"""A small series with a day, a week, a covariate that drives it, and days off."""

from pathlib import Path

import numpy as np


def write(path: Path, days: int = 70, seed: int = 0) -> Path:
    """Six-hourly load: a daily wave, lower at the week's end and on days off, and temperature."""
    random = np.random.default_rng(seed)
    times = np.datetime64("2021-01-04T00:00") + np.arange(4 * days) * np.timedelta64(360, "m")
    day = np.arange(4 * days) // 4
    off = random.random(days)[day] < 0.1
    temperature = 15 + np.cumsum(random.normal(size=4 * days)) / 3
    load = 100 + 10 * np.sin(np.arange(4 * days) * np.pi / 2) - 15 * (off | (day % 7 > 4))
    load = load + 0.05 * (temperature - 15) ** 2 + random.normal(size=4 * days)
    lines = ["time,load,temperature,off"]
    for row in zip(times, load, temperature, off, strict=True):
        lines.append("{},{:.4f},{:.4f},{}".format(*row).replace("True", "yes"))
    path.write_text("\n".join(lines).replace("False", "no") + "\n")
    return path
