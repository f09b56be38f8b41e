"""The documentation site: every public name has a page, and the strict build has no warning.

`python -m pytest -m thorough tests/test_site.py` builds it; the extra docs has what it needs. With
Playwright's package and Chromium on the path, every page is opened in a browser, too.
"""

import collections
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import zlib

import pytest

from docs.tools import families, names
from tests.support.pages import DOCS, ROOT, blocks, pages

MODULES = [name for name in names.public_modules() if name != "jaxrnn.cells"]


@functools.cache
def documented():
    """The names for which a page has the directive of mkdocstrings."""
    texts = [(DOCS / page).read_text("utf-8") for page in pages()]
    texts += [families.page(name) for name in families.FAMILIES]
    return re.findall(r"^::: ([\w.]+)$", "\n".join(texts), flags=re.MULTILINE)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_one_page(module):
    found = [name for name in documented() if name.rpartition(".")[0] == module]
    public = {path for path in names.public_names().values() if path.rpartition(".")[0] == module}
    assert sorted(found) == sorted(public)


def test_the_public_names_are_those_that_python_exports():
    import jaxrnn

    modules, public = names.public_modules(), set(names.public_names().values())
    assert {f"jaxrnn.{name}" for name in jaxrnn.__all__} <= public | set(modules)
    for name in ("engines", "layers", "wrappers", "learning", "decoding", "analysis", "convert"):
        own = f"jaxrnn.{name}."
        exported = {own + one for one in getattr(jaxrnn, name).__all__}
        assert exported == {path for path in public if path.startswith(own)}


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    listed = set(re.findall(r"[\w/]+\.md", navigation))
    made = {f"cells/{name}.md" for name in families.FAMILIES}
    assert listed == set(pages()) | made | {"index.md", "experiments.md", "changelog.md"}


def test_every_picture_has_a_background_of_its_own():
    """Else its black text is invisible where the site is dark."""
    background = re.compile(r'<g id="patch_1">\s*<path [^>]*style="fill: #ffffff"')
    pictures = sorted(DOCS.rglob("*.svg"))
    assert pictures
    assert [path.name for path in pictures if not background.search(path.read_text("utf-8"))] == []


def test_nothing_is_said_twice():
    """No run of twelve words of prose is on two pages."""
    where = collections.defaultdict(set)
    for page in [*pages(), "../README.md", "../experiments/README.md"]:
        text = re.sub(r"^```.*?^```", " | ", (DOCS / page).read_text("utf-8"), flags=re.M | re.S)
        for paragraph in re.split(r"\n\s*\n|\|", text):
            words = re.findall(r"\w+(?:[,.]\d+)*", re.sub(r"\]\([^)]*\)", " ", paragraph).lower())
            for first in range(len(words) - 11):
                where[" ".join(words[first : first + 12])].add(page)
    assert {run: found for run, found in where.items() if len(found) > 1} == {}


# An interpreter of its own, since the number of devices is set before the first computation.
@pytest.mark.thorough
@pytest.mark.parametrize("page", ["devices.md", "parallel_in_time.md"])
def test_the_code_for_several_devices_runs(page):
    count = {"devices.md": 2, "parallel_in_time.md": 8}[page]
    code = "\n".join(blocks(page)) + f"\nassert len(jax.devices()) == {count}"
    flags = os.environ.get("XLA_FLAGS", "")
    if page == "parallel_in_time.md":  # devices.md sets the number itself
        flags = f"{flags} --xla_force_host_platform_device_count={count}"
    env = os.environ | {"XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=env)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    pytest.importorskip("mkdocs", reason="it comes with the extra: docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    quiet = {"NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.mark.thorough
def test_the_site_has_an_anchor_for_every_public_name(site):
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    anchors = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    assert set(names.public_names().values()) <= anchors


@pytest.mark.thorough
def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"https?://[^>]*>", text), (
            page
        )


@pytest.mark.thorough
def test_the_catalogue_has_a_row_for_every_cell_with_its_family(site):
    text = (site / "cells" / "index.html").read_text("utf-8")
    for name, family in families.FAMILIES.items():
        assert text.count(f'<tr data-family="{name}">') == len(family.cells)


@pytest.mark.thorough
def test_equations_of_cells_are_displays(site):
    text = (site / "cells" / "lstm" / "index.html").read_text("utf-8")
    assert text.count('<div class="arithmatex">') >= len(families.FAMILIES["lstm"].cells)
    assert r"\tanh ( c ' )" in text


# In a browser -------------------------------------------------------------------------------------

PROBE = """() => ({
  wider: Math.max(0, document.scrollingElement.scrollWidth - innerWidth),
  broken: [...document.images].filter((i) => !(i.complete && i.naturalWidth)).map((i) => i.src),
  plain: [...document.querySelectorAll(".arithmatex")].filter(
    (e) => !e.querySelector(".katex") || e.querySelector(".katex-error")
  ).map((e) => e.textContent),
})"""


@pytest.fixture(scope="module")
def browser():
    """Chromium, by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium on the path")
    with playwright.sync_playwright() as run:
        chromium = run.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(site):
    """Where a server of the built site listens."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.thorough
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_every_page_fits_and_shows_its_equations_and_pictures(
    site, browser, address, width, scheme
):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    page, errors, found = context.new_page(), [], {}
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: line.type == "error" and errors.append(line.text))
    for path in sorted(site.rglob("index.html")):
        name = path.parent.relative_to(site).as_posix()
        page.goto(f"{address}/{name}/", wait_until="load")
        seen = {what: value for what, value in page.evaluate(PROBE).items() if value}
        if seen or errors:
            found[name] = seen | {"errors": list(errors)}
            errors.clear()
    context.close()
    assert found == {}
