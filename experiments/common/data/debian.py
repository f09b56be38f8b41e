"""Debian packages as data: fetched once, checked by SHA-256, unpacked, never installed.

`apt-get download` fetches a package, because it already knows the user's mirrors, and `dpkg-deb -x`
unpacks it into the cache folder. Neither needs root, and neither runs anything of the package.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from experiments.common.data import fetch as _fetch
from experiments.common.errors import FetchError


@dataclass(frozen=True)
class DebianPackage:
    """One published package for all architectures, and what is in it.

    Args:
        name: the package's name.
        version: its exact version.
        sha256: the SHA-256 of the file, in hexadecimal.
        content: what an experiment takes from it, in a few words.
        licence: the licence of that content.
    """

    name: str
    version: str
    sha256: str
    content: str
    licence: str

    @property
    def requirement(self) -> str:
        """The pinned package, as apt-get writes it."""
        return f"{self.name}={self.version}"

    @property
    def filename(self) -> str:
        """The name that apt-get gives to the file."""
        return f"{self.name}_{self.version}_all.deb"


def fetch_package(package: DebianPackage, *, option: str, package_file: Path | None = None) -> Path:
    """Gives the folder that holds the package's unpacked files, fetching it if need be.

    Args:
        package: what to fetch.
        option: the command line option that takes the file instead; named in errors.
        package_file: the package, where it is at hand already.

    Raises:
        FetchError: a tool is missing, the download failed, or what came is not the pinned file.
    """
    # Named by the digest, and put there by one rename: what is there is whole, and the right one.
    folder = _fetch.cache_folder() / f"{package.name}-{package.sha256[:16]}"
    if folder.is_dir() and package_file is None:
        return folder
    remedy = _remedy(package, option)
    if package_file is not None:
        _fetch.check(package, package_file, remedy)
    elif shutil.which("apt-get") is None:
        raise FetchError(
            f"cannot fetch {package.requirement} ({package.content}): there is no apt-get here. "
            f"{remedy}"
        )
    if folder.is_dir():
        return folder
    if shutil.which("dpkg-deb") is None:
        raise FetchError(
            f"cannot unpack {package.filename}: there is no dpkg-deb here. Unpack the file "
            f"elsewhere, as `dpkg-deb -x {package.filename} {folder.name}` does, and bring the "
            f"folder here as {folder}"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as work:
            if package_file is None:
                package_file = _download(package, Path(work), remedy)
                _fetch.check(package, package_file, remedy)
            unpacked = Path(work) / "unpacked"
            done = _run(["dpkg-deb", "-x", str(package_file.absolute()), str(unpacked)], work)
            if done.returncode != 0:
                raise FetchError(f"dpkg-deb could not unpack {package_file}: {_reason(done)}")
            try:
                os.replace(unpacked, folder)
            except OSError:
                if not folder.is_dir():  # where it is, another process was faster
                    raise
    except OSError as error:
        raise FetchError(
            f"cannot keep {package.requirement} in the cache folder {folder.parent}: "
            f"{error.strerror}. Set {_fetch.CACHE_VARIABLE} to a folder that can be written to."
        ) from error
    return folder


def _download(package: DebianPackage, folder: Path, remedy: str) -> Path:
    done = _run(["apt-get", "-q", "download", package.requirement], str(folder))
    if done.returncode != 0:
        raise FetchError(
            f"apt-get could not download {package.requirement} ({package.content}): "
            f"{_reason(done)}. Is the network closed, or does `apt-get update` have to be run "
            f"first? {remedy}"
        )
    return next(folder.glob("*.deb"))


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _reason(done: subprocess.CompletedProcess) -> str:
    lines = [
        line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: error"))
    ]
    return lines[-1] if lines else f"exit status {done.returncode}"


def _remedy(package: DebianPackage, option: str) -> str:
    return (
        f"On a machine with Debian or Ubuntu and a network run `apt-get download "
        f"{package.requirement}`, bring the file {package.filename} here, and give its path to "
        f"{option}."
    )
