"""The code in docs/online_learning.md runs and shows what the page says."""

import pathlib
import re

import jax
import numpy as np

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "online_learning.md"


def test_the_examples_run(capsys):
    text = PAGE.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    names = {}
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        exec(compile(code, PAGE.name, "exec"), names)
    for got, want in zip(names["exact"], names["backward"], strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    dense, diagonal = (
        int(number.replace(",", ""))
        for number in re.findall(r"RTRL\(\): ([\d,]+) numbers", capsys.readouterr().out)
    )
    assert dense > 20 * diagonal
    assert names["losses"][-100:].mean() < 0.2 * names["losses"][:100].mean()
    assert names["gradient"].bias.any()
