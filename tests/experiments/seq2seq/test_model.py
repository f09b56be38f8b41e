"""The encoder-decoder against plain NumPy: loss, padding, attention, copying, beam search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments.common.data.batching import (
    BEGIN,
    END,
    PAD,
    UNKNOWN,
    Pairs,
    Size,
    pad,
    pair_batches,
)
from experiments.pronunciation.train import Config as PronunciationConfig
from experiments.seq2seq.attention import DecoderOutput, Memory, copy_log_probs, cross_entropy
from experiments.seq2seq.model import attention_weights, beam_decode
from experiments.seq2seq.task import Seq2SeqConfig, make_seq2seq, make_task
from experiments.translation.train import Config as TranslationConfig
from tests.support.rounding import rounding_error, with_noise

SOURCES = [[4, 5, 6, 4], [7], [6, 6], [5, 4, 4]]
TARGETS = [[5, 4], [4, 6, 5], [], [6]]


def config(**changes):
    return Seq2SeqConfig(**dict(hidden=5, embed=3, dropout=0.0, batch=4, width=3) | changes)


def make(seed=0, first_gloss=None, coverage=False, **changes):
    model = make_seq2seq(config(**changes), 8, 7, first_gloss, coverage)
    params = jax.jit(model.init)(jax.random.key(seed))
    random = np.random.default_rng(seed)
    return model, jax.tree.map(
        lambda leaf: jnp.asarray(leaf + 0.4 * random.normal(size=leaf.shape), jnp.float32), params
    )


# The model in NumPy, a pair at a time -------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def lstm(p, state, x):
    h, c = state
    i, f, g, o = np.split(x @ p.input_kernel + h @ p.recurrent_kernel + p.bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def attend(name, p, h, memory, seen):
    p = p["params"]
    seen = dense(p["coverage"], seen[:, None]) if "coverage" in p else np.zeros((len(memory), 1))
    if name == "additive":
        both = dense(p["query"], h) + dense(p["key"], memory) + seen
        return softmax((np.tanh(both) @ p["score"]["kernel"])[:, 0])
    return softmax(memory @ dense(p["query"], h) / np.sqrt(memory.shape[1]) + seen[:, 0])


def plain(params, name, source, target, first_gloss=None):
    """Log-probabilities of all symbols at each target position, and the attention weights."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    (both,) = params.encoder
    xs = [params.embedding["params"]["embedding"][token] for token in [*source, END]]
    directions = []
    for p, order in ((both.forward, 1), (both.backward, -1)):
        state, ys = (np.zeros(5), np.zeros(5)), []
        for x in xs[::order]:
            state, y = lstm(p, state, x)
            ys.append(y)
        directions.append(ys[::order])
    encoded = np.concatenate(directions, axis=1)
    memory = np.concatenate([encoded, xs], axis=1)
    attentional = np.tanh(dense(params.bridge["params"], encoded.mean(0)))
    decoder, state = params.decoder, (np.zeros(5), np.zeros(5))
    log_probs, attended = [], []
    for token in [BEGIN, *target]:
        x = np.concatenate([decoder.embedding["params"]["embedding"][token], attentional])
        state, h = lstm(decoder.stack[0], state, x)
        seen = np.sum([np.zeros(len(memory)), *attended], axis=0)
        attended.append(attend(name, decoder.attention, h, memory, seen))
        both = np.concatenate([h, attended[-1] @ memory])
        attentional = np.tanh(dense(decoder.combine["params"], both))
        probs = softmax(dense(decoder.readout["params"], attentional))
        if first_gloss is not None:
            gate = sigmoid(dense(decoder.gate["params"], attentional))[0]
            copied = np.zeros_like(probs)
            for symbol, weight in zip([*source, END], attended[-1], strict=True):
                if symbol >= first_gloss:
                    copied[symbol - first_gloss + UNKNOWN + 1] += weight
            probs = (1 - gate * copied.sum()) * probs + gate * copied
            np.testing.assert_allclose(probs.sum(), 1.0)
        log_probs.append(np.log(probs))
    return np.array(log_probs), np.array(attended)


def losses(params, name, first_gloss=None, smoothing=0.0):
    """The loss of each target symbol."""
    found = []
    for source, target in zip(SOURCES, TARGETS, strict=True):
        log_probs, _ = plain(params, name, source, target, first_gloss)
        symbols = [*target, END]
        likelihood = log_probs[np.arange(len(symbols)), symbols]
        found += list(-(1 - smoothing) * likelihood - smoothing * log_probs.mean(1))
    return np.array(found)


@pytest.mark.parametrize(("name", "first_gloss"), [("additive", 6), ("multiplicative", None)])
def test_the_loss_ignores_padding(name, first_gloss):
    model, params = make(attention=name, first_gloss=first_gloss, coverage=True)
    pairs = pad(SOURCES, TARGETS, Size(7, 7))
    total, count = jax.jit(model.loss)(params, pairs)
    np.testing.assert_allclose(total, losses(params, name, first_gloss).sum(), rtol=1e-5)
    assert count == sum(len(target) + 1 for target in TARGETS)


def test_attention_weights_are_zero_at_padding():
    model, params = make(first_gloss=6, coverage=True)
    pairs = pad(SOURCES, TARGETS, Size(7, 7))
    weights = np.asarray(attention_weights(model, params, pairs.source, pairs.target[1:]))
    for row, pair in enumerate(zip(SOURCES, TARGETS, strict=True)):
        want = plain(params, "additive", *pair, 6)[1]
        found = weights[: len(want), row]
        np.testing.assert_allclose(found[:, : want.shape[1]], want, rtol=1e-4, atol=1e-6)
        assert (found[:, want.shape[1] :] == 0).all()


def test_the_training_loss_is_smoothed_and_cut_to_a_bucket():
    model, params = make(smoothing=0.3)
    sizes, padded = (Size(4, 3), Size(20, 20)), pad(SOURCES, TARGETS, Size(20, 20))
    found = jax.jit(lambda *given: model.bucketed_loss(*given, sizes))(
        params, padded, jax.random.key(0)
    )
    np.testing.assert_allclose(found, losses(params, "additive", smoothing=0.3).mean(), rtol=1e-5)


def test_dropout_needs_a_key_and_depends_on_it():
    model, params = make(dropout=0.5)
    pairs, loss = pad(SOURCES, TARGETS, Size(4, 4)), jax.jit(model.loss)
    np.testing.assert_allclose(loss(params, pairs)[0], losses(params, "additive").sum(), rtol=1e-5)
    first, second = (loss(params, pairs, jax.random.key(seed))[0] for seed in (0, 1))
    assert first != second and first != loss(params, pairs)[0]


def test_cross_entropy_is_that_of_the_mixture_with_copies():
    random = np.random.default_rng(0)
    logits, weights = random.normal(size=(5, 9)), random.dirichlet(np.ones(6), size=5)
    seen = DecoderOutput(*map(jnp.float32, (logits, weights, random.uniform(size=(5, 1)))))
    copies = jnp.asarray(random.integers(0, 9, size=(5, 6)))
    memory = Memory(jnp.zeros((5, 6, 1)), copies > -1, copies)
    mixture = np.asarray(copy_log_probs(seen, memory))
    np.testing.assert_allclose(np.exp(mixture).sum(1), 1.0, rtol=1e-5)
    uniform = -np.log([softmax(row) for row in logits]).mean(1)
    for symbol in range(9):
        symbols, wanted = jnp.full(5, symbol), -mixture[:, symbol]
        found = cross_entropy(seen, memory, symbols)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        smooth = cross_entropy(seen, memory, symbols, 0.1)
        np.testing.assert_allclose(smooth, 0.9 * wanted + 0.1 * uniform, rtol=1e-5)


def test_a_confident_wrong_copy_has_a_finite_loss():
    random = np.random.default_rng(0)
    weights = jnp.float32(random.dirichlet(np.ones(30), size=500) * (1 + 1e-6))  # rounded up
    seen = DecoderOutput(jnp.zeros((500, 9)), weights, jnp.ones((500, 1)))
    memory = Memory(jnp.zeros((500, 30, 1)), weights > -1, jnp.full((500, 30), 4))

    @jax.jit
    @jax.value_and_grad
    def total(seen):
        return cross_entropy(seen, memory, jnp.full(500, 5)).sum()

    value, gradient = total(seen)
    assert all(np.isfinite(leaf).all() for leaf in [value, *gradient])
    assert np.isfinite(jax.jit(copy_log_probs)(seen, memory)).all()


def test_beam_search_finds_the_best_of_all_targets():
    """Beams as wide as all targets of at most two symbols, against every one of them."""
    model, params = make(first_gloss=6, coverage=True)
    source = pad(SOURCES, TARGETS, Size(4, 4)).source
    decoded = beam_decode(model, params, source, 2, 7 * 7 + 7, 0.0)
    for row, read in enumerate(SOURCES):
        scores = {}
        for first in range(7):
            log_probs, _ = plain(params, "additive", read, [first], 6)
            if first == END:
                scores[END, END] = log_probs[0, END]
            else:
                scores |= {(first, second): log_probs[0, first] + log_probs[1, second]
                           for second in range(7)}  # fmt: skip
        best = max(scores, key=lambda tokens: scores[tokens])
        assert tuple(decoded.tokens[:, row, 0]) == best
        np.testing.assert_allclose(decoded.scores[row, 0], scores[best], rtol=1e-4)


@pytest.mark.parametrize("name", ["additive", "multiplicative"])
def test_bfloat16_rounds_gradients_little(name):
    """A few symbols many times: the sums of 16 bits are off by 0.1 and more."""
    random = np.random.default_rng(0)
    model = make_seq2seq(config(hidden=16, embed=8, attention=name), 12, 8, 8, coverage=True)
    params = with_noise(jax.jit(model.init)(jax.random.key(0)))
    source, target = random.integers(UNKNOWN + 1, 12, (256, 40)), random.integers(4, 8, (256, 20))
    source, target = source.tolist(), target.tolist()
    batches = pair_batches(source, target, 256, 0)
    task = make_task("toy", model, batches, (source, target), unit="pairs", loss_unit="nats")
    assert rounding_error(task, params) < 0.02


def test_any_cell_and_several_layers_make_a_model():
    model = make_seq2seq(config(cell="lem", layers=2), 8, 7)
    assert model.encoder.output_size == 2 * 5
    pairs = pad(SOURCES, TARGETS, Size(4, 4))
    shapes = jax.eval_shape(lambda key: model.loss(model.init(key), pairs), jax.random.key(0))
    assert [leaf.shape for leaf in shapes] == [(), ()]


@pytest.mark.parametrize("kind", [PronunciationConfig, TranslationConfig])
def test_invalid_options_are_refused(kind):
    for name, value, message in (
        ("layers", 0, "layers must be at least 1, got 0"),
        ("dropout", 1.0, r"dropout must be in \[0, 1\), got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(**{name: value})
    parsed = tyro.cli(kind, args=["--attention", "multiplicative", "--training.steps", "7"])
    assert (parsed.attention, parsed.training.steps) == ("multiplicative", 7)


def test_padding_differs_from_symbols():
    pairs = Pairs(*pad([[4]], [[5]], Size(3, 3)))
    assert list(pairs.source[:, 0]) == [4, END, PAD, PAD]
    assert list(pairs.target[:, 0]) == [BEGIN, 5, END, PAD, PAD]
