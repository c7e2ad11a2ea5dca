"""Markdown as HTML that cannot do harm: no HTML of the author, no scripts, and links to http(s) and mail only."""

from __future__ import annotations

import re
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
_HEADING, _END = re.compile(r"<h([1-6])>"), re.compile(r"</h([1-6])>")
_READER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


@lru_cache(maxsize=256)
def html(text: str, top: int = 2) -> Markup:
    """Return a text as HTML. Its headings begin at the level `top`, below that of the page's own."""
    rendered = _READER.render(text[:LONGEST])
    levels = [int(one) for one in _HEADING.findall(rendered)]
    shift = top - min(levels, default=top)
    rendered = _HEADING.sub(lambda match: f"<h{min(int(match[1]) + shift, 6)}>", rendered)
    rendered = _END.sub(lambda match: f"</h{min(int(match[1]) + shift, 6)}>", rendered)
    cleaned = nh3.clean(
        rendered,
        tags=set(_TAGS),
        attributes={"a": {"href", "title"}},
        url_schemes={"http", "https", "mailto"},
    )
    return Markup(cleaned)  # noqa: S704 - nh3 has cleaned it


def without_title(text: str, title: str) -> str:
    """Return a text without its first heading, if that is the title, which the page shows itself."""
    return re.sub(
        rf"\A\ufeff?\s*#{{1,6}}[ \t]+{re.escape(title)}[ \t#]*$", "", text, count=1, flags=re.MULTILINE
    )
