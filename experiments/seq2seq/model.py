"""An encoder-decoder with attention, for pairs of token sequences.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015, and Luong, Pham and Manning, "Effective approaches to attention-based neural machine
translation", 2015 (input feeding: the attentional vector a_t is an input of the next step):

    memory = [encoder(source); embeddings(source)],    a_0 = tanh(B mean(encoder(source)))

    state_t, h_t = cell(state_{t-1}, [embedding(y_{t-1}); a_{t-1}])
    w_t = attention(h_t, memory, c_{t-1}),    c_t = c_{t-1} + w_t
    a_t = tanh(W [h_t; sum_s w_ts memory_s])
    p(y_t) = softmax(V a_t), or its mixture with copies from the memory

Coverage c and copying are options of `attention.py`. The embeddings in the memory let a word be
translated by itself (Nguyen and Chiang, "Improving lexical choice in neural machine translation",
2018). The decoder is one textbook step: `jaxrnn.unroll` trains it, and moves the keys of the
memory, the embeddings' part of the cell's product and V a_t out of the loop; `jaxrnn.decoding`
runs the same step in beam search.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

import jaxrnn as rnn
from experiments.common.data import batching
from experiments.common.data.batching import BEGIN, END, PAD, UNKNOWN, Pairs, Size
from experiments.common.step import in_32_bits
from experiments.seq2seq.attention import DecoderOutput, Memory, copy_log_probs, cross_entropy
from jaxrnn.decoding import Decoded, beam_search
from jaxrnn.layers import Stack

Array = jax.Array


# Decoder ------------------------------------------------------------------------------------------


class DecoderParams(NamedTuple):
    """Parameters of `Decoder`, and the memory that it attends to."""

    embedding: Any
    stack: Any
    attention: Any
    combine: Any
    readout: Any
    gate: Any
    memory: Any = None  # a `Memory`, set by `Seq2Seq.encode`


class DecoderState(NamedTuple):
    """State of `Decoder`.

    Attributes:
        stack: of the recurrent layers.
        attentional: the attentional vector of the last step.
        coverage: the sum of all attention weights so far; None without coverage.
    """

    stack: Any
    attentional: Array
    coverage: Array | None


@dataclass(frozen=True)
class Decoder:
    """A cell that reads the previous token and returns a `DecoderOutput` for the next one.

    Args:
        stack: recurrent layers.
        attention: attention mechanism.
        symbols: vocabulary size.
        embed: embedding size.
        size: size of the attentional vector.
        dropout: dropout rate of embeddings and attentional vectors.
        copies: whether the decoder may copy symbols from the memory.
        coverage: whether attention depends on the coverage.
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
    output_size = None  # the output is no vector

    @property
    def stochastic(self) -> bool:
        """Whether there is dropout."""
        return self.dropout > 0

    def init(self, key: Array, input_size: int, dtype: Any = None) -> DecoderParams:
        """Draws the parameters; `input_size` is the number of the memory's features."""
        keys = jax.random.split(key, 6)
        hidden: Any = self.stack.output_size
        h, one = jnp.zeros((1, hidden)), jnp.zeros((1, 1, input_size))
        coverage = jnp.zeros((1, 1)) if self.coverage else None
        return DecoderParams(
            _embedding(self).init(keys[0], jnp.zeros((), jnp.int32)),
            self.stack.init(keys[1], self.embed + self.size),
            self.attention.init(keys[2], h, Memory(one, jnp.ones((1, 1), bool)), coverage),
            nn.Dense(self.size).init(keys[3], jnp.zeros(hidden + input_size)),
            nn.Dense(self.symbols).init(keys[4], jnp.zeros(self.size)),
            nn.Dense(1).init(keys[5], jnp.zeros(self.size)) if self.copies else (),
        )

    def init_state(self, params: DecoderParams, batch_shape: tuple[int, ...] = ()) -> DecoderState:
        """Zeros."""
        stack = self.stack.init_state(params.stack, batch_shape)
        dtype = jax.tree.leaves(params.embedding)[0].dtype
        coverage = jnp.zeros(params.memory.valid.shape, dtype) if self.coverage else None
        return DecoderState(stack, jnp.zeros((*batch_shape, self.size), dtype), coverage)

    def step(
        self, params: DecoderParams, state: DecoderState, token: Array, *, key: Array | None = None
    ) -> tuple[DecoderState, DecoderOutput]:
        """Reads one token: `(params, state, token) -> (state, output)`."""
        keys = (None, None) if key is None else jax.random.split(key)
        embedded = _drop(self, _embed(self, params.embedding, token), keys[0])
        x = jnp.concatenate([embedded, state.attentional], axis=-1)
        stack, h = self.stack.step(params.stack, state.stack, x)
        weights: Any = self.attention.apply(params.attention, h, params.memory, state.coverage)
        coverage = None if state.coverage is None else state.coverage + weights
        context = jnp.einsum("bs,bsf->bf", weights, params.memory.features)
        both = jnp.concatenate([h, context], axis=-1)
        combined: Any = nn.Dense(self.size).apply(params.combine, both)
        attentional = _drop(self, jnp.tanh(combined), keys[1])
        logits: Any = nn.Dense(self.symbols).apply(params.readout, attentional)
        gate = None
        if self.copies:
            gate = jax.nn.sigmoid(jnp.asarray(nn.Dense(1).apply(params.gate, attentional)))
        return DecoderState(stack, attentional, coverage), DecoderOutput(logits, weights, gate)

    def search_step(
        self, params: DecoderParams, state: DecoderState, token: Array
    ) -> tuple[DecoderState, Array]:
        """The step of beam search: `(params, state, token) -> (state, logits of all symbols)`."""
        state, output = self.step(params, state, token)
        return state, copy_log_probs(output, params.memory) if self.copies else output.logits


def _embedding(model: "Decoder | Seq2Seq") -> nn.Embed:
    return nn.Embed(model.symbols, model.embed, embedding_init=nn.initializers.normal(1.0))


def _embed(model: "Decoder | Seq2Seq", params: Any, symbols: Array) -> Array:
    embedded: Any = _embedding(model).apply(in_32_bits(params), symbols)
    return embedded.astype(jax.tree.leaves(params)[0].dtype)


def _drop(model: "Decoder | Seq2Seq", x: Any, key: Array | None) -> Any:
    return nn.Dropout(model.dropout, deterministic=key is None).apply({}, x, rng=key)


# Encoder and decoder ------------------------------------------------------------------------------


class Params(NamedTuple):
    """Parameters of `Seq2Seq`."""

    embedding: Any
    encoder: Any
    bridge: Any
    decoder: DecoderParams


@dataclass(frozen=True)
class Seq2Seq:
    """An encoder-decoder.

    Args:
        symbols: source vocabulary size.
        embed: embedding size.
        encoder: recurrent layers, possibly bidirectional.
        decoder: the decoder.
        dropout: dropout rate of embeddings and memory.
        smoothing: label smoothing in training.
        first_gloss: the first source symbol that stands for a target symbol, which the decoder may
            copy; the others follow in the order of the target vocabulary. None: no copying.
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
            _embedding(self).init(keys[0], jnp.zeros((), jnp.int32)),
            self.encoder.init(keys[1], self.embed),
            nn.Dense(self.decoder.size).init(keys[2], jnp.zeros(features)),
            self.decoder.init(keys[3], features + self.embed),
        )

    def encode(
        self, params: Params, source: Array, key: Array | None = None
    ) -> tuple[DecoderParams, DecoderState]:
        """Encodes sources `[time, batch]`: the decoder's parameters with memory, and its state."""
        keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        valid = source != PAD
        xs = _drop(self, _embed(self, params.embedding, source), keys[0])
        lengths = valid.sum(0, dtype=jnp.int32)
        _, ys = self.encoder.apply(params.encoder, None, xs, lengths=lengths, key=keys[1])
        ys = _drop(self, ys, keys[2])
        mean = ys.sum(0) / lengths[:, None].astype(ys.dtype)  # outputs at skipped steps are zero
        features = jnp.swapaxes(jnp.concatenate([ys, xs], axis=-1), 0, 1)
        copies = None
        if self.first_gloss is not None:
            symbols = source - self.first_gloss + UNKNOWN + 1
            copies = jnp.where(source >= self.first_gloss, symbols, PAD).T
        decoder = params.decoder._replace(memory=Memory(features, valid.T, copies))
        state = self.decoder.init_state(decoder, source.shape[1:])
        dense: Any = nn.Dense(self.decoder.size).apply(*in_32_bits((params.bridge, mean)))
        return decoder, state._replace(attentional=jnp.tanh(dense).astype(xs.dtype))

    def loss(self, params: Params, pairs: Pairs, key: Array | None = None) -> tuple[Array, Array]:
        """The summed loss and the number of target symbols; a key turns on training."""
        keys = (None, None) if key is None else jax.random.split(key)
        source, target = map(jnp.asarray, pairs)
        decoder, state = self.encode(params, source, keys[0])
        _, outputs = rnn.unroll(self.decoder, decoder, target[:-1], state, key=keys[1])
        smoothing = 0.0 if key is None else self.smoothing
        losses = cross_entropy(outputs, decoder.memory, target[1:], smoothing)
        counts = (target[1:] != PAD).astype(losses.dtype)
        return (losses * counts).sum(), counts.sum()

    def bucketed_loss(
        self, params: Params, pairs: Pairs, key: Array, sizes: tuple[Size, ...]
    ) -> Array:
        """The mean loss of a batch, cut to the smallest of `sizes` that holds it."""
        source, target = map(jnp.asarray, pairs)
        lengths = (source != PAD).sum(0).max() - 1, (target != PAD).sum(0).max() - 2

        def cut_loss(size, params, source, target, key):
            cut = Pairs(source[: size.source + 1], target[: size.target + 2])
            total, count = self.loss(params, cut, key)
            return total / count

        losses = [partial(cut_loss, size) for size in sizes]
        index = batching.bucket_index(sizes, lengths, jnp)
        return batching.bucketed_loss(index, losses, params, source, target, key)


@partial(jax.jit, static_argnums=(0, 3, 4))
def beam_decode(
    model: Seq2Seq, params: Params, source: Array, length: int, width: int, penalty: Any = 1.0
) -> Decoded:
    """Beam search over sources `[time, batch]`: tokens `[length, batch, width]`."""
    decoder, state = model.encode(params, source)
    first = jnp.full(source.shape[1:], BEGIN, jnp.int32)
    return beam_search(
        model.decoder.search_step,
        decoder,
        state,
        first,
        length=length,
        width=width,
        end=END,
        length_penalty=penalty,
    )


@partial(jax.jit, static_argnums=0)
def attention_weights(model: Seq2Seq, params: Params, source: Array, tokens: Array) -> Array:
    """Attention weights when the decoder is forced to `tokens`: `[length, batch, source]`."""
    decoder, state = model.encode(params, source)
    begin = jnp.full((1, *tokens.shape[1:]), BEGIN, tokens.dtype)
    _, outputs = rnn.unroll(model.decoder, decoder, jnp.concatenate([begin, tokens[:-1]]), state)
    return outputs.weights
