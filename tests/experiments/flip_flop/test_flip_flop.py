"""The flip-flop: its task, its analysis on a network built by hand, and a run."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrnn as rnn
from experiments.common.options import Options
from experiments.flip_flop import train
from experiments.flip_flop.task import corners, covered_corners, make_batch
from tests.support.results import read_results

pytest.importorskip("optimistix", reason="it comes with the extras: analysis, experiments")


def test_targets_are_the_last_pulses():
    batch = make_batch(np.random.default_rng(0), time=60, rows=5, bits=3, rate=0.2)
    assert batch.inputs.shape == batch.targets.shape == (60, 5, 3)
    memory = np.zeros((5, 3))
    for x, target in zip(*batch, strict=True):
        memory = np.where(x != 0, x, memory)
        np.testing.assert_array_equal(target, memory)
    assert np.abs(batch.inputs[0]).all()
    np.testing.assert_allclose(np.abs(batch.inputs[1:]).mean(), 0.2, atol=0.05)
    assert set(np.unique(batch.inputs)) == {-1, 0, 1}


def test_corners_are_covered_by_exactly_one_output():
    assert covered_corners(0.9 * corners(3), 3) == 8
    assert covered_corners(0.9 * corners(3)[:5], 3) == 5
    assert covered_corners(np.concatenate([corners(2), corners(2)[:1]]), 2) == 3  # one has two
    assert covered_corners(0.4 * corners(2), 2) == 0
    assert covered_corners(np.zeros((0, 3)), 3) == 0


def test_the_analysis_of_a_network_built_by_hand():
    """h' = tanh(2 h + 4 x) for each bit: stable corners, and a saddle for each edge and face."""
    config = train.Config(bits=2, cell="elman", hidden=2, time=30, candidates=300, noise=0.5)
    model = train.make_model(config)
    cell = rnn.cells.ElmanParams(4 * jnp.eye(2), 2 * jnp.eye(2), jnp.zeros(2))
    readout = {"params": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    params = train.Params(cell, readout)
    metrics = train.evaluate(model, params, train.draw(config, 0))
    assert metrics["accuracy"] == 1 and metrics["loss"] < 0.01
    analysis = train.analyze(config, model, params)
    assert analysis.points.jacobian.dtype == np.float64
    found = analysis.summarize(2)
    assert found["stable"] == found["corners"] == 4
    assert found["saddles"] == 5  # one of them, in the middle, is a source
    assert 1.5 < found["dimensions"] <= 2
    np.testing.assert_allclose(analysis.outputs, analysis.points.state.hidden, atol=1e-5)
    assert analysis.trajectories.hidden.shape == (30, 64, 2)


@pytest.mark.thorough
def test_two_steps_write_a_report_and_pictures(tmp_path):
    training = Options(steps=2, warmup=1, validate_every=2, checkpoint_every=2, out=tmp_path)
    config = train.Config(
        time=8, hidden=4, rows=4, seeds=2, candidates=16, noise=0.1, training=training
    )
    result = train.main(config)
    assert len(result.metrics) == len(result.analyses) == 2
    written = read_results(tmp_path)
    for name in ("loss", "stable", "corners", "saddles"):
        assert written[name].values == tuple(metrics[name] for metrics in result.metrics)
    for seed in range(2):
        assert (tmp_path / f"fixed_points_{seed}.png").stat().st_size > 20_000


@pytest.mark.slow
def test_eight_stable_points_in_three_of_three_seeds(tmp_path):
    config = train.Config()
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, out=tmp_path)
    )
    result = train.main(config)
    for metrics in result.metrics:
        assert metrics["accuracy"] > 0.999
        assert metrics["stable"] == metrics["corners"] == 8
        assert metrics["saddles"] >= 6


def test_a_stream_continues_from_its_memory():
    numbers = np.random.default_rng(0)
    memory = np.sign(numbers.normal(size=(4, 3)))
    batch = make_batch(numbers, time=30, rows=4, bits=3, rate=0.1, memory=memory)
    for x, target in zip(*batch, strict=True):
        memory = np.where(x != 0, x, memory)
        np.testing.assert_array_equal(target, memory)
    assert (batch.inputs[0] == 0).any()
