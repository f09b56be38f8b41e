"""Gradient flow: the measurement, the table, the plot's labels, and a run."""

import jax
import numpy as np
import pytest

import jaxrnn as rnn
from experiments.common.options import Options
from experiments.common.plots import separate
from experiments.long_memory import gradient_flow
from experiments.long_memory.model import Model
from tests.support.results import read_results


def test_sizes_are_medians_over_sequences_by_lag():
    """Of the encoded inputs: a diagonal recurrence has the powers of its radius."""
    inputs = np.random.default_rng(0).normal(size=(7, 5, 2)).astype("f4")
    model = Model(rnn.LRU(4), 1, 6)
    params = model.init(jax.random.key(0), 2)
    radius = np.exp(-np.exp(np.asarray(params.cell.log_decay)))
    expected = [np.log(np.mean(radius ** (2 * lag))) / 2 for lag in range(8)]
    # An estimate with 32 probes has an error of a few per cent.
    np.testing.assert_allclose(gradient_flow.measure(model, params, inputs), expected, atol=0.4)


def test_a_run_of_two_cells(tmp_path, monkeypatch):
    names = ("LSTM, chrono", "Elman")
    monkeypatch.setattr(gradient_flow, "CELLS", {n: gradient_flow.CELLS[n] for n in names})
    training = Options(steps=2, warmup=1, validate_every=2, checkpoint_every=2, out=tmp_path)
    config = gradient_flow.Config(
        length=6, hidden=4, rows=3, measured=2, forget_biases=(-2.0, 2.0), training=training
    )
    result = gradient_flow.main(config)
    assert [flow.name for flow in result.flows] == list(gradient_flow.CELLS)
    for flow in result.flows:
        assert flow.before.shape == flow.after.shape == (7,)
        assert flow.before[0] == flow.after[0] == 0
        assert not np.array_equal(flow.before, flow.after) and flow.error > 0
    assert list(result.by_bias) == ["-2", "2", "chrono"]
    assert result.by_bias["2"][-1] > result.by_bias["-2"][-1] + 1
    written = read_results(tmp_path)
    for flow in result.flows:
        assert written[f"{flow.name}, error"].mean == pytest.approx(flow.error)
        size = flow.after[-1] / np.log(10)
        assert written[f"{flow.name}, trained"].mean == pytest.approx(size)
    assert (tmp_path / "gradient_flow.png").stat().st_size > 50_000
    assert len(list(tmp_path.glob("*/metrics.jsonl"))) == len(gradient_flow.CELLS)


def test_every_cell_can_be_made():
    for make_cell in gradient_flow.CELLS.values():
        assert make_cell(4, 20).output_size >= 4


def test_the_table_shows_powers_of_ten():
    flow = gradient_flow.Flow("LEM", np.log([1, 1e-3]), np.log([1, 0.1]), 0.0123)
    line = gradient_flow.format_table([flow], 1).splitlines()[1]
    assert line.split() == ["LEM", "1e-3.0", "1e-1.0", "0.0123"]


@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_their_order_and_their_distance(seed):
    wanted = np.random.default_rng(seed).uniform(size=12)
    placed = separate(wanted, 0.11)
    order = np.argsort(wanted)
    assert (np.diff(placed[order]) > 0.11 - 1e-9).all()
    np.testing.assert_allclose(placed.mean(), wanted.mean())
    np.testing.assert_allclose(separate(wanted, 0), wanted)
