"""The picture of gradient flow: what is measured, and a run as a whole."""

import json

import jax
import numpy as np
import pytest

import jaxrnn as rnn
from experiments.common.options import Options
from experiments.common.plots import separate
from experiments.long_memory import gradient_flow
from experiments.long_memory.model import Model


def test_what_is_measured_is_the_median_over_sequences_of_what_the_cell_sees():
    model = Model(rnn.LRU(4), 1, 6)
    params = model.init(jax.random.key(0), 2)
    inputs = np.random.default_rng(0).normal(size=(7, 5, 2)).astype("f4")
    radius = np.exp(-np.exp(np.asarray(params.cell.log_decay)))
    expected = [np.log(np.mean(radius ** (2 * lag))) / 2 for lag in range(8)]
    # 32 probes of a diagonal recurrence: an estimate with an error of a few per cent.
    np.testing.assert_allclose(gradient_flow.measure(model, params, inputs), expected, atol=0.4)
    gru = Model(rnn.GRU(4), 1, 6)
    params = gru.init(jax.random.key(0), 2)
    flow = rnn.analysis.gradient_flow(
        gru.cell, params.cell, inputs, probes=32, key=jax.random.key(0)
    )
    found = gradient_flow.measure(gru, params, inputs)
    np.testing.assert_allclose(found, np.median(flow.log_rms, axis=1), rtol=1e-6)


def test_two_steps_of_some_cells(tmp_path, monkeypatch):
    names = ("Elman", "LSTM, chrono", "LEM", "LRU")
    monkeypatch.setattr(gradient_flow, "CELLS", {n: gradient_flow.CELLS[n] for n in names})
    training = Options(steps=2, warmup=1, validate_every=2, checkpoint_every=2, out=tmp_path)
    config = gradient_flow.Config(
        length=6, hidden=4, rows=3, measured=2, forget_biases=(0.0, 2.0), training=training
    )
    result = gradient_flow.main(config)
    assert [flow.name for flow in result.flows] == list(gradient_flow.CELLS)
    for flow in result.flows:
        assert flow.before.shape == flow.after.shape == (7,)
        assert flow.before[0] == flow.after[0] == 0
        assert not np.array_equal(flow.before, flow.after) and flow.error > 0
    assert list(result.by_bias) == ["0", "2", "chrono"]
    assert result.by_bias["2"][-1] > result.by_bias["0"][-1]
    written = json.loads((tmp_path / "flows.json").read_text())
    assert written[3]["error"] == pytest.approx(result.flows[3].error)
    assert (tmp_path / "gradient_flow.png").stat().st_size > 50_000
    assert len(list(tmp_path.glob("*/metrics.jsonl"))) == len(gradient_flow.CELLS)


def test_a_table_says_it_in_numbers():
    flow = gradient_flow.Flow("LEM", np.log([1, 1e-3]), np.log([1, 0.1]), 0.0123)
    line = gradient_flow.describe([flow], 1).splitlines()[1]
    assert line.split() == ["LEM", "1e-3.0", "1e-1.0", "0.0123"]


@pytest.mark.parametrize("seed", range(5))
def test_names_keep_their_order_and_their_distance(seed):
    wanted = np.random.default_rng(seed).uniform(size=12)
    placed = separate(wanted, 0.11)
    order = np.argsort(wanted)
    assert (np.diff(placed[order]) > 0.11 - 1e-9).all()
    np.testing.assert_allclose(placed.mean(), wanted.mean())
    np.testing.assert_allclose(separate(wanted, 0), wanted)
