"""An ONNX graph under construction: values, constants, symbolic sizes.

A value may be smaller than the array it stands for: ONNX broadcasts as NumPy does, so a bias
``[hidden]`` stands for ``[batch, hidden]`` until an operator needs the whole array (`Graph.full`).
"""

import ast
import dataclasses
import itertools
from typing import Any

import jax.export
import numpy as np

FLOAT32 = np.dtype("float32")
OPSET, IR_VERSION = 17, 8  # old enough for every runtime in use


def is_one(size: Any) -> bool:
    """Whether an axis has the static size 1."""
    return isinstance(size, int) and size == 1


def is_zero(size: Any) -> bool:
    """Whether an axis has the static size 0."""
    return isinstance(size, int) and size == 0


def is_static(shape: tuple) -> bool:
    """Whether no size is symbolic."""
    return not any(map(jax.export.is_symbolic_dim, shape))


def broadcast_shapes(*shapes: tuple) -> tuple:
    """NumPy's rule of broadcasting, with symbolic sizes."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(
        next((size for size in sizes if not is_one(size)), 1) for sizes in zip(*padded, strict=True)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A constant, or a named result of the graph; ``shape`` is what it has at run time."""

    dtype: np.dtype
    shape: tuple
    name: str = ""
    array: np.ndarray | None = None


def constant(array: Any) -> Value:
    """A constant value."""
    array = np.asarray(array)
    return Value(array.dtype, array.shape, array=array)


class Graph:
    """The nodes of a graph, or of the body of a control-flow node within ``parent``.

    Constants and sizes belong to the outermost graph: bodies read them from there.
    """

    def __init__(self, parent: "Graph | None" = None):
        self.nodes: list[Any] = []
        self.made: set[str] = set()  # names that nodes of this graph produce
        self.root: Graph = self if parent is None else parent.root
        if parent is None:
            self.initializers: dict[Any, Any] = {}
            self.sizes: dict[str, Value] = {}
            self._numbers = itertools.count()

    def fresh(self, hint: str) -> str:
        """A new name."""
        return f"{hint}_{next(self.root._numbers)}"

    def name(self, value: Value) -> str:
        """The name under which nodes read a value; a constant becomes an initializer, once."""
        from onnx import numpy_helper

        if value.array is None:
            return value.name
        array = np.asarray(value.array, order="C")
        same = (array.dtype.name, array.shape, array.tobytes())
        known = self.root.initializers
        if same not in known:
            known[same] = numpy_helper.from_array(array, self.fresh("constant"))
        return known[same].name

    def nodes_of(
        self, op: str, inputs: list, outputs: list[Value], node_name: str = "", **attributes: Any
    ) -> None:
        """Adds a node; an input of None is left out."""
        from onnx import helper

        names = ["" if value is None else self.name(value) for value in inputs]
        results = [value.name for value in outputs]
        self.made.update(results)
        node_name = node_name or self.fresh(op.lower())
        self.nodes.append(helper.make_node(op, names, results, name=node_name, **attributes))

    def add(self, op: str, *inputs: Any, shape: tuple, dtype: Any = None, **attributes) -> Value:
        """Adds a node with one result, by default of the first input's dtype."""
        result = Value(np.dtype(dtype or inputs[0].dtype), tuple(shape), self.fresh(op.lower()))
        self.nodes_of(op, list(inputs), [result], **attributes)
        return result

    def broadcast(self, op: str, *inputs: Value, dtype: Any = None, **attributes) -> Value:
        """Adds an elementwise node."""
        shape = broadcast_shapes(*(value.shape for value in inputs))
        return self.add(op, *inputs, shape=shape, dtype=dtype, **attributes)

    def cast(self, value: Value, dtype: Any) -> Value:
        """The value in another dtype."""
        from onnx import helper

        dtype = np.dtype(dtype)
        if value.dtype == dtype:
            return value
        if value.array is not None:
            return constant(value.array.astype(dtype))
        to = helper.np_dtype_to_tensor_dtype(dtype)
        return self.add("Cast", value, shape=value.shape, dtype=dtype, to=to)

    def full(self, value: Value, shape: tuple) -> Value:
        """The value with all its axes and elements."""
        if value.shape == tuple(shape):
            return value
        if value.array is not None and is_static(shape):
            return constant(np.broadcast_to(value.array, shape))
        return self.add("Expand", value, self.vector(shape), shape=shape)

    def reshape(self, value: Value, shape: tuple) -> Value:
        """The elements of a whole value in another shape."""
        if value.shape == tuple(shape):
            return value
        if value.array is not None:
            return constant(value.array.reshape(shape))
        return self.add("Reshape", value, self.vector(shape), shape=shape)

    def vector(self, sizes: Any) -> Value:
        """Sizes as a vector of int64."""
        sizes = tuple(sizes)
        if is_static(sizes):
            return constant(np.array(sizes, np.int64))
        root, key = self.root, str(sizes)
        if key not in root.sizes:
            parts = [root.size(size) for size in sizes]
            root.sizes[key] = (
                parts[0]
                if len(parts) == 1
                else root.add("Concat", *parts, shape=(len(parts),), axis=0)
            )
        return root.sizes[key]

    def size(self, size: Any) -> Value:
        """One size, a number or an expression of symbolic ones, as int64 ``[1]``."""
        root, key = self.root, f"({size},)"
        if not jax.export.is_symbolic_dim(size):
            return constant(np.array([size], np.int64))
        if key not in root.sizes:
            root.sizes[key] = root._computed(ast.parse(str(size), mode="eval").body)
        return root.sizes[key]

    def _computed(self, tree: Any) -> Value:
        """A size from the syntax of its expression, which is what JAX makes public of it."""
        operators = {"Add": "Add", "Sub": "Sub", "Mult": "Mul"}
        functions = {"floordiv": "Div", "max": "Max", "min": "Min", "mod": "Mod"}
        if isinstance(tree, ast.Constant):
            return constant(np.array([tree.value], np.int64))
        if isinstance(tree, ast.Name) and f"({tree.id},)" in self.sizes:
            return self.sizes[f"({tree.id},)"]
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return self.add("Neg", self._computed(tree.operand), shape=(1,))
        if isinstance(tree, ast.BinOp) and type(tree.op).__name__ in operators:
            parts = [self._computed(tree.left), self._computed(tree.right)]
            return self.add(operators[type(tree.op).__name__], *parts, shape=(1,))
        if isinstance(tree, ast.Call) and getattr(tree.func, "id", None) in functions:
            parts = [self._computed(argument) for argument in tree.args]
            return self.add(functions[tree.func.id], *parts, shape=(1,))  # pyright: ignore
        raise ValueError(
            f"a size must be made of the inputs' sizes by +, -, *, //, % , max and min, got "
            f"{ast.unparse(tree)}"
        )

    def define_size(self, name: str, source: Value, axis: int) -> None:
        """Names the size of an axis of an input."""
        if f"({name},)" not in self.sizes:
            self.sizes[f"({name},)"] = self.add(
                "Shape", source, shape=(1,), dtype=np.int64, start=axis, end=axis + 1
            )


def value_info(value: Value) -> Any:
    """The type of an input or output; symbolic sizes have their expressions for names."""
    from onnx import helper

    sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
    element = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(value.name, element, sizes)


def finish(graph: Graph, inputs: list[Value], outputs: list[Value]) -> Any:
    """The model of a graph, checked."""
    import onnx
    from onnx import helper

    whole = helper.make_graph(
        graph.nodes,
        "jaxrnn",
        list(map(value_info, inputs)),
        list(map(value_info, outputs)),
        list(graph.initializers.values()),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        whole, producer_name="jaxrnn", ir_version=IR_VERSION, opset_imports=opsets
    )
    onnx.checker.check_model(model, full_check=True)
    return model
