"""Fetching: wheels are fetched once and checked, and errors name the remedy. Never the network."""

import subprocess
import tarfile
from pathlib import Path

import pytest

from experiments.common.data import fetch as _fetch
from experiments.common.data.fetch import FetchError, Wheel, read_text
from tests.support.wheels import build_wheel, needs_pip


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder of packages that pip finds, with an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_REQUIRE_HASHES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv(_fetch.CACHE_VARIABLE, str(tmp_path / "cache"))
    return index


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip was started"))


# Fetching -----------------------------------------------------------------------------------------


@needs_pip
def test_fetches_once_and_reads_without_importing(index, tmp_path, monkeypatch):
    wheel = build_wheel(index, {"tinyplays/plays/a.md": "A", "tinyplays/b.txt": "B"})
    path = _fetch.fetch(wheel, option="--data")
    assert path.parent == tmp_path / "cache"
    assert _fetch.members(path, "tinyplays/plays/", ".md") == {"tinyplays/plays/a.md": b"A"}
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("fetched twice"))
    assert _fetch.fetch(wheel, option="--data") == path


@needs_pip
def test_a_damaged_cache_is_fetched_again(index):
    wheel = build_wheel(index, {})
    path = _fetch.fetch(wheel, option="--data")
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    assert _fetch.fetch(wheel, option="--data").read_bytes() == sound


@needs_pip
def test_another_file_than_the_pinned_one_is_refused_and_not_kept(index, tmp_path):
    wheel = build_wheel(index, {})
    pinned = Wheel("tinyplays", "1.0", "0" * 64, "small plays", "none")
    with pytest.raises(FetchError) as caught:
        _fetch.fetch(pinned, option="--data")
    message = str(caught.value)
    assert wheel.sha256 in message and "0" * 64 in message and "--data" in message
    assert not list((tmp_path / "cache").iterdir())


@needs_pip
def test_a_closed_network_gives_the_package_and_the_option(index):
    wheel = Wheel("tinyplays", "1.0", "0" * 64, "small plays", "none")
    with pytest.raises(FetchError) as caught:
        _fetch.fetch(wheel, option="--data")
    message = str(caught.value)
    assert "No matching distribution found for tinyplays==1.0" in message
    assert "pip download --no-deps --only-binary=:all: tinyplays==1.0" in message
    assert "give its path to --data" in message
    assert "://" not in message


@needs_pip
def test_a_source_distribution_is_never_built(index, tmp_path):
    mark = tmp_path / "executed"
    script = tmp_path / "setup.py"
    script.write_text(f"open({str(mark)!r}, 'w')")
    with tarfile.open(index / "tinyplays-1.0.tar.gz", "w:gz") as archive:
        archive.add(script, "tinyplays-1.0/setup.py")
    wheel = Wheel("tinyplays", "1.0", "0" * 64, "small plays", "none")
    with pytest.raises(FetchError, match="cannot fetch"):
        _fetch.fetch(wheel, option="--data")
    assert not mark.exists()


def test_without_pip_the_remedy_needs_no_pip_here(index, monkeypatch, no_download):
    monkeypatch.setattr(_fetch.importlib.util, "find_spec", lambda name: None)
    wheel = Wheel("tinyplays", "1.0", "0" * 64, "small plays", "none")
    with pytest.raises(FetchError, match=r"has no pip.* tinyplays-1\.0-py3-none-any\.whl.*--data"):
        _fetch.fetch(wheel, option="--data")


def test_a_cache_that_cannot_be_written_names_its_variable(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(_fetch.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match="Set JAXRNN_CACHE"):
        _fetch.fetch(Wheel("tinyplays", "1.0", "0" * 64, "", ""), option="--data")


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv(_fetch.CACHE_VARIABLE, raising=False)
    assert _fetch.cache_folder() == Path("/somewhere/jaxrnn")
    monkeypatch.setenv(_fetch.CACHE_VARIABLE, "~/mine")
    assert _fetch.cache_folder() == Path.home() / "mine"


# The user's own text ------------------------------------------------------------------------------


def test_own_text_is_read_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_bytes("Größe\n— so!".encode())
    assert read_text(tmp_path / "mine.txt") == "Größe\n— so!"


def test_own_text_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FetchError, match="cannot read .*absent.txt: No such file"):
        read_text(tmp_path / "absent.txt")
    (tmp_path / "mine.txt").write_bytes(b"abc\xff")
    with pytest.raises(FetchError, match=r"mine.txt is not text in UTF-8 \(byte 3\)"):
        read_text(tmp_path / "mine.txt")
