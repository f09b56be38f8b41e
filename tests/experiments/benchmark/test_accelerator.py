"""The script for a device: every part on this machine, and a part that hangs."""

import json

import pytest

import jaxrnn as rnn
from experiments.benchmark import accelerator

TINY = accelerator.Config(time=3, batch=2, hidden=8, repeats=1, rounds=1, lengths=(10,))


needs_kernels = pytest.mark.skipif(
    rnn.engines.Fused()
    .why_not(rnn.GRU(8), *accelerator.work_of(rnn.GRU(8), TINY))
    .startswith("Fused needs"),
    reason="needs JAX 0.11 or newer",
)


@needs_kernels
def test_repeated_runs_are_compared():
    rows = list(accelerator.repeats(TINY))
    assert [row["differing"] for row in rows] == [0, 0]


def test_speed_of_every_engine_is_timed_or_refused(monkeypatch):
    monkeypatch.setattr(accelerator, "TIMED", ("LSTM",))
    rows = list(accelerator.speed(TINY))
    assert [row["engine"] for row in rows if "ms" in row] == ["Hoisted()"] * 2 + [
        "Sequential()"
    ] * 2
    assert [row["engine"] for row in rows if "refused" in row] == ["Fused()", "CuDNN()"]


@needs_kernels
@pytest.mark.thorough
def test_kernels_are_lowered_with_a_part_left_out():
    """On a CPU; each is another program."""
    rows = list(accelerator.split(TINY))
    assert [row["kernels"] for row in rows] == [1, 2] * 8


@pytest.mark.thorough
def test_all_parts_share_a_limit(tmp_path):
    out = tmp_path / "results.json"
    parts = "parallel", "speed"
    accelerator.main(accelerator.Config(parts=parts, total=1.0, out=out))
    results = json.loads(out.read_text())["results"]
    assert "stopped after 1 s" in results["parallel"][-1]["failed"]
    assert results["speed"] == accelerator.run_part("speed", TINY, 0.0)


@pytest.mark.parametrize("limit", [0.0, -3.0])
def test_a_part_without_time_is_not_started(limit, monkeypatch):
    monkeypatch.setattr(accelerator.subprocess, "Popen", None)
    (row,) = accelerator.run_part("speed", TINY, limit)
    assert row["failed"].startswith("not started")


@pytest.mark.thorough
def test_networks_of_cudnn_agree():
    rows = list(accelerator.cudnn(TINY))
    assert len(rows) == 2 * 4 * 2 and all(row["error"] < 1e-5 and row["ms"] > 0 for row in rows)


@pytest.mark.thorough
def test_a_part_that_takes_too_long_is_stopped(tmp_path):
    out = tmp_path / "results.json"
    accelerator.main(accelerator.Config(parts=("parallel",), limit=1.0, out=out))
    assert "stopped after 1 s" in json.loads(out.read_text())["results"]["parallel"][-1]["failed"]
