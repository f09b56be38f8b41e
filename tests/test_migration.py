"""The code in docs/coming_from.md runs, and both frameworks agree."""

import importlib
import os
import pathlib
import re
import warnings

import jax
import numpy as np
import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "coming_from.md"
PEERS = (
    r"^(?:import|from) (torch|keras|haiku|equinox|onnx|"
    r"xlstm|transformers|torchrecurrent|minGRU_pytorch|memax)\b"
)
os.environ.setdefault("KERAS_BACKEND", "jax")


def sections():
    """The blocks of code before the first subheading, and those of each section by its title."""
    page = PAGE.read_text(encoding="utf-8")
    first, *rest = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
    blocks = {title: _blocks(body) for title, body in zip(rest[::2], rest[1::2], strict=True)}
    return _blocks(first), blocks


def _blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


FIRST, SECTIONS = sections()


def test_the_page_is_there():
    assert {"PyTorch", "Flax linen", "Flax nnx", "Haiku", "Equinox", "ONNX"} <= SECTIONS.keys()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("title", SECTIONS)
def test_every_line_runs_and_both_frameworks_agree(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some lines write files
    code = "\n".join(FIRST + SECTIONS[title])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in re.findall(PEERS, code, re.M):
            reason = f"{module} comes with the extras: parity, trained"
            pytest.importorskip(module, reason=reason)
            importlib.import_module(module)
        if title.startswith("Keras"):
            pytest.importorskip("pyfive", reason="pyfive comes with the extra: keras")
        names = {}
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            exec(compile(code, f"{PAGE.name}, {title}", "exec"), names)
    if "theirs" in names:
        theirs = names["theirs"]
        theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else np.asarray(theirs)
        np.testing.assert_allclose(names["ours"], theirs, atol=2e-6)
    if "converted" in names:
        converted = np.swapaxes(names["converted"], 0, 1)
        np.testing.assert_allclose(converted, names["ours"], atol=2e-6)
