"""Compiles `Hoisted` for an H200 without a device and prints what one step of its loops launches.

    JAX_PLATFORMS=cpu python -m tests.support.h200 --cells LSTM GRU

`docs/tools/deviceless.py` names the wheels that it needs.
"""

import argparse
import os
import pathlib
import re
import tempfile
from typing import Any, NamedTuple

from tests.support.compiled import loop_bodies

# Instructions that launch nothing.
FREE = frozenset(["bitcast", "constant", "get-tuple-element", "parameter", "tuple"])


class Row(NamedTuple):
    """A compiled program: its loops over time, forward first."""

    kernels: tuple[float, ...]  # launched per step
    recorded: bool  # whether an iteration of each loop is one command buffer, a CUDA graph
    temporary: int  # bytes


def compile_one(
    name: str, sizes: tuple[int, int, int], unroll: int, gradients: bool, dump: pathlib.Path
) -> Row:
    """One layer in bfloat16; with ``gradients``, those of everything that it reads.

    Sizes are hidden, batch and time; XLA writes its files to ``dump``.
    """
    import jaxrnn as rnn
    from docs.tools.deviceless import compile_layer

    hidden, batch, time = sizes
    cell = getattr(rnn, name)(hidden)
    engine = rnn.engines.Hoisted(unroll=unroll or None)

    def forward(params, state, xs):
        return engine(cell, params, state, xs)

    compiled = compile_layer(forward, cell, (time, batch, hidden), "h200", gradients)
    loops = loop_bodies(compiled)
    launched = [sum(kind not in FREE for kind in loop.opcodes) for loop in loops]
    per_step = [n * loop.trips / time for n, loop in zip(launched, loops, strict=True)]
    memory = compiled.memory_analysis()
    return Row(tuple(per_step), _recorded(dump), memory.temp_size_in_bytes)


def _recorded(dump: pathlib.Path) -> bool:
    """Whether the body of each loop is one command buffer, in the sequence that XLA dumps."""
    (file,) = dump.glob("*.thunk_sequence_after_thunk_passes.txt")
    bodies = re.findall(r"^ +body:\n((?: {4}.*\n)+)", file.read_text() + "\n", re.MULTILINE)
    file.unlink()
    outer = [re.findall(r"^ {4}\d+: (\w+)", body, re.MULTILINE) for body in bodies]
    return bool(outer) and all(kinds == ["kCommandBuffer"] for kinds in outer)


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=["LSTM", "GRU"])
    parser.add_argument("--unroll", nargs="+", type=int, default=[1, 0], help="0: the default")
    parser.add_argument("--passes", nargs="+", default=["forward", "gradients"])
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--time", type=int, default=1024)
    options = parser.parse_args()
    print("| cell | pass | unroll | kernels per step | iteration is one graph | temporary |")
    print("|---|---|---|---|---|---|", flush=True)
    sizes = options.hidden, options.batch, options.time
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder}"
        _print_rows(options, sizes, pathlib.Path(folder))


def _print_rows(options: Any, sizes: tuple[int, int, int], dump: pathlib.Path) -> None:
    for name in options.cells:
        for what in options.passes:
            for unroll in options.unroll:
                row = compile_one(name, sizes, unroll, what == "gradients", dump)
                kernels = " + ".join(f"{n:.3g}" for n in row.kernels)
                recorded = "yes" if row.recorded else "no"
                memory = f"{row.temporary / 1e6:.0f} MB"
                cells = name, what, unroll or "default", kernels, recorded, memory
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
