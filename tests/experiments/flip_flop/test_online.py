"""The flip-flop learned online: gradients, updates of a step, the stream, and a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrnn as rnn
from docs.tools import flip_flop_online
from experiments.flip_flop import online
from experiments.flip_flop.train import Model
from tests.support.results import read_results


def small(**changes):
    options = dict(cell="gru", hidden=4, bits=2, rows=2, steps=12, chunk=6, seeds=1)
    return online.Config(**(options | changes))


def test_the_stream_is_one_sequence():
    config = small(steps=40, chunk=8, rate=0.2)
    chunks = list(online.make_stream(config, 0))
    assert len(chunks) == 5
    memory = np.zeros((2, 2))
    xs, targets = (np.concatenate(part) for part in zip(*chunks, strict=True))
    for x, target in zip(xs, targets, strict=True):
        memory = np.where(x != 0, x, memory)
        np.testing.assert_array_equal(target, memory)
    assert np.abs(xs[0]).all() and not np.abs(xs[8]).all()


def test_updates_of_rtrl_are_gradients_of_the_whole_past():
    """With constant parameters, their sum is the gradient of back-propagation."""
    config = small()
    model = Model(rnn.GRU(4), 2)
    params = model.init(jax.random.key(0))
    batch = next(online.make_stream(config, 0))
    optimizer = optax.chain(optax.trace(1.0), optax.scale(0.0))  # sums, and no change
    init, learn = online.make_online(model, rnn.learning.RTRL(), optimizer)
    (after, opt_state, _), value = learn(init(params, 2, jax.random.key(1)), *batch)
    for leaf, before in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(leaf, before)

    def total(params):
        outputs = model.apply(params, jnp.asarray(batch.inputs))
        return jnp.square(outputs - batch.targets).mean(axis=(1, 2)).sum()

    expected, gradient = jax.value_and_grad(total)(params)
    np.testing.assert_allclose(value, expected / len(batch.inputs), rtol=1e-5)
    for found, wanted in zip(
        jax.tree.leaves(opt_state[0].trace), jax.tree.leaves(gradient), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_unknown_rules_are_named():
    with pytest.raises(ValueError, match=r"rules must be among .* got \['Hebb'\]"):
        small(rules=("RTRL", "Hebb"))


@pytest.mark.thorough
def test_two_steps_of_every_rule(tmp_path):
    config = small(out=tmp_path)
    results = online.main(config)
    assert [result.rule for result in results] == list(config.rules)
    by_name = {result.rule: result for result in results}
    for result in results:
        assert result.losses.shape == (1, 2) and np.isfinite(result.losses).all()
    # Influence [rows, state, parameters] of RTRL; SnAp(1) keeps one row of the state a parameter.
    assert by_name["RTRL"].nbytes > 2 * by_name["SnAp(1)"].nbytes
    assert by_name["TBPTT(10)"].nbytes > by_name["TBPTT(1)"].nbytes
    written = read_results(tmp_path)
    for result in results:
        assert written[result.rule].values == pytest.approx(result.last)
        assert written[f"{result.rule}, bytes"].mean == result.nbytes
    assert (tmp_path / "online.png").stat().st_size > 10_000


@pytest.mark.thorough
def test_the_page_shows_what_was_measured(tmp_path):
    data, page, picture = (tmp_path / name for name in ("data.json", "page.md", "picture.svg"))
    flip_flop_online.measure(small(rules=("RTRL", "SnAp(2)", "BPTT"), out=tmp_path), data)
    mark = flip_flop_online.MARK
    page.write_text(f"Before.\n<!-- {mark} -->\nold\n<!-- end of {mark} -->\nAfter.\n")
    flip_flop_online.write(data, page, picture)
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n") and "old" not in text
    assert "the last 1 of 12 steps" in text
    drawn = picture.read_text()
    assert "RTRL, SnAp(2)" in drawn and "BPTT" in drawn  # the same for a GRU
