"""Run in a separate process with four devices: contenders of the benchmark, a device a core."""

import numpy as np

import conftest  # noqa: F401  (the suite's settings)
from experiments.benchmark.grids import Config
from experiments.benchmark.peers import PASSES, Workload
from experiments.benchmark.timing import difference


def main() -> None:
    config = Config(cells=("lstm",), peers=("scan",))
    contenders = {contender.title: contender for contender in config.contenders()}
    for name in ("Auto", "plain lax.scan"):
        one, spread = contenders[name], contenders[f"{name}, a device a core"]
        assert "not a multiple" in str(spread.why_not(Workload("lstm", 3, 2, 3, 4)))
        for bidirectional in (False, True):
            workload = Workload("lstm", 3, 8, 3, 4, bidirectional=bidirectional)
            assert spread.why_not(workload) is None
            for which in PASSES:
                alone, together = (c.build(workload).program(which) for c in (one, spread))
                assert difference(together.values(), alone.values()) < 1e-5
                memory = alone.total_bytes, together.total_bytes
                assert np.all(memory) and memory[1] < 0.6 * memory[0], memory


if __name__ == "__main__":
    main()
