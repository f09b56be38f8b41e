"""Compiles the kernels of `Fused` for an H200 without a device, and prints what they use.

    python -m docs.tools.fused_table --cells LSTM GRU --hidden 128 768
    python -m docs.tools.fused_table --cells SLSTM --heads 4 --hidden 768

`docs/tools/deviceless.py` names the wheels that it needs. Every program is the forward and the
backward pass of one layer, compiled in a process of its own, since the assembler prints its report.
"""

import argparse
import os
import re
import subprocess
import sys
import time

CELLS = ("LSTM", "GRU", "Elman", "ResetBeforeGRU")
HIDDEN = (128, 256, 512, 768, 1024)
REPORT = re.compile(
    r"entry function '(\w+?)_mosaic.*?(\d+) bytes spill stores.*?Used (\d+) registers", re.DOTALL
)


def compile_one(name: str, hidden: int, heads: int, batch: int, mode: str) -> str:
    """Compiles both passes; returns ``mode units blocks bytes-of-shared-memory``."""
    import jaxrnn as rnn
    from docs.tools.deviceless import compile_layer
    from jaxrnn.engines import fused
    from jaxrnn.engines._fused import hopper

    options = {"num_heads": heads} if heads else {}
    cell, engine = getattr(rnn, name)(hidden, **options), rnn.engines.Fused()
    found = []

    def forward(params, state, xs):
        plan = fused._plan(cell, params, state, xs)
        geometry = engine._machines(plan, mode)[1]["cuda"].keywords["geometry"]
        found.append((geometry, [len(product.outvars) for product in plan.products]))
        return engine._run(cell, params, state, xs, False, mode=mode)

    compile_layer(forward, cell, (1024, batch, hidden), "h200")
    geometry, gates = found[0]
    shared = hopper.shared_bytes(gates, geometry.units, geometry.hidden)
    return f"{geometry.mode} {geometry.units} {geometry.blocks} {shared}"


def main() -> int:
    """Prints a table in Markdown; returns 1 if a program does not compile."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--hidden", nargs="+", type=int, default=HIDDEN)
    parser.add_argument("--heads", type=int, default=0, help="heads of a cell that has them")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--mode", default="", choices=("", "cluster", "grid"))
    parser.add_argument("--one", action="store_true", help="compile in this process")
    options = parser.parse_args()
    if options.one:
        hidden, heads = options.hidden[0], options.heads
        print(compile_one(options.cells[0], hidden, heads, options.batch, options.mode))
        return 0
    print(
        "| cell | H | blocks | shared memory | forward: registers, spilled | backward | seconds |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    failed = False
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "MOSAIC_GPU_DUMP_PTXAS": "1"}
    for name in options.cells:
        for hidden in options.hidden:
            command = [sys.executable, "-m", "docs.tools.fused_table", "--one"]
            command += ["--cells", name, "--hidden", str(hidden)]
            command += ["--batch", str(options.batch), "--heads", str(options.heads)]
            command += ["--mode", options.mode] if options.mode else []
            began = time.perf_counter()
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            seconds = time.perf_counter() - began
            reports = REPORT.findall(done.stdout + done.stderr)
            kernels = {which: f"{registers}, {spilled} B" for which, spilled, registers in reports}
            if done.returncode or len(kernels) < 2:
                failed = True
                print(f"| {name} | {hidden} | failed: {done.stderr.strip()[-300:]} |", flush=True)
                continue
            mode, units, blocks, shared = done.stdout.strip().splitlines()[-1].split()
            division = f"{mode}: {blocks} × {units}"
            used = f"{kernels['forward']} | {kernels['backward']}"
            row = f"| {name} | {hidden} | {division} | {int(shared):,} B | {used} | {seconds:.0f} |"
            print(row, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
