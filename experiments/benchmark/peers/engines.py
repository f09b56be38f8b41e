"""This library: `jaxrnn.unroll`, or its layers, with one of its engines."""

import functools
from typing import Any

import jax

import jaxrnn as rnn
from experiments.benchmark.peers import plain
from experiments.benchmark.peers.workload import Contender, JaxNetwork, Workload


def title(engine: Any) -> str:
    """The engine's class and its options that differ from the defaults."""
    return repr(engine).removesuffix("()")


def contender(engine: Any) -> Contender:
    """An engine, a value from `jaxrnn.engines`, as a contender."""

    def why_not(workload: Workload) -> str | None:
        weights, state = jax.eval_shape(lambda: plain.draw(workload, workload.inputs))
        xs = jax.eval_shape(workload.xs)
        return engine.why_not(make_cell(workload), weights, state, xs)

    def build(workload: Workload) -> JaxNetwork:
        if workload.layers > 1 or workload.bidirectional:
            return _stack(engine, workload)
        weights, state = plain.draw(workload, workload.inputs)

        def apply(weights, state, xs):
            return rnn.unroll(make_cell(workload), weights, xs, state, engine=engine)

        return JaxNetwork(workload, apply, weights, state, workload.xs())

    return Contender(title(engine), "jaxrnn", why_not, build, same_weights=True)


def _stack(engine: Any, workload: Workload) -> JaxNetwork:
    one = rnn.layers.Recurrent(make_cell(workload), engine=engine)
    layer = rnn.layers.Bidirectional(one, one) if workload.bidirectional else one
    net = rnn.layers.Stack((layer,) * workload.layers)
    shapes = jax.eval_shape(
        functools.partial(net.init, input_size=workload.inputs, dtype=workload.dtype),
        jax.random.key(0),
    )
    states = jax.eval_shape(lambda params: net.init_state(params, (workload.batch,)), shapes)
    weights, state = workload.fill(shapes, "weights"), workload.fill(states, "state")
    return JaxNetwork(workload, net.apply, weights, state, workload.xs())


def make_cell(workload: Workload) -> Any:
    """The library's cell; where gates are given, a custom cell that starts from them."""
    if not workload.gates_given:
        return plain.CELLS[workload.cell](workload.hidden)
    return _cell_from_gates(workload.cell, workload.hidden)


@functools.cache
def _cell_from_gates(cell: str, hidden: int) -> Any:
    library = plain.CELLS[cell](hidden)

    def init_state(params, batch_shape):
        kernel = params.recurrent_kernel
        params = params._replace(input_kernel=kernel, bias=kernel[0])
        return library.init_state(params, batch_shape)

    return rnn.from_step(
        functools.partial(plain.step_from_gates, cell), init_state=init_state, output_size=hidden
    )
