"""A hook of MkDocs: pages of the site that are outside docs/, and links that lead out of it.

Links are written as they are right in the repository. On the site a link to a file of `PAGES` leads to its page, and a link to
any other file outside docs/ is its text alone, since the site has no such file.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = {  # file of the repository: page of the site
    "CHANGELOG.md": "changelog.md",
    "README.md": "overview.md",
    "config/README.md": "configuration.md",
    "resources/judges/README.md": "rubrics.md",
}
FENCED = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?\[([^\]]*)\])\(([^)\s]+)\)")


def source_of(page: str) -> str:
    """The file of the repository that a page of the site is made of."""
    sources = {name: source for source, name in PAGES.items()}
    return sources.get(page, f"docs/{page}")


def page_of(source: str) -> str | None:
    """The file of the site, relative to its root, that a file of the repository becomes; None where it has no place there."""
    return PAGES.get(source) or (source.removeprefix("docs/") if source.startswith("docs/") else None)


def target_of(link: str, source: str) -> str:
    """The file of the repository that a relative link of `source` leads to."""
    path = link.partition("#")[0]
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source


def with_links_of_the_site(text: str, source: str) -> str:
    """The text of a file of the repository with links as they are right on the site."""
    here = posixpath.dirname(page_of(source) or "")

    def link(match: re.Match[str]) -> str:
        label, words, address = match.groups()
        if "://" in address or address.startswith(("#", "mailto:")):
            return match[0]
        page = page_of(target_of(address, source))
        if page is None:
            return words
        anchor = "".join(address.partition("#")[1:])
        return f"{label}({posixpath.relpath(page, here or '.')}{anchor})"

    return "".join(part if k % 2 else LINK.sub(link, part) for k, part in enumerate(FENCED.split(text)))


def on_files(files, config):
    """Adds the pages that are outside docs/."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Puts the links right."""
    return with_links_of_the_site(markdown, source_of(page.file.src_uri))
