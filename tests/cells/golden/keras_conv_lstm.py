"""Makes keras_conv_lstm.npz: Keras' ConvLSTM1D, 2D and 3D on random weights, in float64.

KERAS_BACKEND=torch python -m tests.cells.golden.keras_conv_lstm
"""

import os
import pathlib

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")
FILE = pathlib.Path(__file__).with_suffix(".npz")
FEATURES, INPUT, TIME, BATCH = 2, 3, 4, 2
KERNEL_SHAPES = {1: (3,), 2: (3, 2), 3: (2, 1, 3)}
SPATIAL_SHAPES = {1: (5,), 2: (3, 4), 3: (3, 2, 4)}


def draw(ndim):
    """Random weights in Keras' layout, and inputs [batch, time, *space, features]."""
    rng = np.random.default_rng(ndim)
    kernel, space = KERNEL_SHAPES[ndim], SPATIAL_SHAPES[ndim]
    return {
        "kernel": 0.5 * rng.normal(size=(*kernel, INPUT, 4 * FEATURES)),
        "recurrent_kernel": 0.5 * rng.normal(size=(*kernel, FEATURES, 4 * FEATURES)),
        "bias": rng.normal(size=4 * FEATURES),
        "xs": rng.normal(size=(BATCH, TIME, *space, INPUT)),
    }


def run(ndim, kernel, recurrent_kernel, bias, xs):
    """Keras' outputs [batch, time, *space, features] and its last hidden and cell states."""
    import keras

    layer = getattr(keras.layers, f"ConvLSTM{ndim}D")(
        FEATURES,
        KERNEL_SHAPES[ndim],
        padding="same",
        return_sequences=True,
        return_state=True,
        dtype="float64",
    )
    layer.build(xs.shape)
    layer.set_weights([kernel, recurrent_kernel, bias])
    outputs = [keras.ops.convert_to_numpy(out) for out in layer(xs)]
    return dict(zip(("ys", "hidden", "cell"), outputs, strict=True))


def main():
    import keras

    arrays = {"made_by": f"keras {keras.__version__}, {keras.backend.backend()} backend"}
    for ndim in KERNEL_SHAPES:
        inputs = draw(ndim)
        for name, array in (inputs | run(ndim, **inputs)).items():
            arrays[f"{name}_{ndim}"] = array
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
