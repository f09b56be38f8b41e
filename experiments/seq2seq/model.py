"""An encoder-decoder with attention, for pairs of sequences of symbols.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015 (additive attention), and Luong, Pham and Manning, "Effective approaches to attention-based
neural machine translation", 2015 (multiplicative attention, and the attentional vector that is fed
to the next step):

    memory = [encoder(source); embeddings(source)]
    a_0 = tanh(B mean(encoder(source))),    and from there on as `_decoder.py` says

That the memory holds the embeddings, too, lets a word be translated by itself (Nguyen and Chiang,
"Improving lexical choice in neural machine translation", 2018). `jaxrnn.unroll` trains the step of
the decoder, and `jaxrnn.decoding` runs the same one, mixed with its copies, to write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import jaxrnn as rnn
from experiments.common.data.batching import BEGIN, END, PAD, UNKNOWN, Chunk, Pairs, Size, smallest
from experiments.common.data.buckets import switch_loss
from experiments.seq2seq.attention import Memory, cross_entropy
from experiments.seq2seq.decoder import Decoder, DecoderParams, DecoderState, drop
from jaxrnn.decoding import Decoded, beam_search
from jaxrnn.layers import Stack

Array = jax.Array


class Params(NamedTuple):
    """Parameters of `Seq2Seq`."""

    embedding: Any
    encoder: Any
    bridge: Any
    decoder: DecoderParams


@dataclass(frozen=True)
class Seq2Seq:
    """Both halves.

    Args:
        symbols: the size of the vocabulary of sources.
        embed: the size of an embedding.
        encoder: recurrent layers, which may see the source in both directions.
        decoder: the other half.
        dropout: that of embeddings, memory and attentional vectors.
        smoothing: how much of each target's probability is spread over all symbols that could be
            made up.
        first_gloss: the first of the sources' symbols that are those of targets, in their order,
            which the decoder may copy; None: none are.
    """

    symbols: int
    embed: int
    encoder: Stack
    decoder: Decoder
    dropout: float
    smoothing: float = 0.0
    first_gloss: int | None = None

    def init(self, key: Array) -> Params:
        """Draws the parameters."""
        keys = jax.random.split(key, 4)
        features: Any = self.encoder.output_size
        return Params(
            self._embedding.init(keys[0], jnp.zeros((), jnp.int32)),
            self.encoder.init(keys[1], self.embed),
            self._bridge.init(keys[2], jnp.zeros(features)),
            self.decoder.init(keys[3], features + self.embed),
        )

    def encode(
        self, params: Params, source: Array, key: Array | None = None
    ) -> tuple[DecoderParams, DecoderState]:
        """Reads sources `[time, rows]`; gives the decoder its memory and its first state."""
        keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        valid = source != PAD
        xs = drop(self.dropout, self._embedding.apply(params.embedding, source), keys[0])
        lengths = valid.sum(0, dtype=jnp.int32)
        _, ys = self.encoder.apply(params.encoder, None, xs, lengths=lengths, key=keys[1])
        ys = drop(self.dropout, ys, keys[2])
        mean = ys.sum(0) / lengths[:, None].astype(ys.dtype)  # skipped steps give zeros
        features = jnp.swapaxes(jnp.concatenate([ys, xs], axis=-1), 0, 1)
        copies = None
        if self.first_gloss is not None:
            gloss = source >= self.first_gloss
            copies = jnp.where(gloss, source - self.first_gloss + UNKNOWN + 1, PAD).T
        decoder = params.decoder._replace(memory=Memory(features, valid.T, copies))
        state = self.decoder.init_state(decoder, source.shape[1:])
        first: Any = self._bridge.apply(params.bridge, mean)
        return decoder, state._replace(attentional=jnp.tanh(first))

    def loss(self, params: Params, pairs: Pairs, key: Array | None = None) -> tuple[Array, Array]:
        """The summed loss of all symbols of the targets, and their number; with a key: dropout."""
        keys = (None, None) if key is None else jax.random.split(key)
        source, target = map(jnp.asarray, pairs)
        decoder, state = self.encode(params, source, keys[0])
        _, looks = rnn.unroll(self.decoder, decoder, target[:-1], state, key=keys[1])
        smoothing = 0.0 if key is None else self.smoothing
        memory: Any = decoder.memory
        each = cross_entropy(looks, memory, target[1:], smoothing)
        counts = (target[1:] != PAD).astype(each.dtype)
        return (each * counts).sum(), counts.sum()

    def bucketed_loss(
        self, params: Params, pairs: Pairs, key: Array, sizes: tuple[Size, ...]
    ) -> Array:
        """The mean loss of a batch, cut to the smallest of `sizes` that holds it."""
        source, target = map(jnp.asarray, pairs)
        longest = (source != PAD).sum(0).max() - 1, (target != PAD).sum(0).max() - 2

        def cut_to(size, params, source, target, key):
            cut = Pairs(source[: size.source + 1], target[: size.target + 2])
            total, count = self.loss(params, cut, key)
            return total / count

        cut = [partial(cut_to, size) for size in sizes]
        return switch_loss(smallest(sizes, longest, jnp), cut, params, source, target, key)

    @property
    def _embedding(self) -> nn.Embed:
        return nn.Embed(self.symbols, self.embed, embedding_init=nn.initializers.normal(1.0))

    @property
    def _bridge(self) -> nn.Dense:
        return nn.Dense(self.decoder.size)


@partial(jax.jit, static_argnums=0)
def sums(model: Seq2Seq, params: Params, pairs: Pairs) -> tuple[Array, Array]:
    """The summed loss of a batch, and the number of its symbols."""
    return model.loss(params, pairs)


def mean_loss(model: Seq2Seq, params: Params, held_out: Sequence[Chunk], rows: int) -> float:
    """The mean loss of a symbol, over the chunks that have all their rows (else the last one)."""
    full = [chunk.pairs for chunk in held_out if len(chunk.which) == rows]
    results = [sums(model, params, pairs) for pairs in full or [held_out[-1].pairs]]
    total, count = np.sum(results, axis=0)
    return float(total / count)


@partial(jax.jit, static_argnums=(0, 3, 4))
def write(
    model: Seq2Seq, params: Params, source: Array, length: int, width: int, penalty: Any = 1.0
) -> Decoded:
    """What beam search finds for sources `[time, rows]`: tokens `[length, rows, width]`."""
    decoder, state = model.encode(params, source)
    first = jnp.full(source.shape[1:], BEGIN, jnp.int32)
    return beam_search(
        model.decoder.write,
        decoder,
        state,
        first,
        length=length,
        width=width,
        end=END,
        length_penalty=penalty,
    )


@partial(jax.jit, static_argnums=0)
def look(model: Seq2Seq, params: Params, source: Array, tokens: Array) -> Array:
    """Where the decoder looks when it writes `tokens [length, rows]`: `[length, rows, time]`."""
    decoder, state = model.encode(params, source)
    begin = jnp.full((1, *tokens.shape[1:]), BEGIN, tokens.dtype)
    read = jnp.concatenate([begin, tokens[:-1]])

    def step(state, token):
        state, seen = model.decoder.step(decoder, state, token)
        return state, seen.weights

    return jax.lax.scan(step, state, read)[1]
