"""Runs of exported ONNX models beside the networks that they were made of."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxrnn as rnn
from tests.support.cases import Case, random_inputs, random_params, random_state


def with_parts(name: str, leaf: Any) -> dict[str, np.ndarray]:
    """An array as a model has it: a complex one is two."""
    array = np.asarray(leaf)
    if not np.iscomplexobj(array):
        return {name: array}
    return {f"{name}_real": array.real, f"{name}_imag": array.imag}


def in_float32(case: Case) -> Case:
    """The case with states of single precision, for cells whose states have a fixed dtype."""
    if not isinstance(case.cell, rnn.FunctionCell):
        return case

    narrow = {"float64": "float32", "complex128": "complex64"}

    def init_state(params, batch_shape=()):
        state = case.cell.init_state(params, batch_shape)
        return jax.tree.map(
            lambda leaf: leaf.astype(narrow.get(str(leaf.dtype), leaf.dtype)), state
        )

    return dataclasses.replace(case, cell=dataclasses.replace(case.cell, init_state=init_state))


@dataclasses.dataclass
class Run:
    """The inputs of a model and the outputs that a network gives for them."""

    feeds: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def run(network: Any, params: Any, xs: Any, state: Any, **options: Any) -> Run:
    """Runs a network by name."""
    is_layer = isinstance(network, rnn.layers.Layer)
    layer = network if is_layer else rnn.layers.Recurrent(network)
    final, ys = layer.apply(params, state, xs, **options)
    feeds, outputs = {}, {}
    for (names, tree), into in (
        (("xs", xs), feeds),
        (("initial", state), feeds),
        (("ys", ys), outputs),
        (("final", final), outputs),
    ):
        for path, leaf in jax.tree.leaves_with_path(tree):
            keys = [getattr(k, "name", getattr(k, "key", getattr(k, "idx", ""))) for k in path]
            if names in ("initial", "final"):
                first = f"layer{keys.pop(0) if isinstance(layer, rnn.layers.Stack) else 0}"
                keys = [first, *keys]
            prefix = [] if names == "final" else [names]
            into |= with_parts("_".join(map(str, [*prefix, *keys])), leaf)
    for name, value in options.items():
        feeds[name] = np.asarray(value)
    return Run(feeds, outputs)


def flags(rng: np.random.Generator, time: int, batch: int) -> dict[str, Any]:
    """Lengths, one of them 0 if there are several rows, and starts."""
    lengths = rng.integers(0, time + 1, batch).astype(np.int32)
    lengths[0] = max(1, time - 1)
    starts = rng.random((time, batch)) < 0.3
    return {"lengths": jnp.asarray(lengths), "starts": jnp.asarray(starts)}


def assert_equal(given: list[np.ndarray], names: list[str], wanted: Run, tolerance: float) -> None:
    """Compares all outputs by name; those of a model in single precision may be narrower."""
    assert sorted(names) == sorted(wanted.outputs)
    for name, array in zip(names, given, strict=True):
        ours = wanted.outputs[name]
        assert array.dtype in (ours.dtype, narrowed(ours).dtype) and array.shape == ours.shape, name
        np.testing.assert_allclose(array, ours, rtol=tolerance, atol=tolerance, err_msg=name)


def narrowed(array: np.ndarray) -> np.ndarray:
    """Floating-point numbers in single precision."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def case_run(case: Case, reverse: bool, time: int, batch: int) -> Run:
    """A run of a cell in double precision with random inputs, state, lengths and starts."""
    options = flags(np.random.default_rng([time, batch]), time, batch)
    xs, state = random_inputs(case, (time, batch)), random_state(case, (batch,))
    layer = rnn.layers.Recurrent(case.cell, reverse=reverse)
    return run(layer, random_params(case), xs, state, **options)


def reference(model: Any) -> Any:
    """ONNX's reference evaluator, whose Scan gets the directions that it does not implement."""
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.ops.op_scan import Scan as Forward

    class Scan(Forward):
        op_domain = ""

        def __init__(self, node, run_params):
            turned = {a.name: a for a in node.attribute if a.name.endswith("_directions")}
            self.order = slice(None, None, -1 if turned else 1)
            assert all(set(a.ints) == {1} for a in turned.values()), "time runs one way"
            plain = type(node)()
            plain.CopyFrom(node)
            for attribute in turned.values():
                plain.attribute.remove(attribute)
            super().__init__(plain, run_params)

        def _run(self, *args, **attributes):
            count = len(args) - self.num_scan_inputs
            turned = (*args[:count], *(x[self.order] for x in args[count:]))
            results = super()._run(*turned, **attributes)
            return (*results[:count], *(y[self.order] for y in results[count:]))

    return ReferenceEvaluator(model, new_ops=[Scan])


def onnxruntime_session(model: Any) -> Any:
    """A session of onnxruntime on the CPU."""
    import onnxruntime

    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
