"""Creates the golden files from the peers, or reports which of them would differ.

    python -m tests.parity.make_golden            writes all files
    python -m tests.parity.make_golden --missing  writes the files of new comparisons only
    python -m tests.parity.make_golden --check    writes nothing, compares them bit for bit

Needs the extra ``parity`` and, for the peers in ``peers.TRAINED``, the packages that they name. The
files were made by the versions that MADE_WITH names; on another machine or with other versions the
last bits may differ, which the tests' tolerances allow.
"""

import importlib.metadata
import sys

import jax

import conftest  # noqa: F401  the suite's settings: float64
from tests.parity import golden
from tests.parity.comparison import record
from tests.parity.peers import COMPARISONS

PACKAGES = ("jax", "torch", "keras", "flax", "dm-haiku", "equinox", "onnx", "numpy")
PACKAGES += ("torchrecurrent", "minGRU-pytorch", "memax", "xlstm", "recurrentgemma", "transformers")
VERSIONS = golden.FOLDER / "MADE_WITH"


def main() -> int:
    """Returns how many files differ from what the peers give now."""
    check, missing = (option in sys.argv[1:] for option in ("--check", "--missing"))
    jax.config.update(
        "jax_compilation_cache_dir", None
    )  # a cached program may be another machine's
    golden.FOLDER.mkdir(exist_ok=True)
    differing = []
    for comparison in COMPARISONS:
        if missing and golden.path(comparison.name).exists():
            continue
        data = golden.encode(record(comparison))
        file = golden.path(comparison.name)
        if not file.exists() or file.read_bytes() != data:
            differing.append(comparison.name)
            if not check:
                file.write_bytes(data)
    if not check:
        lines = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
        VERSIONS.write_text("\n".join(lines) + "\n")
    print(f"{len(COMPARISONS)} comparisons; these differ from their files: {differing or 'none'}")
    return len(differing) if check else 0


if __name__ == "__main__":
    sys.exit(main())
