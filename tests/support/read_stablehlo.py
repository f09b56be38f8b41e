"""Reads what stablehlo_files wrote, by jax and numpy alone: outputs and gradients are equal."""

import pathlib
import sys

if __name__ == "__main__":  # pytest, which looks for examples, imports this file too
    sys.modules["jaxrnn"] = None  # pyright: ignore[reportArgumentType]  # importing it fails

import jax  # noqa: E402
import jax.export  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402


def check(folder: pathlib.Path) -> int:
    """The number of programs; raises where a number differs."""
    paths = sorted(folder.glob("*.bin"))
    for path in paths:
        program = jax.export.deserialize(bytearray(path.read_bytes()))
        runs = sorted(folder.glob(f"{path.stem}.*.npz"))
        assert len(runs) == 2
        for run in runs:
            with np.load(run) as arrays:
                parts = {
                    kind: [
                        arrays[f"{kind}{i}"] for i in range(len(arrays)) if f"{kind}{i}" in arrays
                    ]
                    for kind in ("in", "out", "grad")
                }
            inputs = list(map(jnp.asarray, parts["in"]))
            moving = [i for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)]

            def call(values, inputs=inputs, moving=moving, program=program):
                leaves = list(inputs)
                for i, value in zip(moving, values, strict=True):
                    leaves[i] = value
                args, kwargs = jax.tree.unflatten(program.in_tree, leaves)
                return jax.tree.leaves(program.call(*args, **kwargs))

            def loss(values, call=call):
                results = call(values)
                floating = (x for x in results if jnp.issubdtype(x.dtype, jnp.floating))
                return sum((x**2).sum() for x in floating)

            values = [inputs[i] for i in moving]
            for kind, given in (("out", call(values)), ("grad", jax.grad(loss)(values))):
                assert len(given) == len(parts[kind]), (path.stem, kind)
                for theirs, ours in zip(given, parts[kind], strict=True):
                    np.testing.assert_allclose(
                        theirs, ours, rtol=1e-9, atol=1e-11, err_msg=path.stem
                    )
    return len(paths)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(f"{check(pathlib.Path(sys.argv[1]))} programs, read by jax {jax.__version__}")
