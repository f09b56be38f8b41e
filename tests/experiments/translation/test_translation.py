"""Translation: the split, glosses, subwords, IBM Model 1, metrics, and a run of two steps."""

import json

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from experiments.common.data.batching import UNKNOWN
from experiments.common.errors import UserError
from experiments.common.options import Options
from experiments.translation import train as translation
from experiments.translation.data import GLOSS, Glosses, Tokenizer, is_sentence, split
from experiments.translation.ibm_model1 import IBMModel1
from experiments.translation.metrics import evaluate, minimum_bayes_risk
from experiments.translation.subwords import Subwords, join
from tests.support.results import read_results

NOUNS = ("Hund dog", "Baum tree", "Mann man", "Tisch table", "Vogel bird", "Stein stone")
VERBS = ("sieht sees", "kennt knows", "malt paints")
# Words that occur in every sentence cannot be aligned, so there are two articles.
PAIRS = [
    (f"{x.split()[0]} {a.split()[0]} {v.split()[0]} {y.split()[0]} {b.split()[0]}en.",
     f"{x.split()[1]} {a.split()[1]} {v.split()[1]} {y.split()[1]} {b.split()[1]}.")
    for x in ("Der The", "Ein A") for a in NOUNS for v in VERBS
    for y in ("den the", "jeden every") for b in NOUNS
]  # fmt: skip


def test_no_training_pair_shares_a_side_with_a_held_out_sentence():
    pairs = [
        *PAIRS,
        *((de + " !", en.upper()) for de, en in PAIRS),
        *(("Ja, " + de, en) for de, en in PAIRS),
        ("Hund", "dog"),
        ("der Hund", "the dog"),
    ]
    parts = split(pairs, is_sentence)
    alike = lambda text: "".join(filter(str.isalnum, text.lower()))  # noqa: E731
    for side in (0, 1):
        held = [{alike(pair[side]) for pair in part} for part in (parts.valid, parts.test)]
        trained = {alike(pair[side]) for pair in parts.train + parts.phrases + parts.words}
        assert held[0] and held[1] and not trained & (held[0] | held[1])
        assert not held[0] & held[1]
    assert parts.words == [("Hund", "dog")] and parts.phrases == [("der Hund", "the dog")]
    with pytest.raises(UserError, match="0 sentences give 0 for validation and 0 for the test"):
        split([("Hund", "dog")], is_sentence)


def test_encode_and_decode_are_inverse():
    parts = split(PAIRS, is_sentence)
    tokenizer = Tokenizer.fit(parts, 40)
    _, targets = tokenizer.encode(parts.train)
    for (_, target), numbers in zip(parts.train, targets, strict=True):
        assert join(tokenizer.target.decode(numbers)) == target


def test_glosses_follow_words_and_come_from_a_table_fitted_without_the_pair():
    # "Kater" occurs in one training sentence only.
    texts = split([*PAIRS, ("Hund", "dog"), ("Ein Kater malt.", "A cat paints.")], is_sentence)
    table = IBMModel1.fit(texts.train + texts.phrases + texts.words)
    tokenizer = Tokenizer.fit(texts, 60, Glosses.fit(texts, table))
    for text, _ in texts.test[:5]:
        parts = tokenizer.split_source(text)
        plain = [part for part in parts if not part.startswith(GLOSS)]
        gloss = [part.removeprefix(GLOSS) for part in parts if part.startswith(GLOSS)]
        assert plain == tokenizer.subwords.split(text)
        words = [table.gloss(f"▁{word}") for word in text.rstrip(".").split()]
        assert join(gloss) == join(words)
        assert all(number > UNKNOWN for number in tokenizer.source.encode(parts))
    rare = "Ein Kater malt."
    english = lambda **options: "".join(tokenizer.split_source(rare, **options)).replace(GLOSS, "")  # noqa: E731
    assert "cat" in english() and "cat" not in english(training=True)
    assert tokenizer.encode([(rare, "")], training=True) != tokenizer.encode([(rare, "")])
    first = tokenizer.target.symbols[0]  # the decoder copies the same subword
    assert tokenizer.source.encode([f"{GLOSS}{first}"]) == [tokenizer.first_gloss]
    assert tokenizer.target.encode([first]) == [UNKNOWN + 1]


@pytest.mark.thorough
def test_translation_runs_two_steps_and_reports(tmp_path, capsys):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{de}\t{en}\n" for de, en in PAIRS), encoding="utf-8")
    options = Options(steps=2, warmup=1, log_every=1, validate_every=1, out=tmp_path / "run")
    pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")
    sizes = dict(hidden=4, embed=3, merges=200, batch=8, width=2)
    export = tmp_path / "run" / "served.onnx"
    small = translation.Config(**sizes, data=path, export=export, training=options)
    result = translation.main(small)
    out = capsys.readouterr().out
    assert result.outcome.step == 2
    assert result.baseline.bleu > 90  # these sentences align word by word
    assert (
        "(IBM Model 1): BLEU" in out
        and "minimum Bayes risk of 2: BLEU" in out
        and "samples:" in out
    )
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"attention.png", "curves.png", "samples.txt", "metrics.jsonl"} <= names
    written = read_results(tmp_path / "run")
    assert written["beam_bleu"].mean == pytest.approx(result.beam.bleu)
    assert written["minimum_bayes_risk_chrf"].mean == pytest.approx(result.minimum_bayes_risk.chrf)
    assert written["IBM Model 1/bleu"].mean == pytest.approx(result.baseline.bleu)
    served = "encoder.onnx decoder.onnx subwords.model glosses.json".split()
    assert {f"served.{ending}" for ending in served} <= names
    glosses = json.loads((tmp_path / "run/served.glosses.json").read_text(encoding="utf-8"))
    assert glosses["▁hund"] == "▁dog"


def test_metrics_are_those_of_sacrebleu():
    found, wanted = ["the dog sees the big tree"], ["the dog saw the big tree ."]
    scores = evaluate(found, wanted)
    assert scores.bleu == sacrebleu.corpus_bleu(found, [wanted]).score
    assert 0 < scores.bleu < scores.chrf < 100


def test_minimum_bayes_risk_chooses_the_most_similar_candidate():
    between = "the dog saw a big tree"  # shares words with each of the others but the cat
    others = ["a cat", "the dog sees the big tree", "the dog saw the tree"]
    assert (
        minimum_bayes_risk([*others, between]) == between == minimum_bayes_risk([between, *others])
    )
    assert minimum_bayes_risk(["cat", "cat", between]) == "cat"  # two of three agree
    assert minimum_bayes_risk(["a cat", "dog"]) == "a cat"  # no letter in common: the first


# Subwords -----------------------------------------------------------------------------------------

one_text = st.text("abcdéß ,.!'", max_size=20).filter(str.strip)
texts = st.lists(one_text, min_size=1, max_size=8)


@given(read=texts, other=st.text("abcdeéxyzß ,.!?'", max_size=20))
def test_joined_subwords_give_the_text_back(read, other):
    subwords = Subwords.learn(read, 10)
    assert join(subwords.split(other)) == " ".join(other.split())


def test_merges_are_those_that_their_paper_makes():
    """The paper's own example: low 5, lower 2, newest 6, widest 3 times."""
    text = " ".join(["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3)
    subwords = Subwords.learn([text], 4)  # e s, es t, l o, lo w
    for word, parts in (("newest", "▁ n e w est"), ("lower", "▁ low e r"), ("est", "▁ est")):
        assert subwords.split(word) == parts.split()
    assert Subwords.learn([text], 1000).split("newest widest") == ["▁newest", "▁widest"]


# IBM Model 1 --------------------------------------------------------------------------------------


def test_the_table_is_that_of_expectation_maximization_by_hand():
    pairs = [("das Haus", "the house"), ("das Buch", "the book"), ("ein Buch", "a book"),
             ("Haus", "house"), ("das kleine Haus", "the small house")]  # fmt: skip
    split = [
        (["", *(f" {w}" for w in de.lower().split())], [f" {w}" for w in en.split()])
        for de, en in pairs
    ]
    chance = {(f, e): 1.0 for fs, es in split for f in fs for e in es}
    for _ in range(5):
        counts = dict.fromkeys(chance, 0.0)
        for fs, es in split:
            for e in es:
                total = sum(chance[f, e] for f in fs)
                for f in fs:
                    counts[f, e] += chance[f, e] / total
        totals = {}
        for (f, _), n in counts.items():
            totals[f] = totals.get(f, 0) + n
        chance = {(f, e): n / totals[f] for (f, e), n in counts.items()}
    best = {}
    for (f, e), n in chance.items():
        if f and (f not in best or n > chance[f, best[f]]):
            best[f] = e
    table = IBMModel1.fit(pairs, iterations=5).table
    assert {f.replace("▁", " "): e.replace("▁", " ") for f, e in table.items()} == best


def test_unknown_words_and_a_capital_are_kept():
    table = IBMModel1.fit([("das Haus", "the house"), ("das", "the"), ("Haus", "house")])
    assert table.translate("Das Haus, Pünktchen") == "The house, Pünktchen"
