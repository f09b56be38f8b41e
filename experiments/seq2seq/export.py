"""A trained encoder-decoder as two ONNX files: the encoder, and one step of the decoder.

A server encodes the sources once, and then feeds back to the decoder its states, and the tokens
that it chose, greedily or by beam search; docs/serving.md has such a loop.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.common import export
from experiments.common.data.batching import BEGIN, END, PAD, UNKNOWN
from experiments.seq2seq.attention import copy_log_probs
from experiments.seq2seq.model import Params, Seq2Seq
from experiments.seq2seq.task import Seq2SeqConfig, make_seq2seq


def export_model(
    config: Seq2SeqConfig, model: Seq2Seq, params: Params, console: Console, facts: dict[str, str]
) -> Path:
    """Writes `config.export` with the endings `.encoder.onnx` and `.decoder.onnx`.

    The encoder is `source [time, rows] -> memory, initial`: sources end with the end's token and
    are padded. The decoder is `token [rows], memory, initial -> log_probs [rows, symbols], weights
    [rows, time], final`, where the names of initial and final states differ in their first word.

    Args:
        config: the configuration.
        model: the model that it describes.
        params: its parameters.
        console: where to print.
        facts: what a server must know besides the special tokens.

    Returns:
        The path without an ending, for what else a server needs.
    """
    assert config.export is not None
    symbolic = replace(config, engine="hoisted")  # takes symbolic sizes
    sizes = model.symbols, model.decoder.symbols
    model = make_seq2seq(symbolic, *sizes, model.first_gloss, model.decoder.coverage)
    special = {"pad": PAD, "end": END, "begin": BEGIN, "unknown": UNKNOWN}
    facts = {name: str(token) for name, token in special.items()} | facts
    time, rows = export.sizes()

    def encode(source):
        decoder, state = model.encode(params, source)
        return {"memory": decoder.memory, "initial": state}

    def decode(token, memory, initial):
        decoder = params.decoder._replace(memory=memory)
        final, output = model.decoder.step(decoder, initial, token)
        copies = model.decoder.copies
        scores = copy_log_probs(output, memory) if copies else jax.nn.log_softmax(output.logits)
        return {"log_probs": scores, "weights": output.weights, "final": final}

    source = jax.ShapeDtypeStruct((time, rows), jnp.int32)
    token = jax.ShapeDtypeStruct((rows,), jnp.int32)
    encoded = jax.eval_shape(encode, source)
    path = config.export.with_suffix(
        "" if config.export.suffix == ".onnx" else config.export.suffix
    )
    write = partial(export.write_onnx, console=console, facts=facts)
    write(Path(f"{path}.encoder.onnx"), function=encode, source=source)
    write(Path(f"{path}.decoder.onnx"), function=decode, token=token, **encoded)
    return path
