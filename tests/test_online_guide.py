"""The code in docs/online_learning.md runs and shows what the page says."""

import re

import numpy as np

from tests.support.pages import run


def test_the_examples_run(capsys):
    names = run("online_learning.md")
    for got, want in zip(names["exact"], names["backward"], strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    dense, diagonal = (
        int(number.replace(",", ""))
        for number in re.findall(r"RTRL\(\): ([\d,]+) numbers", capsys.readouterr().out)
    )
    assert dense > 20 * diagonal
    assert names["losses"][-100:].mean() < 0.2 * names["losses"][:100].mean()
    assert names["gradient"].bias.any()
