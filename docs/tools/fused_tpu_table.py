"""Compiles the kernels of `Fused` for a TPU without a device, and prints the memory they use.

    JAX_PLATFORMS=cpu python -m docs.tools.fused_tpu_table --cells LSTM GRU --hidden 128 1024

Needs the wheel libtpu next to JAX 0.11 or newer. Every program is the forward and the backward pass
of one layer. VMEM is what the compiler allocates for a kernel: recurrent kernels, and blocks of
time in two buffers.
"""

import argparse
import re
import sys
import time

import jaxrnn as rnn
from docs.tools.deviceless import compile_layer

CELLS = ("LSTM", "GRU", "Elman", "ResetBeforeGRU")
HIDDEN = (128, 256, 512, 768, 1024)
KERNEL = re.compile(
    r"%(forward|backward)[.\d]* = .*?custom_call_target=\"tpu_custom_call\".*?"
    r"\"used_scoped_memory_configs\":\[(.*?)\]"
)


def used(text: str) -> dict[str, int]:
    """Bytes of VMEM, memory space 1, by kernel, from the text of a compiled program."""
    found = {}
    for kernel, configs in KERNEL.findall(text):
        sizes = re.findall(r"\"memory_space\":\"1\",\"offset\":\"\d+\",\"size\":\"(\d+)\"", configs)
        found[kernel] = sum(map(int, sizes))
    return found


def compile_one(name: str, hidden: int, batch: int, steps: int, device: str) -> dict[str, int]:
    """Compiles both passes for one core; returns the bytes of VMEM of each kernel."""
    cell, engine = getattr(rnn, name)(hidden), rnn.engines.Fused()

    def forward(params, state, xs):
        return engine(cell, params, state, xs)

    return used(compile_layer(forward, cell, (steps, batch, hidden), device).as_text())


def main() -> int:
    """Prints a table in Markdown; returns 1 if a program does not compile, or has no kernel."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--hidden", nargs="+", type=int, default=HIDDEN)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--device", default="v5e:2x2", help="a topology that libtpu knows")
    options = parser.parse_args()
    print("| cell | H | VMEM, forward | backward | seconds |")
    print("|---|---|---|---|---|", flush=True)
    failed = False
    for name in options.cells:
        for hidden in options.hidden:
            began = time.perf_counter()
            try:
                kernels = compile_one(name, hidden, options.batch, options.steps, options.device)
                forward, backward = (kernels[which] / 2**20 for which in ("forward", "backward"))
            except (RuntimeError, KeyError) as error:  # the compiler's, or a kernel is missing
                failed = True
                print(f"| {name} | {hidden} | failed: {str(error)[:300]!r} |", flush=True)
                continue
            row = f"| {name} | {hidden} | {forward:.1f} MiB | {backward:.1f} MiB"
            print(f"{row} | {time.perf_counter() - began:.0f} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
