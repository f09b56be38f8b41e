"""Data sets from Debian packages: downloaded once, checked by SHA-256, unpacked, never installed.

`apt-get download` uses the mirrors of the machine, and `dpkg-deb -x` unpacks into the cache folder.
Neither needs root, and neither runs code of the package.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from experiments.common.data.fetch import (
    FetchError,
    Package,
    cache_folder,
    check,
    temporary_folder,
)


@dataclass(frozen=True)
class DebianPackage(Package):
    """A Debian package for all architectures."""

    separator = "="

    @property
    def filename(self) -> str:
        """The file name that apt-get uses."""
        return f"{self.name}_{self.version}_all.deb"


def fetch_package(package: DebianPackage, *, option: str, package_file: Path | None = None) -> Path:
    """The folder with the unpacked files of a package, which is fetched unless it is cached.

    Args:
        package: the package.
        option: the command-line option that takes a local file; named in errors.
        package_file: the file of the package; None downloads it.

    Raises:
        FetchError: a tool is missing, the download failed, or the file is not the pinned one.
    """
    # The name holds the digest, and one atomic rename creates the folder: it is always complete.
    folder = cache_folder() / f"{package.name}-{package.sha256[:16]}"
    if folder.is_dir() and package_file is None:
        return folder
    remedy = (
        f"Or run `apt-get download {package.requirement}` on a machine with Debian or Ubuntu and "
        f"network access, copy the file {package.filename} here, and pass its path to {option}."
    )
    if package_file is not None:
        check(package, package_file, remedy)
    elif shutil.which("apt-get") is None:
        raise FetchError(
            f"cannot fetch {package.requirement} ({package.content}): apt-get is not installed. "
            f"{remedy}"
        )
    if folder.is_dir():
        return folder
    if shutil.which("dpkg-deb") is None:
        raise FetchError(
            f"cannot unpack {package.filename}: dpkg-deb is not installed. Unpack the file on "
            f"another machine with `dpkg-deb -x {package.filename} {folder.name}`, and copy the "
            f"folder to {folder}"
        )
    with temporary_folder(package) as work:
        if package_file is None:
            package_file = _download(package, work, remedy)
            check(package, package_file, remedy)
        unpacked = Path(work) / "unpacked"
        done = _run(["dpkg-deb", "-x", str(package_file.absolute()), str(unpacked)], work)
        if done.returncode != 0:
            raise FetchError(f"dpkg-deb could not unpack {package_file}: {_reason(done)}")
        try:
            os.replace(unpacked, folder)
        except OSError:
            if not folder.is_dir():  # else another process created it first
                raise
    return folder


def _download(package: DebianPackage, folder: str, remedy: str) -> Path:
    done = _run(["apt-get", "-q", "download", package.requirement], folder)
    if done.returncode != 0:
        raise FetchError(
            f"apt-get could not download {package.requirement} ({package.content}): "
            f"{_reason(done)}. Check the network connection, or run `apt-get update` first. "
            f"{remedy}"
        )
    return next(Path(folder).glob("*.deb"))


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _reason(done: subprocess.CompletedProcess) -> str:
    lines = [
        line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: error"))
    ]
    return lines[-1] if lines else f"exit status {done.returncode}"
