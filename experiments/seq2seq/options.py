"""The encoder-decoder that an experiment's options describe."""

from typing import Any, Literal, get_args

from experiments.common import checks as _checks
from experiments.common.choices import make_cell, make_engine
from experiments.seq2seq.attention import Additive, Multiplicative
from experiments.seq2seq.decoder import Decoder
from experiments.seq2seq.model import Seq2Seq
from jaxrnn.layers import Bidirectional, Recurrent, Stack

AttentionName = Literal["additive", "multiplicative"]
_ATTENTIONS = {"additive": Additive, "multiplicative": Multiplicative}


def check_sizes(config: Any) -> None:
    """Raises `ValueError` for options that make no model."""
    _checks.at_least(1, config, "layers", "hidden", "embed", "batch", "width")
    _checks.rate(config, "dropout", "smoothing")
    _checks.one_of(get_args(AttentionName), config, "attention")


def make_seq2seq(
    config: Any,
    sources: int,
    targets: int,
    first_gloss: int | None = None,
    coverage: bool = False,
) -> Seq2Seq:
    """The model of so many symbols on each side; see `Seq2Seq` and `Decoder` for the others."""
    cell, engine = make_cell(config.cell, config.hidden), make_engine(config.engine)
    layer = Recurrent(cell, engine=engine)
    encoder = Stack((Bidirectional(layer, layer),) * config.layers, dropout=config.dropout)
    decoder = Decoder(
        stack=Stack((cell,) * config.layers),
        attention=_ATTENTIONS[config.attention](config.hidden),
        symbols=targets,
        embed=config.embed,
        size=config.hidden,
        dropout=config.dropout,
        copies=first_gloss is not None,
        coverage=coverage,
    )
    return Seq2Seq(
        sources, config.embed, encoder, decoder, config.dropout, config.smoothing, first_gloss
    )
