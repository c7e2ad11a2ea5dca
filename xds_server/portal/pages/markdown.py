"""Markdown as HTML that cannot do harm: no HTML of the author, no scripts, and links to http(s) and mail only."""

from __future__ import annotations

from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

LONGEST = 1_000_000
"""Characters that are shown. The rest is left out."""
_TAGS = frozenset(
    [
        "a",
        "blockquote",
        "br",
        "code",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "ol",
        "p",
        "pre",
        "s",
        "strong",
        "table",
        "tbody",
        "td",
        "th",
        "thead",
        "tr",
        "ul",
    ]
)
_READER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


@lru_cache(maxsize=256)
def html(text: str) -> Markup:
    """Return a text as HTML. Headings begin at h3, below those of the page."""
    rendered = _READER.render(text[:LONGEST])
    for level in (4, 3, 2, 1):
        new = min(level + 2, 6)
        rendered = rendered.replace(f"<h{level}>", f"<h{new}>").replace(f"</h{level}>", f"</h{new}>")
    cleaned = nh3.clean(
        rendered,
        tags=set(_TAGS),
        attributes={"a": {"href", "title"}},
        url_schemes={"http", "https", "mailto"},
    )
    return Markup(cleaned)  # noqa: S704 - nh3 has cleaned it
