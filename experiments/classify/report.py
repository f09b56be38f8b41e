"""What a classification reports: accuracy with its spread, and who was taken for whom."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure


class Answers(NamedTuple):
    """The probabilities that a run gave to sequences it was not trained on."""

    probabilities: np.ndarray  # [sequences, classes]
    labels: np.ndarray  # [sequences]

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float((self.probabilities.argmax(-1) == self.labels).mean())


def confusion(found: Sequence[Answers]) -> np.ndarray:
    """How often each class (a row) was taken for each (a column), over all runs."""
    classes = found[0].probabilities.shape[-1]
    counts = np.zeros((classes, classes), int)
    for answers in found:
        np.add.at(counts, (answers.labels, answers.probabilities.argmax(-1)), 1)
    return counts


def summary(found: Sequence[Answers], part: str) -> str:
    """Accuracy over all runs, in words."""
    each = np.array([answers.accuracy for answers in found])
    right, total = np.trace(confusion(found)), confusion(found).sum()
    spread = f", standard deviation {each.std(ddof=1):.2%}" if len(each) > 1 else ""
    return (
        f"{part}: {each.mean():.2%} right, the mean of {len(each)} runs ({each.min():.2%} to "
        f"{each.max():.2%}{spread}); {total - right} of {total} answers wrong"
    )


def draw(
    path: Path, found: Sequence[Answers], classes: Sequence[str], name: str, part: str
) -> None:
    """Draws who was taken for whom, and how sure the answers were."""
    figure = Figure(figsize=(11.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    counts = confusion(found)
    wrong = counts - np.diag(np.diag(counts))
    # The diagonal would drown what there is to see: it is printed, and not coloured.
    left.imshow(wrong, cmap="Reds", vmin=0, vmax=max(1, wrong.max()) * 1.4)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "#8a97a6" if row == column else "#5c0f0a"
            weight = "normal" if row == column else "bold"
            left.text(column, row, count, ha="center", va="center", color=colour, weight=weight)
    left.set_xticks(range(len(classes)), classes)
    left.set_yticks(range(len(classes)), classes)
    left.set(xlabel="taken for", ylabel="is", title=f"{counts.sum() - np.trace(counts)} mistakes")
    left.spines[:].set_visible(False)
    margins = np.concatenate([_margin(answers) for answers in found])
    order = np.sort(margins)
    share = np.arange(1, len(order) + 1) / len(order)
    right.plot(order, share, color="#2f5d8a", linewidth=2)
    right.axvspan(-1, 0, color="#b3362d", alpha=0.08)
    right.axvline(0, color="#b3362d", linewidth=0.8)
    right.text(-0.97, 0.93, "wrong", color="#b3362d")
    right.text(0.03, 0.93, "right", color="#2f5d8a")
    right.set(
        xlim=(-1, 1.01),
        ylim=(0, 1.01),
        xlabel="probability of the right answer less that of the best other one",
        ylabel="share of sequences with no more than that",
        title="how sure it is",
    )
    right.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{name}. {summary(found, part)}", fontsize=11)
    figure.savefig(path, dpi=130)


def _margin(answers: Answers) -> np.ndarray:
    rows = np.arange(len(answers.labels))
    right = answers.probabilities[rows, answers.labels]
    others = answers.probabilities.copy()
    others[rows, answers.labels] = -1
    return right - others.max(-1)
