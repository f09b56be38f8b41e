"""An encoder-decoder with attention, for pairs of sequences of symbols.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015 (additive attention), and Luong, Pham and Manning, "Effective approaches to attention-based
neural machine translation", 2015 (multiplicative attention, and the attentional vector that is fed
to the next step):

    memory = [encoder(source); embeddings(source)]
    state_t, h_t = cell(state_{t-1}, [embedding(y_{t-1}); a_{t-1}])
    w_t = attention(h_t, memory),    a_t = tanh(W [h_t; sum_s w_ts memory_s])
    p(y_t) = softmax(V a_t)

That the memory holds the embeddings, too, lets a word be translated by itself (Nguyen and Chiang,
"Improving lexical choice in neural machine translation", 2018). The decoder is one cell, written as
it stands above. `jaxrnn.unroll` finds out that the keys of the memory do not change and that V a_t
can be had for all steps at once; `jaxrnn.decoding` runs the same step to write.
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
from experiments._attention import Memory, mix_copies
from experiments._buckets import switch_loss
from experiments._sequences import BEGIN, END, PAD, UNKNOWN, Chunk, Pairs, Size
from jaxrnn.decoding import Decoded, beam_search
from jaxrnn.layers import Stack

Array = jax.Array


def drop(rate: float, x: Any, key: Array | None) -> Any:
    """Dropout, where there is a key."""
    return nn.Dropout(rate, deterministic=key is None).apply({}, x, rng=key)


# Decoder ------------------------------------------------------------------------------------------


class DecoderParams(NamedTuple):
    """Parameters of a `Decoder`, and the memory that it looks at."""

    embedding: Any
    stack: Any
    attention: Any
    combine: Any
    readout: Any
    gate: Any
    memory: Memory | None


class DecoderState(NamedTuple):
    """That of the recurrent layers, the attentional vector of the last step, and the coverage.

    The coverage is the sum of all weights of attention so far, or None where it is not kept.
    """

    stack: Any
    attentional: Array
    coverage: Array | None


@dataclass(frozen=True)
class Decoder:
    """A cell that reads the token before and gives logits of the next one.

    Args:
        stack: its recurrent layers.
        attention: how it compares its state with the memory.
        symbols: how many there are to write.
        embed: the size of a symbol's embedding.
        size: that of the attentional vector.
        dropout: that of embeddings and attentional vectors.
        copies: whether it may write what stands where it looks.
        coverage: whether it sees how much it has looked at each place before.
    """

    stack: Stack
    attention: nn.Module
    symbols: int
    embed: int
    size: int
    dropout: float
    copies: bool = False
    coverage: bool = False

    input_rank = 0

    @property
    def output_size(self) -> int:
        """The number of symbols."""
        return self.symbols

    @property
    def stochastic(self) -> bool:
        """Whether something is dropped."""
        return self.dropout > 0

    def init(self, key: Array, input_size: int, dtype: Any = None) -> DecoderParams:
        """Draws the parameters; `input_size` is the number of the memory's features."""
        keys = jax.random.split(key, 6)
        hidden: Any = self.stack.output_size
        h, one = jnp.zeros((1, hidden)), jnp.zeros((1, 1, input_size))
        coverage = jnp.zeros((1, 1)) if self.coverage else None
        return DecoderParams(
            self._embedding.init(keys[0], jnp.zeros((), jnp.int32)),
            self.stack.init(keys[1], self.embed + self.size),
            self.attention.init(keys[2], h, Memory(one, jnp.ones((1, 1), bool)), coverage),
            self._combine.init(keys[3], jnp.zeros(hidden + input_size)),
            self._readout.init(keys[4], jnp.zeros(self.size)),
            self._gate.init(keys[5], jnp.zeros(self.size)) if self.copies else (),
            None,
        )

    def init_state(self, params: DecoderParams, batch_shape: tuple[int, ...] = ()) -> DecoderState:
        """Zeros."""
        stack = self.stack.init_state(params.stack, batch_shape)
        dtype = jax.tree.leaves(params.embedding)[0].dtype
        memory: Any = params.memory  # None until `encode` has given it
        coverage = jnp.zeros(memory.valid.shape, dtype) if self.coverage else None
        return DecoderState(stack, jnp.zeros((*batch_shape, self.size), dtype), coverage)

    def step(
        self, params: DecoderParams, state: DecoderState, token: Array, *, key: Array | None = None
    ) -> tuple[DecoderState, Array]:
        """One token: `(params, state, token) -> (state, logits)`."""
        state, (logits, _) = self.look(params, state, token, key=key)
        return state, logits

    def look(
        self, params: DecoderParams, state: DecoderState, token: Array, *, key: Array | None = None
    ) -> tuple[DecoderState, tuple[Array, Array]]:
        """The same, with the weights of attention `[rows, time]` beside the logits."""
        keys = (None, None) if key is None else jax.random.split(key)
        embedded = drop(self.dropout, self._embedding.apply(params.embedding, token), keys[0])
        x = jnp.concatenate([embedded, state.attentional], axis=-1)
        stack, h = self.stack.step(params.stack, state.stack, x)
        memory: Any = params.memory  # as above
        weights: Any = self.attention.apply(params.attention, h, memory, state.coverage)
        coverage = None if state.coverage is None else state.coverage + weights
        context = jnp.einsum("bs,bsf->bf", weights, memory.features)
        both = jnp.concatenate([h, context], axis=-1)
        combined: Any = self._combine.apply(params.combine, both)
        attentional = drop(self.dropout, jnp.tanh(combined), keys[1])
        logits: Any = self._readout.apply(params.readout, attentional)
        if self.copies:
            gate: Any = self._gate.apply(params.gate, attentional)
            log_probs = jax.nn.log_softmax(logits)
            logits = mix_copies(log_probs, weights, jax.nn.sigmoid(gate), memory)
        return DecoderState(stack, attentional, coverage), (logits, weights)

    @property
    def _embedding(self) -> nn.Embed:
        return nn.Embed(self.symbols, self.embed, embedding_init=nn.initializers.normal(1.0))

    @property
    def _combine(self) -> nn.Dense:
        return nn.Dense(self.size)

    @property
    def _readout(self) -> nn.Dense:
        return nn.Dense(self.symbols)

    @property
    def _gate(self) -> nn.Dense:
        return nn.Dense(1)


# Encoder and decoder ------------------------------------------------------------------------------


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
        smoothing: how much of each target's probability is spread over all symbols.
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
        cell: Any = self.decoder  # its step calls the input `token`, not `x` as the protocol does
        _, logits = rnn.unroll(cell, decoder, target[:-1], state, key=keys[1])
        log_probs = jax.nn.log_softmax(logits)
        losses = -jnp.take_along_axis(log_probs, target[1:, :, None], axis=-1)[..., 0]
        if key is not None and self.smoothing:
            losses = (1 - self.smoothing) * losses - self.smoothing * log_probs.mean(-1)
        counts = (target[1:] != PAD).astype(losses.dtype)
        return (losses * counts).sum(), counts.sum()

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

        sides = zip(zip(*sizes, strict=True), longest, strict=True)
        index = jnp.maximum(*(jnp.searchsorted(jnp.asarray(most), own) for most, own in sides))
        cut = [partial(cut_to, size) for size in sizes]
        return switch_loss(index, cut, params, source, target, key)

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
    """The targets that beam search finds for sources `[time, rows]`: tokens `[length, rows]`."""
    decoder, state = model.encode(params, source)
    first = jnp.full(source.shape[1:], BEGIN, jnp.int32)
    found = beam_search(
        model.decoder,
        decoder,
        state,
        first,
        length=length,
        width=width,
        end=END,
        length_penalty=penalty,
    )
    return jax.tree.map(lambda leaf: leaf[..., 0], found)


@partial(jax.jit, static_argnums=0)
def look(model: Seq2Seq, params: Params, source: Array, tokens: Array) -> Array:
    """Where the decoder looks when it writes `tokens [length, rows]`: `[length, rows, time]`."""
    decoder, state = model.encode(params, source)
    begin = jnp.full((1, *tokens.shape[1:]), BEGIN, tokens.dtype)
    read = jnp.concatenate([begin, tokens[:-1]])

    def step(state, token):
        state, (_, weights) = model.decoder.look(decoder, state, token)
        return state, weights

    return jax.lax.scan(step, state, read)[1]
