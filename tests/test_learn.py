"""The pages of docs/learn/: their code runs, and prints what stands below it."""

import pathlib
import re

import jax
import pytest

LEARN = pathlib.Path(__file__).parents[1] / "docs" / "learn"
PAGES = sorted(page.name for page in LEARN.glob("*.md"))
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PAGES)
def test_the_code_runs_and_prints_the_output_below_it(name, capsys):
    text = (LEARN / name).read_text(encoding="utf-8")
    names, printed = {}, ""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        for kind, body in BLOCK.findall(text):
            if kind == "python":
                assert not printed, f"no block of text shows {printed!r}"
                exec(compile(body, name, "exec"), names)
                printed = capsys.readouterr().out
            else:
                assert printed == body
                printed = ""
    assert not printed, f"no block of text shows {printed!r}"
