"""Plots of attention weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.common.data.batching import Tokens, chunks
from experiments.seq2seq.model import Params, Seq2Seq, attention_weights


def plot_attention(
    path: Path,
    model: Seq2Seq,
    params: Params,
    tokens: tuple[Tokens, Tokens],
    symbols: Sequence[tuple[Sequence[str], Sequence[str]]],
    title: str,
) -> None:
    """Plots the attention weights of a few pairs as images, source symbols from left to right.

    Args:
        path: the PNG file.
        model: the model.
        params: its parameters.
        tokens: token ids of the sources and of the targets.
        symbols: source and target symbols of each pair.
        title: title of the figure.
    """
    ((indices, pairs),) = chunks(*tokens, len(symbols))
    weights = np.asarray(attention_weights(model, params, pairs.source, pairs.target[1:]))
    columns = min(2, len(symbols))
    longest = [1 + max(map(len, side)) for side in zip(*symbols, strict=True)]
    lines = -(-len(symbols) // columns)
    width, height = (max(3.0, 0.24 * count + 0.8) for count in longest)
    figure = Figure(figsize=(width * columns, height * lines + 0.4), layout="constrained")
    figure.suptitle(title)
    for row, index in enumerate(indices):
        source, target = ([*side, "end"] for side in symbols[index])
        axes = figure.add_subplot(lines, columns, row + 1)
        shown = weights[: len(target), row, : len(source)]
        axes.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        turned = {"rotation": 60, "ha": "left"} if max(map(len, source)) > 3 else {}
        axes.set_xticks(range(len(source)), source, **turned)
        axes.set_yticks(range(len(target)), target)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
    figure.savefig(path, dpi=120)
