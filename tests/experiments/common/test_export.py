"""Models that experiments write with --export, in onnxruntime."""

import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from docs.tools import serving_table
from experiments.common.processes import make_console
from tests.support.pages import blocks

onnx = pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra: onnx")


@pytest.fixture(autouse=True)
def as_in_experiments():
    """Single precision, and JAX's own promotion."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def noisy(init, *arguments):
    rng = np.random.default_rng(0)
    params = jax.jit(init, static_argnums=range(1, 1 + len(arguments)))(
        jax.random.key(0), *arguments
    )
    return jax.tree.map(lambda p: p + jnp.asarray(0.1 * rng.normal(size=p.shape), p.dtype), params)


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_char_lm(tmp_path):
    from experiments.char_lm.data import Corpus, parallel_rows
    from experiments.char_lm.train import (
        Config,
        evaluate,
        export_model,
        make_model,
        served_loss,
    )
    from experiments.common.export import compare_quantized

    corpus = Corpus.of("to be or not to be\n" * 9)
    config = Config(cell="elman", layers=2, hidden=5, embed=3, learned_state=0.1, engine="auto")
    model = make_model(config, corpus)
    params = noisy(model.init)
    export_model(config, corpus, params, tmp_path / "model.onnx", make_console())
    served = session(tmp_path / "model.onnx")
    assert served.get_modelmeta().custom_metadata_map == {"vocabulary": corpus.vocabulary}
    tokens = np.random.default_rng(1).integers(0, 5, (6, 2), dtype=np.int32)
    names = [i.name for i in served.get_inputs()][1:]
    state = [np.asarray(leaf) for leaf in jax.tree.leaves(model.init_state(params, 2))]
    _, wanted = model.apply(params, model.init_state(params, 2), tokens)
    pieces = []
    for piece in (tokens[:4], tokens[4:]):  # the state is carried from piece to piece
        feeds = {"tokens": piece, **dict(zip(names, state, strict=True))}
        logits, *state = served.run(None, feeds)
        pieces.append(logits)
    np.testing.assert_allclose(np.concatenate(pieces), wanted, atol=1e-5)
    rows = parallel_rows(corpus.train, 2, 7)
    loss = partial(served_loss, model.init_state(params, 2), rows)
    ours = float(evaluate(model, params, rows))
    np.testing.assert_allclose(loss(served), ours, rtol=1e-5)
    table = compare_quantized(tmp_path / "model.onnx", make_console(), "nats", loss)
    found = json.loads((tmp_path / "model.json").read_text())
    rows = serving_table.quantized_table({"char_lm": found}).splitlines()[2:4]
    assert [row.split(" | ")[1] for row in rows] == ["32 bits", "8 bits"]
    assert [row["loss"] for row in found["rows"]] == pytest.approx([ours, ours], abs=5e-2)
    first, second = (float(line.split()[-1]) for line in table.splitlines()[1:])
    np.testing.assert_allclose([first, second], ours, atol=5e-2)
    assert first != second


@pytest.mark.thorough
def test_speech(tmp_path):
    from experiments.speech.data import Frontend
    from experiments.speech.train import Config, export_model, make_model

    config = Config(cell="gru", layers=2, hidden=4, bands=3, stacked=2)
    model = make_model(config)
    params, rng = noisy(model.init), np.random.default_rng(1)
    frontend = Frontend(3, 2, rng.normal(size=6), rng.uniform(1, 2, size=6))
    export_model(config, frontend, params, tmp_path / "model.onnx", make_console())
    frames = rng.normal(size=(5, 2, 6)).astype("float32")
    lengths = np.array([5, 3], np.int32)
    feeds = {"frames": frames, "lengths": lengths}
    letters, phonemes = session(tmp_path / "model.onnx").run(["letters", "phonemes"], feeds)
    inputs = (frames - frontend.mean) / frontend.deviation
    wanted = model.apply(params, jnp.asarray(inputs, "float32"), lengths)
    np.testing.assert_allclose(letters, jax.nn.log_softmax(wanted[0]), atol=1e-5)
    np.testing.assert_allclose(phonemes, jax.nn.log_softmax(wanted[1]), atol=1e-5)


@pytest.mark.thorough
def test_classify(tmp_path):
    from experiments.classify.train import Config, export_model, make_model

    config = Config(hidden=3, members=2, export=tmp_path / "model.onnx")
    data = SimpleNamespace(train=SimpleNamespace(sequences=[np.zeros((4, 2))]), classes="ab")
    model = make_model(config, data)
    params = noisy(model.init, 2)
    export_model(config, data, params, make_console())
    xs = np.random.default_rng(1).normal(size=(5, 3, 2)).astype("float32")
    lengths = np.array([5, 3, 1], np.int32)
    feeds = {"xs": xs, "lengths": lengths}
    (given,) = session(tmp_path / "model.onnx").run(None, feeds)
    wanted = jax.nn.softmax(model.apply(params, xs, lengths)).mean(0)
    np.testing.assert_allclose(given, wanted, atol=1e-5)


@pytest.mark.thorough
def test_forecast(tmp_path):
    from experiments.forecast.train import Config, export_model, make_model

    config = Config(hidden=3, members=2, horizon=2, export=tmp_path / "model.onnx")
    model = make_model(config)
    params = noisy(model.init, 4)
    export_model(config, 4, params, make_console())
    xs = np.random.default_rng(1).normal(size=(5, 3, 4)).astype("float32")
    (given,) = session(tmp_path / "model.onnx").run(None, {"xs": xs})
    wanted = model.apply(params, xs, slice(4, 5)).mean(0)[0]
    assert given.shape == (3, 2, 6)
    np.testing.assert_allclose(given, wanted, atol=1e-5)


@pytest.mark.thorough
def test_autoencode(tmp_path):
    from experiments.autoencode.train import Config, export_model, make_model, reconstruct

    config = Config(hidden=3, code=2, export=tmp_path / "model.onnx")
    model = make_model(config)
    params = noisy(model.init, 4)
    export_model(config, 4, params, make_console())
    served, rng = session(tmp_path / "model.onnx"), np.random.default_rng(1)
    for time, weeks in ((5, 3), (2, 1)):
        values = rng.normal(size=(time, weeks)).astype("float32")
        calendar = rng.normal(size=(time, weeks, 4)).astype("float32")
        feeds = {"values": values, "calendar": calendar}
        codes, reconstructed = served.run(["codes", "reconstructed"], feeds)
        wanted = reconstruct(model, params, values, calendar)
        np.testing.assert_allclose(codes, wanted[0], atol=1e-5)
        np.testing.assert_allclose(reconstructed, wanted[1], atol=1e-5)


def greedy():
    """The loop of docs/serving.md."""
    (code,) = (block for block in blocks("serving.md") if "greedily" in block)
    names = {"np": np}
    exec(code, names)
    return names["decode_greedily"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "attention, first_gloss, cell", [("additive", 9, "lstm"), ("multiplicative", None, "gru")]
)
def test_encoder_and_decoder(tmp_path, attention, first_gloss, cell):
    from experiments.common.data.batching import BEGIN, END, PAD
    from experiments.seq2seq.export import export_model
    from experiments.seq2seq.model import beam_decode
    from experiments.seq2seq.task import Seq2SeqConfig, make_seq2seq

    sizes = dict(layers=2, hidden=5, embed=3, dropout=0.2)
    config = Seq2SeqConfig(cell, "auto", attention, **sizes, export=tmp_path / "model.onnx")
    coverage = first_gloss is not None
    model = make_seq2seq(config, 12, 7, first_gloss, coverage)
    params = jax.tree.map(lambda leaf: 3 * leaf, noisy(model.init))
    path = export_model(config, model, params, make_console(), {"source": "a\nb"})
    files = [f"{path}.{part}.onnx" for part in ("encoder", "decoder")]
    encoder, decoder = map(session, files)
    facts = encoder.get_modelmeta().custom_metadata_map
    assert facts["source"] == "a\nb" and facts["begin"] == str(BEGIN)
    for lengths in ([6, 3, 1], [2]):
        rng = np.random.default_rng(len(lengths))
        source = np.full((max(lengths) + 1, len(lengths)), PAD, np.int32)
        for row, length in enumerate(lengths):
            source[: length + 1, row] = [*rng.integers(4, 12, length), END]
        tokens = greedy()(encoder, decoder, source, 8)
        wanted = np.asarray(beam_decode(model, params, source, 8, 1).tokens)[..., 0]
        for row, ours in zip(tokens.T, wanted.T, strict=True):  # after its end, a beam only ends
            until = np.flatnonzero([*(row == END), True])[0] + 1
            np.testing.assert_array_equal(row[:until], ours[:until])
        # One more step, of which every output is compared.
        memory, state = model.encode(params, source)
        names = [output.name for output in encoder.get_outputs()]
        feeds = dict(zip(names, encoder.run(None, {"source": source}), strict=True))
        token = rng.integers(4, 7, len(lengths), dtype=np.int32)
        final, scores = model.decoder.search_step(memory, state, token)
        given = decoder.run(None, feeds | {"token": token})
        np.testing.assert_allclose(given[0], jax.nn.log_softmax(scores), atol=1e-4)
        for theirs, ours in zip(given[2:], jax.tree.leaves(final), strict=True):
            np.testing.assert_allclose(theirs, ours, atol=1e-5)
