"""This library: `jaxrnn.unroll`, or its layers, with one of its engines."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import jaxrnn as rnn
from experiments.benchmark.peers import plain
from experiments.benchmark.peers.workload import JaxNetwork, Workload


@dataclass(frozen=True)
class Ours:
    """An engine as a contender.

    Args:
        engine: a value from `jaxrnn.engines`.
    """

    engine: Any

    @property
    def name(self) -> str:
        """The engine's class and its options that differ from the defaults."""
        options = [
            f"{field.name}={getattr(self.engine, field.name)!r}"
            for field in dataclasses.fields(self.engine)
            if getattr(self.engine, field.name) != field.default
        ]
        return type(self.engine).__name__ + (f"({', '.join(options)})" if options else "")

    def why_not(self, workload: Workload) -> str | None:
        """Asks the engine."""
        weights, state = jax.eval_shape(lambda: plain.draw(workload, workload.inputs))
        xs = jax.eval_shape(lambda: jnp.asarray(workload.draw_inputs(), workload.dtype))
        return self.engine.why_not(_cell(workload), weights, state, xs)

    def build(self, workload: Workload) -> JaxNetwork:
        """`jaxrnn.unroll` for one layer, `jaxrnn.layers` for more."""
        xs = jnp.asarray(workload.draw_inputs(), workload.dtype)
        if workload.layers == 1 and not workload.bidirectional:
            weights, state = plain.draw(workload, workload.inputs)

            def apply(weights, state, xs):
                return rnn.unroll(_cell(workload), weights, xs, state, engine=self.engine)

            return JaxNetwork(workload, apply, weights, state, xs)
        return self._stack(workload, xs)

    def _stack(self, workload: Workload, xs: jax.Array) -> JaxNetwork:
        from jaxrnn import layers

        one = layers.Recurrent(_cell(workload), engine=self.engine)
        layer = layers.Bidirectional(one, one) if workload.bidirectional else one
        net = layers.Stack((layer,) * workload.layers)
        shapes = jax.eval_shape(
            functools.partial(net.init, input_size=workload.inputs, dtype=workload.dtype),
            jax.random.key(0),
        )
        states = jax.eval_shape(lambda params: net.init_state(params, (workload.batch,)), shapes)
        weights, state = workload.fill(shapes, "weights"), workload.fill(states, "state")
        return JaxNetwork(workload, net.apply, weights, state, xs)


def _cell(workload: Workload) -> Any:
    """The library's cell; where gates are given, a custom cell that starts from them."""
    if not workload.gates_given:
        return plain.CELLS[workload.cell](workload.hidden)
    return _cell_from_gates(workload.cell, workload.hidden)


@functools.cache
def _cell_from_gates(cell: str, hidden: int) -> Any:
    zeros = plain.CELLS[cell](hidden)

    def init_state(params, batch_shape):
        kernel = params.recurrent_kernel
        return zeros.init_state(params._replace(bias=kernel[0]), batch_shape)

    return rnn.from_step(
        functools.partial(plain.step_from_gates, cell), init_state=init_state, output_size=hidden
    )
