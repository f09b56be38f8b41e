"""Writes the SavedModel, the checkpoint and the outputs that the tests read without TensorFlow.

    python -m tests.convert.golden.tensorflow

Made with tensorflow-cpu 2.18.1 and tf_keras 2.18.0, which are needed for nothing else. The graph,
``saved_model.pb``, is not kept, because it is large and jaxrnn does not read it.
"""

import pathlib
import shutil

import numpy as np

FOLDER = pathlib.Path(__file__).parent
SAVED_MODEL = FOLDER / "saved_model"
CHECKPOINT = FOLDER / "checkpoint" / "ckpt-1"
OUTPUTS = FOLDER / "tensorflow.npz"
XS = np.random.default_rng(7).normal(size=(3, 5, 2)).astype(np.float32)  # batch-major
CHECKPOINTED = {
    "single": np.array([[1.5, -2.0]], np.float32),
    "double": np.arange(3.0),
    "count": np.array(-3, np.int64),
}


def main() -> None:
    """Replaces the files."""
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    cells = [layers.GRUCell(2, reset_after=False), layers.LSTMCell(3)]
    stack = [
        layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="mul", name="both"),
        layers.RNN(layers.StackedRNNCells(cells), return_sequences=True, name="cells"),
        layers.SimpleRNN(2, activation="relu", return_sequences=True, name="top"),
    ]
    model = tf_keras.Sequential([tf_keras.Input((5, 2)), *stack, layers.Dense(1, name="dense")])
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape, scale=0.7))
    outputs, ys = {}, XS
    for layer in stack:
        outputs[layer.name] = ys = layer(ys).numpy()
    shutil.rmtree(SAVED_MODEL, ignore_errors=True)
    model.save(SAVED_MODEL, save_format="tf")
    for unread in ("saved_model.pb", "fingerprint.pb"):
        (SAVED_MODEL / unread).unlink()
    (SAVED_MODEL / "assets").rmdir()
    model.save(FOLDER / "tf_keras.h5")
    model.save(FOLDER / "tf_keras.keras")
    variables = {name: tf.Variable(array) for name, array in CHECKPOINTED.items()}
    variables["half"] = tf.Variable(tf.constant([1.0, 2.5], tf.bfloat16))
    tf.train.Checkpoint(**variables).write(str(CHECKPOINT))
    np.savez(OUTPUTS, **outputs)


if __name__ == "__main__":
    main()
