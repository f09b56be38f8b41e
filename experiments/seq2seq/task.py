"""What translation and pronunciation share: options, training task, beam search."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments.common import options as _options
from experiments.common.data.batching import Batches, Size, Tokens, chunks
from experiments.common.options import CellName, EngineName, make_cell, make_engine
from experiments.common.training import Task
from experiments.seq2seq.attention import Additive, Multiplicative
from experiments.seq2seq.model import Decoder, Params, Seq2Seq, beam_decode
from jaxrnn.layers import Bidirectional, Recurrent, Stack

AttentionName = Literal["additive", "multiplicative"]


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The model, and the batches that it reads."""

    cell: CellName = "lstm"
    """Recurrent cell of encoder and decoder."""
    engine: EngineName = "auto"
    """Engine that runs the encoder over time."""
    attention: AttentionName = "additive"
    """Attention mechanism."""
    layers: int = 1
    """Recurrent layers of encoder and decoder."""
    hidden: int = 256
    """Hidden size of each layer and direction."""
    embed: int = 64
    """Embedding size."""
    dropout: float = 0.1
    """Dropout rate of embeddings, memory and outputs."""
    smoothing: float = 0.0
    """Label smoothing: weight of the uniform distribution."""
    batch: int = 64
    """Pairs of a batch, of similar lengths."""
    width: int = 5
    """Beam width on the held-out data."""
    export: Path | None = None
    """ONNX files to write the trained model to, for serving: with this name and the endings
    .encoder.onnx and .decoder.onnx."""

    def __post_init__(self):
        _options.check_at_least(1, self, "layers", "hidden", "embed", "batch", "width")
        _options.check_rate(self, "dropout", "smoothing")


def make_seq2seq(
    config: Seq2SeqConfig,
    sources: int,
    targets: int,
    first_gloss: int | None = None,
    coverage: bool = False,
) -> Seq2Seq:
    """The model for two vocabulary sizes; see `Seq2Seq` and `Decoder` for the other arguments."""
    cell, engine = make_cell(config.cell, config.hidden), make_engine(config.engine)
    layer = Recurrent(cell, engine=engine)
    attention = Additive if config.attention == "additive" else Multiplicative
    decoder = Decoder(
        stack=Stack((cell,) * config.layers),
        attention=attention(config.hidden),
        symbols=targets,
        embed=config.embed,
        size=config.hidden,
        dropout=config.dropout,
        copies=first_gloss is not None,
        coverage=coverage,
    )
    encoder = Stack((Bidirectional(layer, layer),) * config.layers, dropout=config.dropout)
    return Seq2Seq(
        sources, config.embed, encoder, decoder, config.dropout, config.smoothing, first_gloss
    )


def make_task(
    name: str,
    model: Seq2Seq,
    batches: Batches,
    valid: tuple[Tokens, Tokens],
    *,
    unit: str,
    loss_unit: str,
) -> Task:
    """Training on `batches`, validated on the sources and targets of `valid`."""
    held_out = list(chunks(*valid, batches.batch_size, batches.sizes))
    full = [pairs for indices, pairs in held_out if len(indices) == batches.batch_size]
    summed_loss = jax.jit(model.loss)

    def loss(params, carry, pairs, key):
        return model.bucketed_loss(params, pairs, key, batches.sizes), carry

    def validate(params):
        """The mean loss of a symbol over all full batches, or over the last one if none is full."""
        losses = [summed_loss(params, pairs) for pairs in full or [held_out[-1][1]]]
        total, count = np.sum(losses, axis=0)
        return {"loss": float(total / count)}

    return Task(
        name=name,
        loss=loss,
        batch=batches,
        own_batch=batches,
        validate=validate,
        units=batches.batch_size,
        unit=unit,
        loss_unit=loss_unit,
    )


def decode_all(
    model: Seq2Seq,
    params: Params,
    sources: Tokens,
    *,
    batch_size: int,
    bucket: int,
    max_length: Callable[[int], int],
    width: int,
    penalty: float = 1.0,
) -> list[np.ndarray]:
    """Beam search for every source: the finite beams, best first, tokens `[beams, length]`.

    Args:
        model: the model.
        params: its parameters.
        sources: token ids of each source.
        batch_size: sources of a batch.
        bucket: source lengths are padded to a multiple of it.
        max_length: the length limit of the output, by the padded length of the source.
        width: beam width; 1 is greedy decoding.
        penalty: length penalty.
    """
    longest = max(map(len, sources))
    sizes = [Size(length, 0) for length in (*range(bucket, longest, bucket), longest)]
    beams: list[np.ndarray] = [np.zeros((0, 0))] * len(sources)
    for indices, (source, _) in chunks(sources, [[]] * len(sources), batch_size, sizes):
        decoded = beam_decode(model, params, source, max_length(len(source)), width, penalty)
        tokens, finite = np.asarray(decoded.tokens), np.isfinite(decoded.scores)
        for row, index in enumerate(indices):
            beams[index] = tokens[:, row, finite[row]].T
    return beams
