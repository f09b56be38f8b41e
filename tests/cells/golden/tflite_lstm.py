"""Makes tflite_lstm.npz: TensorFlow Lite's LSTM with coupled gates (CIFG), in float32.

    python -m tests.cells.golden.tflite_lstm

Needs ``ai-edge-litert``, the runtime of TensorFlow Lite. The kernel couples its gates where the
weights of the input gate are left out.
"""

import importlib.metadata
import pathlib

import numpy as np

FILE = pathlib.Path(__file__).with_suffix(".npz")
HIDDEN, INPUT, TIME, BATCH = 4, 3, 6, 2


def draw():
    """Random weights, an array a gate, ``[hidden, features]``; inputs ``[time, batch, input]``."""
    rng = np.random.default_rng(0)
    arrays = {"xs": rng.normal(size=(TIME, BATCH, INPUT))}
    for gate in "fgo":
        arrays[f"input_{gate}"] = rng.normal(size=(HIDDEN, INPUT))
        arrays[f"recurrent_{gate}"] = rng.normal(size=(HIDDEN, HIDDEN))
        arrays[f"bias_{gate}"] = rng.normal(size=HIDDEN)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def model(arrays):
    """The model of one operation, as a flatbuffer."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    buffers, tensors = [schema.BufferT()], []

    def tensor(name, shape, data=None, variable=False):
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), schema.TensorType.FLOAT32
        made.isVariable = variable
        if data is not None:
            buffers.append(schema.BufferT())
            buffers[-1].data = np.frombuffer(data.tobytes(), np.uint8)
            made.buffer = len(buffers) - 1
        tensors.append(made)
        return len(tensors) - 1

    def gates(kind):
        return [tensor(f"{kind}_{g}", a.shape, a) for g in "fgo" for a in [arrays[f"{kind}_{g}"]]]

    absent = -1
    xs = tensor("xs", (TIME, BATCH, INPUT))
    operator = schema.OperatorT()
    operator.inputs = [
        *(xs, absent, *gates("input"), absent, *gates("recurrent")),
        *(absent, absent, absent),  # peepholes
        *(absent, *gates("bias")),
        *(absent, absent),  # projection
        tensor("hidden", (BATCH, HIDDEN), variable=True),
        tensor("cell", (BATCH, HIDDEN), variable=True),
        *(absent, absent, absent, absent),  # layer normalization
    ]
    ys = tensor("ys", (TIME, BATCH, HIDDEN))
    operator.outputs = [ys]
    operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    operator.builtinOptions = schema.UnidirectionalSequenceLSTMOptionsT()
    operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.TANH
    operator.builtinOptions.timeMajor = True

    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    code.deprecatedBuiltinCode, code.version = code.builtinCode, 1
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [xs], [ys]
    whole = schema.ModelT()
    whole.version, whole.operatorCodes = 3, [code]
    whole.subgraphs, whole.buffers = [graph], buffers
    builder = flatbuffers.Builder(4096)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(arrays):
    """The outputs ``[time, batch, hidden]``, from states of zero."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model(arrays))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], arrays["xs"])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def main():
    arrays = draw()
    made_by = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    np.savez_compressed(FILE, made_by=made_by, ys=run(arrays), **arrays)


if __name__ == "__main__":
    main()
