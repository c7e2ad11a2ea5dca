"""A substitution is taken if the rewritten path is certain to begin with a slash."""

from __future__ import annotations

import pytest

from xds_server.gateway.model import regex, substitutions

TAKEN = [
    (r"^/users(/.*)$", r"\1"),
    (r"[^/]+$", "x"),
    (r"[^/]*$", "x"),
    (r"\.json$", ""),
    (r"^/(users)(/.*)$", r"\2/\1"),
    (r"/re/(\d+)", r"/n/\1"),
    ("^", "/v1"),
    ("^/a", r"\0b"),
    ("/+", "/"),
    (r"^/a((?:/b|/c)+)$", r"\1"),
    (r"^/a(?P<rest>[/].*)$", r"\1"),
    (r"^/a(\x2fb)$", r"\1"),
    (r"^/a(?i)(/B)", r"\1"),
    (r"\Q.json\E$", ""),
    ("%2F", "-"),
    ("[a-z]+", "x"),
    ("x*", ""),
    (r"^/(?:a|b)(/c)", r"\1"),
    (r"^/a(/b|/c)", r"\1"),
]
REFUSED = [
    ("[^/]*/rw", "x"),
    ("((/rq/a)|/rq/b)", r"\2x"),
    ("(/a)|/b", r"\1x"),
    ("(?:(/a))?/b", r"\1x"),
    ("(?:(/a)){0,2}/b", r"\1x"),
    ("((/a))*/b", r"\2x"),
    ("^[^/]?/a", "x"),
    ("[^/]x|/a", "b"),
    ("(?:(/x)|.y).*", r"\1z"),
    ("x*", "y"),
    ("^", "x"),
    ("$|^", "x"),
    ("x*", r"\0y"),
    ("(?:|/a)", "b"),
    (r"^/a($|/x)", r"\1"),
    (r"^/a(/?)b", r"\1c"),
    (r"^/a(/*b)", r"\1"),
    (r"^/a([/b]c)", r"\1"),
    (r"^/a(/b|c)", r"\1"),
    (r"^/a(.*)", r"\1"),
    (r"^/a(b)", r"\1"),
    (r"\Q/a\E", "b"),
    (r"\x2fa", "b"),
    ("(?s).a", "b"),
    ("/a", ""),
    (r"\W", ""),
    ("/a", "/b c"),
    ("/a", "/b\x01"),
    ("/a", "/caf\u00e9"),
    ("/a", "/b\u00a0"),
    ("/a", r"\\/b"),
]


@pytest.mark.parametrize(("pattern", "substitution"), TAKEN)
def test_a_path_that_certainly_begins_with_a_slash_is_taken(pattern: str, substitution: str) -> None:
    assert list(substitutions.check(pattern, substitution)) == []


@pytest.mark.parametrize(("pattern", "substitution"), REFUSED)
def test_a_path_that_may_begin_otherwise_is_refused(pattern: str, substitution: str) -> None:
    assert len(list(substitutions.check(pattern, substitution))) == 1


@pytest.mark.parametrize(("pattern", "substitution"), TAKEN)
@pytest.mark.parametrize("path", ["/", "/a", "/users/7", "/a/b", "/b/x.json", "/a/bc", "//", "/re/7", "/%2F"])
def test_what_is_taken_begins_with_a_slash(pattern: str, substitution: str, path: str) -> None:
    assert regex.compiled(pattern).sub(substitution.replace(r"\0", r"\g<0>"), path).startswith("/")
