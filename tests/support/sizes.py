"""Prints the size of each experiment with all that it imports, and fails where one has grown.

python -m tests.support.sizes
"""

import sys
from operator import gt
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Size(NamedTuple):
    """Files that hold anything, and their lines."""

    files: int
    lines: int


LIMITS = {
    "experiments": Size(120, 13_980),
    "experiments.char_lm": Size(18, 2_400),
    "experiments.speech": Size(25, 3_600),
}
"""A reader's patience: what may be read before an experiment is understood."""


def measure(files: list[Path]) -> Size:
    """The size of some files; empty ones (most `__init__.py`) do not count."""
    lines = [len(file.read_text(encoding="utf-8").splitlines()) for file in files]
    return Size(sum(map(bool, lines)), sum(lines))


def of_package(name: str) -> Size:
    """The size of a package."""
    return measure(sorted((ROOT / name).rglob("*.py")))


def of_experiments() -> dict[str, Size]:
    """The size of each experiment with its transitive imports from `experiments`."""
    import grimp  # comes with the extra dev

    graph = grimp.build_graph("experiments")
    sizes = {}
    for package in sorted(graph.find_children("experiments") - {"experiments.common"}):
        modules = {package, *graph.find_descendants(package)}
        modules |= {up for module in modules for up in graph.find_upstream_modules(module)}
        sizes[package] = measure([_file(module) for module in sorted(modules)])
    return sizes


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def main() -> int:
    """Prints all sizes; the exit status says whether one is over its limit."""
    sizes = {name: of_package(name) for name in ("experiments", "jaxrnn")} | of_experiments()
    over = {name for name, limit in LIMITS.items() if any(map(gt, sizes[name], limit))}
    for name, size in sizes.items():
        limit = f"  limit {LIMITS[name]}" if name in LIMITS else ""
        print(f"{name:<30}{size.files:>4} files {size.lines:>6} lines{limit}")
    for name in sorted(over):
        print(f"{name} is larger than {LIMITS[name]}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
