"""The code in docs/coming_from/ runs, and both frameworks agree."""

import importlib
import os
import re
import warnings

import numpy as np
import pytest

from tests.support.pages import blocks, pages, run

PAGES = [name for name in pages() if name.startswith("coming_from/") and blocks(name)]
PEERS = (
    r"^(?:import|from) (torch|keras|haiku|equinox|onnx|"
    r"xlstm|transformers|torchrecurrent|minGRU_pytorch|memax)\b"
)
os.environ.setdefault("KERAS_BACKEND", "jax")


def test_the_pages_are_there():
    names = ("pytorch", "keras", "linen", "nnx", "haiku", "equinox", "onnx")
    assert {f"coming_from/{name}.md" for name in names} <= set(PAGES)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES)
def test_every_line_runs_and_both_frameworks_agree(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some lines write files
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in re.findall(PEERS, "\n".join(blocks(page)), re.M):
            reason = f"{module} comes with the extras: parity, trained"
            pytest.importorskip(module, reason=reason)
            importlib.import_module(module)
        if page.endswith("keras.md"):
            pytest.importorskip("pyfive", reason="pyfive comes with the extra: keras")
        names = run(page)
    theirs = names["theirs"]
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else np.asarray(theirs)
    for name in {"ours", "from_packed"} & names.keys():
        np.testing.assert_allclose(names[name], theirs, rtol=1e-5, atol=2e-6, err_msg=name)
    assert "ours" in names
    if "converted" in names:
        converted = np.swapaxes(names["converted"], 0, 1)
        np.testing.assert_allclose(converted, names["ours"], rtol=1e-5, atol=2e-6)
