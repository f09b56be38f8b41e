"""The public names of the library, read from its files: no module is imported.

Each public name has one page of the reference; ``docs/reference/*.md`` says which.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "jaxrnn"


def public_modules() -> dict[str, Path]:
    """The files of the package's public modules by their dotted names, the package itself first."""
    found = {"jaxrnn": PACKAGE / "__init__.py"}
    for path in sorted(PACKAGE.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        file = path / "__init__.py" if path.is_dir() else path
        if file.suffix == ".py" and file.is_file():
            found[f"jaxrnn.{path.stem}"] = file
    return found


def exported(file: Path) -> list[str]:
    """The names in ``__all__``, or the public definitions of a module without one.

    What is imported from another library, such as Flax's ``Bidirectional``, is documented there.
    """
    names, lists, foreign = [], [], set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            lists += ast.literal_eval(node.value)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            names.append(node.name)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("jaxrnn"):
            foreign |= {alias.asname or alias.name for alias in node.names}
    return [name for name in lists or names if name not in foreign]


def public_names() -> dict[str, str]:
    """Each public object's path, such as ``jaxrnn.engines.Auto``, by its name in backticks.

    A name that several modules share is that of the package itself (``Cell``), or has to be written
    with its module (``linen.RNN``).
    """
    modules = public_modules()
    cells = exported(modules.pop("jaxrnn.cells"))
    paths = [f"jaxrnn.{name}" for name in cells]
    for module, file in modules.items():
        paths += [f"{module}.{name}" for name in exported(file)]
    paths = [path for path in paths if path not in modules and path != "jaxrnn.cells"]
    short: dict[str, list[str]] = {}
    for path in paths:
        parts = path.split(".")
        for start in range(len(parts)):
            short.setdefault(".".join(parts[start:]), []).append(path)
    return {
        name: next((path for path in found if path == f"jaxrnn.{name}"), found[0])
        for name, found in short.items()
        if len(found) == 1 or f"jaxrnn.{name}" in found
    }
