"""Accuracy over runs, and a plot of the confusion matrix and the margins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import accuracy_score, confusion_matrix

_RED, _BLUE = "#b3362d", "#2f5d8a"


class Predictions(NamedTuple):
    """The predictions of one run on held-out sequences, and the true classes."""

    probabilities: np.ndarray  # [sequences, classes]
    labels: np.ndarray  # [sequences]

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return float(accuracy_score(self.labels, self.probabilities.argmax(-1)))

    @property
    def margins(self) -> np.ndarray:
        """Probability of the true class minus that of the most probable other one."""
        true = self.probabilities[np.arange(len(self.labels)), self.labels]
        is_true = np.arange(self.probabilities.shape[1]) == self.labels[:, None]
        return true - np.where(is_true, -1, self.probabilities).max(-1)


def confusion(runs: Sequence[Predictions]) -> np.ndarray:
    """The confusion matrix of all runs together: rows are true classes, columns predicted ones."""
    labels = np.concatenate([run.labels for run in runs])
    predicted = np.concatenate([run.probabilities.argmax(-1) for run in runs])
    return confusion_matrix(labels, predicted, labels=range(runs[0].probabilities.shape[1]))


def summarize(runs: Sequence[Predictions], part: str) -> str:
    """Formats the accuracy over all runs."""
    accuracies, counts = np.array([run.accuracy for run in runs]), confusion(runs)
    std = f", standard deviation {accuracies.std(ddof=1):.2%}" if len(runs) > 1 else ""
    return (
        f"{part}: accuracy {accuracies.mean():.2%}, the mean of {len(runs)} runs "
        f"({accuracies.min():.2%} to {accuracies.max():.2%}{std}); "
        f"{counts.sum() - np.trace(counts)} of {counts.sum()} predictions wrong"
    )


def plot_confusion(
    path: Path, runs: Sequence[Predictions], classes: Sequence[str], name: str, part: str
) -> None:
    """Plots the confusion matrix, and the distribution of the margins."""
    figure = Figure(figsize=(11.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _plot_matrix(left, confusion(runs), classes)
    _plot_margins(right, np.sort(np.concatenate([run.margins for run in runs])))
    figure.suptitle(f"{name}. {summarize(runs, part)}", fontsize=11)
    figure.savefig(path, dpi=130)


def _plot_matrix(axes: Any, counts: np.ndarray, classes: Sequence[str]) -> None:
    wrong = counts - np.diag(np.diag(counts))
    # The diagonal is printed but not colored: it would hide the errors.
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=max(1, wrong.max()) * 1.4)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color, weight = ("#8a97a6", None) if row == column else ("#5c0f0a", "bold")
            axes.text(column, row, count, ha="center", va="center", color=color, weight=weight)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"confusion matrix, {wrong.sum()} errors")
    axes.spines[:].set_visible(False)


def _plot_margins(axes: Any, margins: np.ndarray) -> None:
    axes.plot(margins, np.arange(1, len(margins) + 1) / len(margins), color=_BLUE, linewidth=2)
    axes.axvspan(-1, 0, color=_RED, alpha=0.08)
    axes.axvline(0, color=_RED, linewidth=0.8)
    axes.text(-0.97, 0.93, "wrong", color=_RED)
    axes.text(0.03, 0.93, "correct", color=_BLUE)
    axes.set(xlim=(-1, 1.01), ylim=(0, 1.01), title="cumulative distribution of the margin")
    label = "margin: probability of the true class minus that of the best other one"
    axes.set(xlabel=label, ylabel="share of sequences with at most this margin")
    axes.spines[["top", "right"]].set_visible(False)
