"""What mkdocs does for the site beyond its own parts.

The navigation by folders, links to files outside of docs/, and the language of pages.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

SECTIONS = {
    "Tutorials": "tutorials",
    "How-to": "how-to",
    "Reference": "reference",
    "Explanation": "explanation",
    "Decisions": "decisions",
    "한국어": "ko",
}
"""The tabs of the site, by the folders of their pages."""
FIRST = ("README.md", "architecture.md", "glossary.md", "style.md")
"""Pages that belong to no tab of their own."""
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)\s]*)\)")


def on_config(config: Any) -> Any:
    """Make the navigation: one tab for each folder, its pages in the order of their names."""
    docs = Path(config.docs_dir)
    config.nav = [
        {"Start": list(FIRST)},
        *(
            {title: sorted(one.relative_to(docs).as_posix() for one in (docs / folder).rglob("*.md"))}
            for title, folder in SECTIONS.items()
        ),
    ]
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Lead links to files outside of docs/ to the repository, or make them plain text if there is none."""

    def outside(found: re.Match[str]) -> str:
        text, link = found[1], found[2]
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), link))
        if path.startswith("docs/"):
            return found[0]
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})" if config.repo_url else text

    return _LINK.sub(outside, markdown)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Give Korean pages their language, which browsers and screen readers choose fonts and voices by."""
    if not page.file.src_uri.startswith("ko/"):
        return output
    return output.replace('<html lang="en"', '<html lang="ko"', 1)
