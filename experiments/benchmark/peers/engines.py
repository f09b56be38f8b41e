"""This library: `jaxrnn.unroll`, or its layers, with one of its engines."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn as rnn
from experiments.benchmark.peers import plain
from experiments.benchmark.peers.work import JaxNetwork, Work


@dataclass(frozen=True)
class Ours:
    """An engine as a contender.

    Args:
        engine: a value from `jaxrnn.engines`.
    """

    engine: Any

    @property
    def name(self) -> str:
        """The engine's class, with those of its options that are not the defaults."""
        options = [
            f"{field.name}={getattr(self.engine, field.name)!r}"
            for field in dataclasses.fields(self.engine)
            if getattr(self.engine, field.name) != field.default
        ]
        return type(self.engine).__name__ + (f"({', '.join(options)})" if options else "")

    def why_not(self, work: Work) -> str | None:
        """Asks the engine."""
        weights, state = jax.eval_shape(lambda: plain.draw(work, work.inputs))
        xs = jax.eval_shape(lambda: jnp.asarray(work.draw_inputs(), work.dtype))
        return self.engine.why_not(_cell(work), weights, state, xs)

    def build(self, work: Work) -> JaxNetwork:
        """`jaxrnn.unroll` for one layer, `jaxrnn.layers` for more."""
        xs = jnp.asarray(work.draw_inputs(), work.dtype)
        if work.layers == 1 and not work.bidirectional:
            weights, state = plain.draw(work, work.inputs, "0")

            def apply(weights, state, xs):
                return rnn.unroll(_cell(work), weights, xs, state, engine=self.engine)

            return JaxNetwork(work, apply, weights, state, xs)
        return self._stack(work, xs)

    def _stack(self, work: Work, xs: jax.Array) -> JaxNetwork:
        from jaxrnn import layers

        one = layers.Recurrent(_cell(work), engine=self.engine)
        layer = layers.Bidirectional(one, one) if work.bidirectional else one
        net = layers.Stack((layer,) * work.layers)
        shapes = jax.eval_shape(
            functools.partial(net.init, input_size=work.inputs, dtype=work.dtype),
            jax.random.key(0),
        )
        state = jax.eval_shape(lambda params: net.init_state(params, (work.batch,)), shapes)

        def apply(weights, state, xs):
            return net.apply(weights, state, xs)

        return JaxNetwork(work, apply, work.fill(shapes, "weights"), work.fill(state, "state"), xs)


def _cell(work: Work) -> Any:
    """The library's cell; where gates are given, a user's cell around the step behind them."""
    if not work.gates_given:
        return plain.CELLS[work.cell](work.hidden)
    return _cell_from_gates(work.cell, work.hidden)


@functools.cache
def _cell_from_gates(cell: str, hidden: int) -> Any:
    zeros = plain.CELLS[cell](hidden)

    def init_state(params, batch_shape):
        kernel = params.recurrent_kernel
        return zeros.init_state(params._replace(bias=kernel[0]), batch_shape)

    return rnn.from_step(
        functools.partial(plain.step_from_gates, cell), init_state=init_state, output_size=hidden
    )
