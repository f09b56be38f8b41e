"""Character error rate, the language model and its batches, the tuning of shallow fusion."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jaxrnn as rnn
from experiments.common.options import Options
from experiments.speech import decode
from experiments.speech.corpora import Utterance
from experiments.speech.data import LETTERS, encode_letters
from experiments.speech.decode import (
    CharLM,
    character_error_rate,
    load_phrases,
    smoothed_argmin,
    train_language_model,
)


def test_character_error_rates_are_edits_per_reference_letter():
    references = [Utterance("a", "hello", np.zeros(1), 1), Utterance("b", "abc", np.zeros(1), 1)]
    assert character_error_rate(["hallo", "abcdef"], references) == 4 / 8


def test_transcripts_collapse_repeats_and_blanks_and_keep_the_order():
    """Two batches of one utterance each, with certain labels; padding is not decoded."""
    paths, emissions = ["hhe|l|lo", "  a'bbb-"], []
    for index, path in ((1, paths[1]), (0, paths[0])):
        labels = [f"|{LETTERS}".find(letter) for letter in path.replace("-", "z")]
        log_probs = np.log(np.eye(len(LETTERS) + 1, dtype=np.float32)[labels] + 1e-9)
        lengths = np.array([len(path.rstrip("-"))], np.int32)
        emissions.append(
            decode.Emissions(np.array([index]), jnp.asarray(log_probs)[:, None], lengths)
        )
    for width in (None, 2):
        assert decode.transcribe(emissions, width) == ["hello", " a'b"]


def train(phrases, valid, folder, steps=300):
    return train_language_model(
        CharLM(rnn.GRU(24)),
        ["abcd ab", "xyzz"] * 8,
        phrases,
        valid,
        options=Options(steps=steps, out=folder),
        folder=folder,
        identity={},
        console=Console(quiet=True),
    )


@pytest.mark.parametrize("phrases", [[], ["no", "yes it is"]])
def test_batches_of_the_language_model_are_pieces_of_the_joined_texts(
    phrases, tmp_path, monkeypatch
):
    """Three quarters are phrases, if there are any."""
    monkeypatch.setattr(decode, "fit", lambda task, params, *_, **__: (task, params))
    valid = ["xyzz", "abcd ab"]
    task, params = train(phrases, valid, tmp_path)
    rows = ["".join(f"|{LETTERS}"[label] for label in row) for row in task.batch(3).T]
    assert task.batch(3).shape == (65, 32) and (task.batch(3) == task.batch(3)).all()
    assert (task.batch(4) != task.batch(3)).any()
    for row, text in enumerate(rows):
        texts = phrases if phrases and row < 24 else ["abcd ab", "xyzz"]
        assert set(text.split("|")[1:-1]) <= set(texts)
    model, losses = CharLM(rnn.GRU(24)), []
    step = jax.jit(model.step)
    for text in valid:  # from the initial state, each letter and the end
        state, labels = model.init_state(params), [0, *encode_letters(text), 0]
        for label, following in itertools.pairwise(labels):
            state, logits = step(params, state, jnp.int32(label))
            losses.append(-jax.nn.log_softmax(logits)[following])
    np.testing.assert_allclose(task.validate(params)["loss"], np.mean(losses), rtol=1e-5)


@pytest.mark.thorough
def test_the_language_model_learns_what_follows(tmp_path):
    """Of two repeated texts only the choice between them is left to predict."""
    outcome = train([], ["xyzz", "abcd ab"], tmp_path)
    # Two choices of one bit, over twelve letters and ends.
    assert outcome.best["loss"] == pytest.approx(2 * np.log(2) / 13, abs=0.06)


def test_the_minimum_is_that_of_the_smoothed_table():
    table = np.random.default_rng(0).random((6, 4))
    means = np.zeros_like(table)
    for row, column in np.ndindex(table.shape):
        places = itertools.product((row - 1, row, row + 1), (column - 1, column, column + 1))
        around = [table[min(max(r, 0), 5), min(max(c, 0), 3)] for r, c in places]
        means[row, column] = sum(around) / 9
    assert smoothed_argmin(table) == np.unravel_index(means.argmin(), means.shape)
    table[:] = 1.0
    table[1:4, 1:4], table[5, 0] = 0.5, 0.4  # a basin, and an outlier
    assert smoothed_argmin(table) == (2, 2)


def test_held_out_phrases_are_left_out(tmp_path):
    lines = "Bitte warten. :: Please don’t go!\nja :: yes\nzwei Tage :: 2 days\nCafé :: the café"
    (tmp_path / "de-en").write_text(lines)
    assert load_phrases(tmp_path / "de-en", []) == ["please don't go", "two days"]
    assert load_phrases(tmp_path / "de-en", ["please don't go"]) == ["two days"]
