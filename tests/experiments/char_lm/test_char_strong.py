"""Options of the character language model: dropout, a learned initial state, residuals."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.char_lm import train as char_lm
from experiments.char_lm.data import Corpus
from tests.experiments.char_lm.test_char_lm import (
    TEXT,
    command_line,
    plain_losses,
    random_params,
    small,
)

CORPUS = Corpus.of(TEXT)


def parts(**changes):
    config = small(**changes)
    model = char_lm.make_model(config, CORPUS)
    return char_lm.make_task(config, CORPUS, model), model, random_params(model)


# Dropout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["dropout", "variational", "weight_drop"])
def test_dropout_is_for_training_alone(option):
    plain, _, params = parts(layers=2)
    task, model, _ = parts(layers=2, **{option: 0.4})
    assert task.validate(params) == plain.validate(params)
    state = model.init_state(params, 4)
    draw = jax.jit(lambda key: task.loss(params, state, task.batch(0), key)[0])
    first, second, again = (float(draw(jax.random.key(seed))) for seed in (0, 1, 0))
    undropped, _ = plain.loss(params, state, task.batch(0), jax.random.key(0))
    assert first == again and len({first, second, float(undropped)}) == 3


def test_a_cell_without_recurrent_weights_is_named():
    with pytest.raises(ValueError, match="must name fields .*'recurrent_kernel',.*, but the"):
        char_lm.make_model(small(cell="lru", weight_drop=0.1), CORPUS).init(jax.random.key(0))


def test_residual_layers_add_their_inputs_to_their_outputs():
    _, model, params = parts(layers=2, residual=True)
    tokens = jnp.asarray(CORPUS.train[:12].reshape(6, 2))
    # A second LSTM with closed output gates outputs zero, so the sum is the first one's output.
    first, second = params.stack
    shut = second._replace(bias=second.bias.at[-8:].set(-1e9))
    _, logits = model.apply(params._replace(stack=(first, shut)), (None, None), tokens)
    _, single, _ = parts(layers=1)
    _, expected = single.apply(params._replace(stack=(first,)), (None,), tokens)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    assert not np.allclose(model.apply(params, (None, None), tokens)[1], expected, rtol=1e-2)


# The learned state --------------------------------------------------------------------------------


def losses_from(params, tokens, state):
    """`plain_losses` of a model with a learned initial state."""
    return plain_losses(params._replace(stack=(params.stack[0].cell,)), tokens, state)


def test_reset_rows_start_in_the_learned_state():
    _, model, params = parts(learned_state=0.5)
    carried = jax.tree.map(lambda leaf: leaf + 0.7, model.init_state(params, 4))
    (own,) = params.stack
    rows = np.array([True, False, True, True])
    state = model.reset(params, carried, jnp.asarray(rows))
    for leaf, first, before in zip(
        *map(jax.tree.leaves, (state, own.initial, carried)), strict=True
    ):
        np.testing.assert_array_equal(leaf, np.where(rows[:, None], first, before))


def test_training_resets_each_row_at_random():
    """The loss is that of one of the 16 choices of rows to reset."""
    task, model, params = parts(learned_state=0.5)
    (own,) = params.stack
    rows = np.random.default_rng(2).integers(len(CORPUS.vocabulary), size=(4, 7))
    carried = jax.tree.map(lambda leaf: leaf + 0.7, model.init_state(params, 4))
    (going_on,) = jax.tree.map(lambda leaf: leaf[0], carried)
    choices = itertools.product(
        *(
            [losses_from(params, row, state).mean() for state in (going_on, own.initial)]
            for row in rows
        )
    )
    possible = np.array([np.mean(choice) for choice in choices])
    keys = jax.random.split(jax.random.key(0), 64)
    loss = jax.jit(jax.vmap(lambda key: task.loss(params, carried, rows.T, key)[0]))(keys)
    distances = np.abs(np.asarray(loss)[:, None] - possible)
    assert distances.min(1).max() < 1e-5 < np.diff(np.sort(possible)).min() / 2
    resets = [bin(choice).count("1") for choice in distances.argmin(1)]
    assert abs(np.mean(resets) - 2) < 5 / np.sqrt(64)  # binomial, of standard deviation 1


def test_the_learned_state_has_a_gradient_from_reset_rows():
    def gradient(share):
        task, model, params = parts(learned_state=share)
        state = jax.tree.map(jnp.zeros_like, model.init_state(params, 4))
        key = jax.random.key(0)
        slope = jax.grad(lambda p: task.loss(p, state, task.batch(0), key)[0])(params)
        return jax.tree.leaves(slope.stack[0].initial)

    assert all(np.all(leaf != 0) for leaf in gradient(0.999999))
    assert all(np.all(leaf == 0) for leaf in gradient(1e-9))


def test_validation_starts_in_the_learned_state():
    task, _, params = parts(learned_state=0.1, batch=1)
    expected = losses_from(params, CORPUS.valid, params.stack[0].initial).mean()
    np.testing.assert_allclose(task.validate(params)["loss"], expected, rtol=1e-5)


# The configuration and its errors -----------------------------------------------------------------


def test_the_preset_strong():
    assert command_line() == char_lm.Config()
    assert command_line("strong") == char_lm.STRONG
    changed = command_line("strong", "--steps", "7", "--residual", "--variational", "0.5")
    training = dataclasses.replace(char_lm.STRONG.training, steps=7)
    assert changed == dataclasses.replace(
        char_lm.STRONG, training=training, residual=True, variational=0.5
    )


@pytest.mark.parametrize("option", ["variational", "weight_drop", "learned_state"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_invalid_rates_are_refused(option, value):
    with pytest.raises(ValueError, match=rf"{option} must be in \[0, 1\), got {value}"):
        small(**{option: value})


def test_strong_has_fewer_parameters_than_the_transformer():
    model = char_lm.make_model(char_lm.STRONG, Corpus.of("".join(map(chr, range(32, 97))) * 99))
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    embedding, lstm, readout = 65 * 64, 4 * 512 * (64 + 512 + 1), 512 * 65 + 65
    assert count == embedding + lstm + readout
    assert count < 10.7e6
