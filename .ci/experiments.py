"""Runs every experiment for two steps on a small part of its real data, and fails if one fails.

    python .ci/experiments.py FOLDER

Where the data cannot be fetched (no network, or no apt-get), the experiment is reported as not run.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

TWO = "--steps 2 --warmup 1"
COMMANDS = (
    f"char_lm {TWO} --hidden 32 --batch 8 --sample 40",
    f"char_lm strong {TWO} --hidden 32 --batch 8 --sample 40",
    f"forecast {TWO} --hidden 8 --layers 1 --test 2000 --valid 1000",
    f"autoencode {TWO} --hidden 8 --test 2000",
    f"classify {TWO} --hidden 8 --members 1 --seeds 1",
    f"classify {TWO} --hidden 8 --members 1 --seeds 1 --data mnist-rows --precision bfloat16",
    f"long_memory {TWO} --hidden 8 --length 20",
    f"gradient_flow {TWO} --hidden 8 --length 20 --measured 2",
    f"flip_flop {TWO} --hidden 8 --time 10 --seeds 1 --candidates 16",
    "flip_flop.online --hidden 4 --rows 2 --steps 10 --chunk 5 --seeds 1",
    "memory_rl --iterations 2 --environments 8 --time 16 --hidden 8 --seeds 1 --tested 8",
    f"pronunciation {TWO} --hidden 16 --words 400",
    f"translation {TWO} --hidden 16 --pairs 4000 --merges 200",
    f"speech {TWO} --hidden 16 --layers 1 --batch 4 --longest 3 --letters 16",
    "benchmark.parallel_in_time --cells min-gru --lengths 16 --unrolls 1 --rounds 1"
    " --driven elman --scales 0.5 --driven-hidden 4 --driven-length 20",
    "benchmark --grid tiny --points 1 --cells gru --nets one-layer --rounds 2 --matrix 64"
    " --engines auto --peers scan torch",
    "benchmark.from_flax --steps 2 --hidden-size 8 --points",
    "benchmark.cells_by_hand --time 4 --batch 2 --rounds 1 --points 4 --cells BRC ConvLSTM(1D)",
)


def run(command: str, out: str) -> bool:
    """Runs one of them, says how it went, and returns whether it failed."""
    name, *options = command.split()
    if name not in ("benchmark.from_flax", "benchmark.cells_by_hand"):  # which write nothing
        options += ["--out", out]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode == 0:
        print(f"{command}: {seconds:.0f} s", flush=True)
        return False
    if "cannot fetch" in done.stdout or "could not download" in done.stdout:
        print(f"{command}: NOT RUN\n{done.stdout[-600:]}", flush=True)
        return False
    print(f"{command}: FAILED\n{done.stdout[-4000:]}", flush=True)
    return True


def main(folder: str) -> int:
    """Runs all of them, one a core as most of their time is compilation; how many failed."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        folders = [f"{folder}/{number}" for number in range(len(COMMANDS))]
        return sum(pool.map(run, COMMANDS, folders))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
