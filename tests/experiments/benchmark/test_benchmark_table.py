"""The tables and the picture of docs/benchmarks.md follow from the measurements."""

import numpy as np
import pytest

from docs.tools.benchmark_table import Times, digits, frameworks_table, plot, spread_table


def row(cell, milliseconds, **work):
    """A row whose contenders have these times forward, and twice these with gradients."""
    shape = {"time": 7, "batch": 3, "inputs": 2, "hidden": 5, "layers": 1, "bidirectional": False}

    def timing(samples):
        samples = [1e3 * sample for sample in samples]
        return {"median_seconds": sorted(samples)[1] / 1e6, "samples_microseconds": samples}

    return {
        "work": {"cell": cell} | shape | work,
        "matrix_rate": {"forward": 2e11, "forward+backward": 1.5e11},
        "entries": [
            {"kind": kind, "title": title, "forward": timing(samples)}
            | {"forward+backward": timing([2 * sample for sample in samples])}
            for (kind, title), samples in milliseconds.items()
        ],
    }


LSTM = {
    ("jaxrnn", "Sequential"): (9.0, 9.0, 9.0),
    ("jaxrnn", "Auto"): (10.0, 20.0, 12.0),
    ("jaxrnn spread", "Auto, a device a core"): (5.0, 10.0, 6.0),
    ("torch", "PyTorch"): (10.0, 10.0, 12.0),
    ("jax", "Haiku"): (30.0, 30.0, 30.0),
    ("jax", "Equinox"): (20.0, 60.0, 24.0),
    ("jax spread", "Haiku, a device a core"): (40.0, 40.0, 42.0),
}
MACHINE = {
    "command": "python -m experiments.benchmark",
    "date": "2020-02-02",
    "threads": 2,
    "processor": "Abacus",
    "versions": {"jax": "0.0", "torch": "1.1"},
}
FOUND = {
    "machine": MACHINE,
    "rows": [
        row("lstm", LSTM, layers=3),
        row("lstm", {who: times for who, times in LSTM.items() if "spread" not in who[0]}),
        row("two-speed", {who: times for who, times in LSTM.items() if who[0] != "torch"}),
    ],
}


def test_ratios_are_medians_of_the_ratios_within_a_round():
    times = Times(FOUND["rows"][0])
    assert times.ratio("jax") == 2  # Equinox: of 2, 3, 2; of the medians it would be 2 as well
    assert times.ratio("torch") == 1  # of 1, 0.5, 1; of the medians it would be 0.83
    assert times.ratio("torch", "jaxrnn spread") == 2


def test_tables():
    lines = frameworks_table(FOUND).splitlines()
    assert lines[2:5] == [
        "| LSTM | 7, 3, 2, 5, 3 layers | 24.0 / 48.0 | 10.0 / 20.0 | 12.0 / 24.0 | 2.00, 1.00 |",
        "|  | 7, 3, 2, 5 | 24.0 / 48.0 | 10.0 / 20.0 | 12.0 / 24.0 | 2.00, 1.00 |",
        "| two-speed cell | 7, 3, 2, 5 | 24.0 / 48.0 | – | 12.0 / 24.0 | 2.00 |",
    ]
    text = " ".join(lines[6:])
    assert "150 to 200 GFLOP/s), jax 0.0, torch 1.1" in text and "1.00 for LSTM" in text
    assert "2.00 times as fast as the fastest JAX peer" in text
    assert "spread over a device a core, 2.00 (2.00 to 2.00)." in text
    lines = spread_table(FOUND).splitlines()
    assert [line.split(" | ")[-1] for line in lines[2:4]] == ["2.00 |", "1.00 |"]
    assert lines[4] == ""  # no row of another cell
    text = " ".join(lines[5:])
    assert "4.00 times as fast" in text and "7.00 times as the best one" in text


def test_the_picture_has_a_point_for_each_peer_of_each_row():
    axes = plot(FOUND).axes[0]
    assert [np.size(line.get_xdata()) for line in axes.lines] == [3, 2, 2]


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (12.34, "12.3"), (1234.5, "1,234")])
def test_digits(value, text):
    assert digits(value) == text
