"""The decoder of an encoder-decoder: one cell, which looks at a memory and writes symbols.

Luong, Pham and Manning, "Effective approaches to attention-based neural machine translation", 2015:
the attentional vector a_t is fed to the next step.

    state_t, h_t = cell(state_{t-1}, [embedding(y_{t-1}); a_{t-1}])
    w_t = attention(h_t, memory, c_{t-1}),    c_t = c_{t-1} + w_t
    a_t = tanh(W [h_t; sum_s w_ts memory_s])
    p(y_t) = softmax(V a_t), or that mixed with copies of what stands where it looks

The coverage c and the copies are options; `_attention.py` says what they are. Here is the textbook
step; `jaxrnn.unroll` finds out that the keys of the memory do not change, that the embeddings'
share of the cell's product can be had before the loop, and V a_t after it, for all steps at once.
To train, a step gives what p(y_t) is made of, for the p of one symbol; to write, the p of all.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.seq2seq.attention import Look, Memory, mix_copies
from jaxrnn.layers import Stack

Array = jax.Array


def drop(rate: float, x: Any, key: Array | None) -> Any:
    """Dropout, where there is a key."""
    return nn.Dropout(rate, deterministic=key is None).apply({}, x, rng=key)


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
    """A cell that reads the token before and gives a `Look`, of which the next one's p is made.

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
    output_size = None  # what it gives is no vector

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
    ) -> tuple[DecoderState, Look]:
        """One token: `(params, state, token) -> (state, look)`."""
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
        gate = None
        if self.copies:
            gate = jax.nn.sigmoid(jnp.asarray(self._gate.apply(params.gate, attentional)))
        return DecoderState(stack, attentional, coverage), Look(logits, weights, gate)

    def write(
        self, params: DecoderParams, state: DecoderState, token: Array
    ) -> tuple[DecoderState, Array]:
        """One token, for a search: `(params, state, token) -> (state, logits of all symbols)`."""
        state, look = self.step(params, state, token)
        memory: Any = params.memory
        return state, mix_copies(look, memory) if self.copies else look.logits

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
