"""Speech recognition: a run of two steps, the learning curve, options."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.common.options import Options
from experiments.speech import train as speech
from experiments.speech.plots import plot_learning_curve
from tests.support.results import read_results
from tests.support.utterances import utterances, write_ljspeech


@pytest.mark.thorough
def test_speech_runs_two_steps_for_each_amount_and_reports(tmp_path, capsys, monkeypatch):
    asked = []

    def load_cmudict(**where):
        asked.append(where)
        return {word: [["B", "IY"]] for u in utterances() for word in u.text.split()}

    monkeypatch.setattr(speech.dictionaries, "load_cmudict", load_cmudict)
    (tmp_path / "de-en").write_text("".join(f"Wort {i} :: a word or {i}\n" for i in range(99)))
    result = speech.main(
        speech.Config(
            layers=1,
            hidden=3,
            bands=4,
            stacked=1,
            batch=8,
            width=3,
            letters=4,
            speeds=(1.0,),
            amounts=(0.5, 1.0),
            dictionary=tmp_path / "de-en",
            data=write_ljspeech(tmp_path / "data", 16, 80),  # one length: one size is compiled
            training=Options(steps=2, warmup=1, log_every=1, out=tmp_path / "run"),
        )
    )
    assert len(asked) == 2 and asked[0]["wheel"] is None and "--phonemes 0" in asked[0]["option"]
    out = capsys.readouterr().out
    half, whole = result.metrics
    assert half.minutes < whole.minutes and 0.5 < result.baseline < 2
    assert all(0 < rate < 5 for rate in whole[1:])
    assert "by beam search with language model" in out and "held-out prompts:" in out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"alignment.png", "curves.png", "learning-curve.png", "texts.txt"} <= names
    assert (tmp_path / "run/letters-4-english/metrics.jsonl").is_file()
    assert (tmp_path / "run/amount-0.5/alignment.png").is_file()
    written = read_results(tmp_path / "run")
    assert written["fused"].mean == pytest.approx(whole.fused)
    assert written["greedy, 50%"].mean == pytest.approx(half.greedy)
    assert written["minutes, 50%"].mean == pytest.approx(half.minutes)
    assert written["most common text/greedy"].mean == pytest.approx(result.baseline)


@pytest.mark.parametrize("fused", [None, 0.25])
def test_the_learning_curve_has_a_line_per_decoder(tmp_path, monkeypatch, fused):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure))
    results = [speech.Metrics(minutes, 0.5 / minutes, 0.4 / minutes, fused) for minutes in (1, 2)]
    plot_learning_curve(tmp_path / "curve.png", results, 0.9)
    (axes,) = figures[0].axes
    curves = [line.get_ydata() for line in axes.lines[:-1]]
    want = [(50, 25), (40, 20)] + [(25, 25)] * (fused is not None)
    np.testing.assert_allclose(curves, want)
    assert [text.get_text() for text in axes.texts] == [f"{rate:.1f}" for rate in want[-1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"letters": -1}, "letters must be 0 or more, got -1"),
        ({"amounts": ()}, r"amounts must be in \(0, 1\], got \(\)"),
        ({"amounts": (2.0,)}, r"amounts must be in \(0, 1\], got \(2.0,\)"),
        ({"speeds": (0.1,)}, "speeds must be between 0.5 and 2"),
    ],
)
def test_invalid_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        speech.Config(**change)
