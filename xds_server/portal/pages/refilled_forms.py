"""Forms of a page with what a person has typed, after they were rejected. It does no IO.

It works on the HTML of the portal's own templates, in which values are escaped and attributes have double quotes. So no page needs to
know how its forms look after an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape, unescape

_FORM = re.compile(r"<form\b.*?</form>", re.DOTALL)
_FIELD = re.compile(r"<input\b[^>]*>|<textarea\b.*?</textarea>|<select\b.*?</select>", re.DOTALL)
_OPTION = re.compile(r"<option\b[^>]*>[^<]*")
_UNSENT = frozenset({"csrf", "version"})
"""Fields of the page itself, which keep their values."""


def refilled(page: str, path: str, form: Mapping[str, str], field: str, message_id: str) -> str:
    """Return a page with a form as it was sent to `path`, in which the field that is wrong is marked.

    `message_id` is the `id` of the element that says what is wrong. The page stays as it is if it has no such form.
    """
    for found in _FORM.finditer(page):
        if _is_sent(found[0], path, form):
            filled = _FIELD.sub(lambda one: _filled(one[0], form, field, message_id), found[0])
            return page[: found.start()] + filled + page[found.end() :]
    return page


def _is_sent(html: str, path: str, form: Mapping[str, str]) -> bool:
    """True if a form leads to the path, has the hidden values that were sent, and the button that was pressed."""
    start = html[: html.index(">") + 1]
    if _attribute(start, "method") != "post" or _attribute(start, "action") not in (None, path):
        return False
    for tag in re.findall(r"<input\b[^>]*>", html):
        name = _attribute(tag, "name") or ""
        if (
            _attribute(tag, "type") == "hidden"
            and name not in _UNSENT
            and form.get(name) != _attribute(tag, "value")
        ):
            return False
    return "action" not in form or f'name="action" value="{escape(form["action"])}"' in html


def _filled(html: str, form: Mapping[str, str], field: str, message_id: str) -> str:
    end = html.index(">") + 1
    start, rest = html[:end], html[end:]
    name, kind = _attribute(start, "name"), _attribute(start, "type")
    if name is None or kind == "hidden":
        return html
    sent = form.get(name)
    if kind == "checkbox":
        start = _without(start, "checked")
        if sent is not None and _attribute(start, "value") in sent.split(","):
            start = _with(start, "checked")
    elif sent is not None:
        if start.startswith("<input"):
            start = _with(_without(start, "value"), f'value="{escape(sent)}"')
        elif start.startswith("<textarea"):
            rest = f"\n{escape(sent)}</textarea>"  # HTML ignores a line break at the beginning
        else:
            rest = _OPTION.sub(lambda one: _chosen(one[0], sent), rest)
    if name == field:
        start = _with(start, f'aria-invalid="true" aria-describedby="{message_id}"')
    return start + rest


def _chosen(html: str, sent: str) -> str:
    start, _, text = html.partition(">")
    value = _attribute(f"{start}>", "value")
    start = _without(f"{start}>", "selected")
    chosen = (unescape(text) if value is None else value) == sent
    return (_with(start, "selected") if chosen else start) + text


def _attribute(tag: str, name: str) -> str | None:
    found = re.search(rf'\s{name}="([^"]*)"', tag)
    return None if found is None else unescape(found[1])


def _without(tag: str, name: str) -> str:
    return re.sub(rf'\s{name}(="[^"]*")?(?=[\s>])', "", tag)


def _with(tag: str, attribute: str) -> str:
    return f"{tag[:-1]} {attribute}>"
