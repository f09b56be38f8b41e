"""Pictures of speech: when each letter is said, and what more speech to learn from is worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.speech.data import BLANK, LETTERS


def draw_alignment(
    path: Path,
    text: str,
    seconds: float,
    spectrum: np.ndarray,
    probabilities: np.ndarray,
    step: float,
) -> None:
    """Draws the spectrum of an utterance, and below it when the network says which letter.

    Args:
        path: the picture.
        text: what was said.
        seconds: its duration.
        spectrum: log-mel `[frames, bands]`.
        probabilities: of the labels, `[time, labels]`.
        step: the seconds of one time step.
    """
    figure = Figure(figsize=(13, 6), layout="constrained")
    figure.suptitle(f"“{text}”")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.2, 1))
    above.imshow(
        spectrum.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, seconds, 0, spectrum.shape[1]),
        vmin=float(np.percentile(spectrum, 5)),
    )
    above.set_ylabel("mel band")
    times = (np.arange(len(probabilities)) + 0.5) * step
    below.fill_between(times, probabilities[:, BLANK], color="#dddddd", label="blank")
    path_labels = probabilities.argmax(1)
    for label in np.unique(path_labels):
        if label != BLANK:
            below.plot(times, probabilities[:, label], linewidth=1)
    for t, label in enumerate(path_labels):
        if label != BLANK and (t == 0 or path_labels[t - 1] != label):
            letter = LETTERS[label - 1].replace(" ", "␣")
            below.annotate(letter, (times[t], 1.03), ha="center", fontsize=11)
            above.axvline(times[t], color="white", linewidth=0.4, alpha=0.6)
    below.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.15), xlim=(0, seconds))
    below.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def draw_amounts(path: Path, scores: Sequence[Any], baseline: float) -> None:
    """Draws error rates against minutes of speech to learn from.

    Args:
        path: the picture.
        scores: values with `minutes`, `greedy`, `beam` and `fused`, which may be None.
        baseline: the error rate of the commonest text.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    minutes = [each.minutes for each in scores]
    curves = (
        ("greedy", [each.greedy for each in scores], "#9db8d2"),
        ("beam", [each.beam for each in scores], "#4a7ba6"),
        ("beam with a model of the letters", [each.fused for each in scores], "#b3362d"),
    )
    drawn = [curve for curve in curves if None not in curve[1]]
    for label, rates, color in drawn:
        axes.plot(minutes, 100 * np.array(rates), marker="o", color=color, label=label)
    for x, rate in zip(minutes, drawn[-1][1], strict=True):
        place = (x, 100 * rate), (0, -8)
        axes.annotate(
            f"{100 * rate:.1f}", *place, textcoords="offset points", ha="center", va="top"
        )
    axes.axhline(100 * baseline, color="#777777", linestyle=":", label="always the commonest text")
    axes.set_xscale("log")
    axes.set_xticks(minutes, [f"{each:.1f}" for each in minutes])
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set(xlabel="minutes of speech in training", ylabel="letters wrong, %", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)
