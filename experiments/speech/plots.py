"""Plots: when each letter is predicted, and error rates by the amount of training data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.speech.corpora import Utterance
from experiments.speech.data import BLANK, HOP, LETTERS, Frontend, log_mel


def plot_alignment(
    path: Path, utterance: Utterance, frontend: Frontend, probabilities: np.ndarray
) -> None:
    """Plots the log-mel features of an utterance above the probabilities `[time, labels]`."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    figure.suptitle(f"“{utterance.text}”")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.2, 1))
    spectrum = log_mel(utterance.samples, utterance.rate, frontend.bands)
    above.imshow(
        spectrum.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, utterance.seconds, 0, frontend.bands),
        vmin=float(np.percentile(spectrum, 5)),
    )
    above.set_ylabel("mel band")
    times = (np.arange(len(probabilities)) + 0.5) * HOP * frontend.stacked
    below.fill_between(times, probabilities[:, BLANK], color="#dddddd", label="blank")
    labels = probabilities.argmax(1)
    for label in np.unique(labels[labels != BLANK]):
        below.plot(times, probabilities[:, label], linewidth=1)
    for t, label in enumerate(labels):
        if label != BLANK and (t == 0 or labels[t - 1] != label):
            letter = LETTERS[label - 1].replace(" ", "␣")
            below.annotate(letter, (times[t], 1.03), ha="center", fontsize=11)
            above.axvline(times[t], color="white", linewidth=0.4, alpha=0.6)
    below.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.15), xlim=(0, utterance.seconds))
    below.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def plot_learning_curve(path: Path, results: Sequence[Any], baseline: float) -> None:
    """Plots character error rates against minutes of training speech.

    Args:
        path: the PNG file.
        results: values with `minutes`, `greedy`, `beam` and `fused`, which may be None.
        baseline: the error rate of the most common text.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    minutes = [each.minutes for each in results]
    rates = np.array([])
    for field, label, color in (
        ("greedy", "greedy decoding", "#9db8d2"),
        ("beam", "beam search", "#4a7ba6"),
        ("fused", "beam search with language model", "#b3362d"),
    ):
        if getattr(results[0], field) is not None:
            rates = 100 * np.array([getattr(each, field) for each in results])
            axes.plot(minutes, rates, marker="o", color=color, label=label)
    for x, y in zip(minutes, rates, strict=True):
        settings: Any = dict(textcoords="offset points", ha="center", va="top")
        axes.annotate(f"{y:.1f}", (x, y), (0, -8), **settings)
    axes.axhline(100 * baseline, color="#777777", linestyle=":", label="most common text")
    axes.set_xscale("log")
    axes.set_xticks(minutes, [f"{each:.1f}" for each in minutes])
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set(xlabel="minutes of training speech", ylabel="CER, %", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)
