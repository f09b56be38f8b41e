"""The code in docs/fixed_points.md and docs/recurrent_policies.md runs and shows what they say."""

import re

import jax
import numpy as np
import pytest

from tests.support.pages import DOCS, run


def test_fixed_points(capsys):
    pytest.importorskip("optimistix", reason="it comes with the extra: analysis")
    names = run("fixed_points.md")
    points, outputs = names["points"], names["outputs"]
    assert names["values"][-20:].mean() < 0.01
    corners = {tuple(np.sign(output)) for output in outputs[points.stable]}
    assert points.stable.sum() == len(corners) == 4
    np.testing.assert_allclose(np.abs(outputs[points.stable]), 1, atol=0.3)
    assert (points.unstable_directions == 1).sum() >= 2
    assert "1 unstable directions" in capsys.readouterr().out
    assert 1 < names["dimensions"] < 8
    assert len(names["figure"].axes) == 2


def test_recurrent_policies():
    names = run("recurrent_policies.md")
    assert names["starts"][1:].any()
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(names["gradients"]))
    assert names["ys"].shape == (50, 16, 32)


@pytest.mark.parametrize("name", ["fixed_points.md", "recurrent_policies.md"])
def test_links_lead_to_files_and_headings(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        path, _, heading = link.partition("#")
        target = (DOCS / path).resolve()
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert not heading or heading in {h.lower().replace(" ", "-") for h in headings}, link
