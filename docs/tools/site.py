"""MkDocs' hooks: the pages that are made at build, and links that hold on GitHub and on the site.

The front page is README.md, and the page of experiments is experiments/README.md. The catalogue and
the page of each family of cells are made from the docstrings: see `docs.tools.families`.
"""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from docs.tools import families  # noqa: E402

CATALOGUE = "<!-- catalogue -->"
ELSEWHERE = {
    "index.md": "README.md",
    "experiments.md": "experiments/README.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site that are files outside of docs/."""


def on_files(files, config):
    """Adds the pages from outside of docs/ and the families of cells."""
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=as_on_site(text, source)))
    for name in families.FAMILIES:
        page = File.generated(config, f"cells/{name}.md", content=families.page(name))
        files.append(page)
    return files


def on_page_markdown(markdown, page, config, files):
    """Puts the catalogue into its page, and turns links out of docs/ into links within the site."""
    source = page.file.src_uri
    if CATALOGUE in markdown:
        markdown = markdown.replace(CATALOGUE, families.catalogue())
    return markdown if source in ELSEWHERE else as_on_site(markdown, f"docs/{source}")


def as_on_site(text, source):
    """The text of a file of the repository with its links as they are on the site.

    Args:
        text: Markdown.
        source: the file's path in the repository.
    """
    pages = {path: page for page, path in ELSEWHERE.items()}
    own = pages.get(source, source.removeprefix("docs/"))

    def link(match):
        target, anchor = match[1], match[2] or ""
        if "://" in target or not target:
            return match[0]
        full = (ROOT / source).parent.joinpath(target).resolve()
        inside = full.relative_to(ROOT).as_posix()
        page = pages.get(inside) or inside.removeprefix("docs/")
        if page == inside and not inside.startswith("docs/"):
            return match[0]  # a file that is no page: MkDocs reports it
        up = "../" * own.count("/")
        return f"]({up}{page}{anchor})"

    return re.sub(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", link, text)
