"""The code of the documentation's pages, which the tests run."""

import pathlib
import re

import jax

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"


def pages() -> list[str]:
    """Every page of the documentation, as a path below docs/."""
    return sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def blocks(name: str, language: str = "python") -> list[str]:
    """The blocks of code of a page in one language."""
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run(name: str) -> dict:
    """Runs the Python code of a page as one program, and returns its names."""
    names = {}
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        exec(compile("\n".join(blocks(name)), name, "exec"), names)
    return names
