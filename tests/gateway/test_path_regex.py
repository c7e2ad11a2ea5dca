"""A regular expression matches every spelling of the paths that it is meant for, judged by RE2 itself."""

from __future__ import annotations

import re

import pytest

from filters.language import Mistake
from filters.model.escapes import RESERVED
from xds_server.gateway.model import regex
from xds_server.gateway.model.paths import parse_path

SAME = [
    ("^/rx/[a-z]+@secret$", "/rx/a@secret"),
    ("^/rr/[^/]+:delete$", "/rr/1:delete"),
    (r"^/a\@b$", "/a@b"),
    (r"^/a\x40b$", "/a@b"),
    (r"^/a\x{40}b$", "/a@b"),
    (r"^/a\100b$", "/a@b"),
    ("^/a%40b$", "/a@b"),
    (r"^/a\%40b$", "/a@b"),
    (r"^/\Qa@b(c)\E$", "/a@b(c)"),
    (r"^/\Qa%3ab\E$", "/a:b"),
    (r"^/\Qa@b", "/a@b"),
    ("^/a[@:]b$", "/a@b"),
    ("^/a[]@]b$", "/a]b"),
    ("^/a[[:punct:]]b$", "/a;b"),
    (r"^/a[\]x]b$", "/a]b"),
    ("^/a[!-/]b$", "/a,b"),
    ("^/a.b$", "/a@b"),
    ("^/a[^/]b$", "/a=b"),
    ("^/a[^/]?b$", "/a=b"),
    (r"^/a\Wb$", "/a+b"),
    (r"^/a\PLb$", "/a+b"),
    (r"^/a\p{P}b$", "/a@b"),
    ("^/a.{1,2}b$", "/a@b"),
    ("^/a[^/]{2,}b$", "/a@:b"),
    ("^/a@?b$", "/a@b"),
    ("^/a(?i:X:)b$", "/ax:b"),
    ("^/(?P<who>[a-z]+@[a-z]+)$", "/ab@cd"),
    (r"^/a\$b$", "/a$b"),
    (r"^/a\$", "/a$"),
    ("^/a{,2}b$", "/a{,2}b"),
    ("/x]|^/y@$", "/y@"),
]
OTHERS = [
    ("^/n/[^@]+$", "/n/a@b"),
    ("^/n/[^@/:]+/x$", "/n/a:b/x"),
    ("^/n/[^%@]+$", "/n/a@b"),
    ("^/n/[a-z0-9]+$", "/n/a@b"),
    ("^/n/[^@]{1,9}$", "/n/a@b"),
    (r"^/n/[^[\]]+$", "/n/a]b"),
]
KEPT = [
    (
        "^/n/[^@]+$",
        ["/n/%", "/n/a%", "/n/a%4", "/n/%%", "/n/%4g", "/n/%zz", "/n/%20", "/n/%C3%A4", "/n/%41x", "/n/%3A"],
    ),
    ("^/n/[^@/]+/b$", ["/n/%/b", "/n/a%4/b", "/n/%E2%98%83/b"]),
    ("^/n/[^/]+/b$", ["/n/%/b", "/n/%40/b", "/n/@/b"]),
    (r"^/v[0-9]{1,3}/[\w-]{1,64}$", ["/v1/abc"]),
    ("^/th%C3%A9$", ["/th%c3%a9", "/th%C3%A9"]),
]


def _spelled(path: str) -> list[str]:
    upper = re.sub(f"[{re.escape(RESERVED)}]", lambda char: f"%{ord(char[0]):02X}", path)
    return [path, upper, re.sub("%..", lambda escape: escape[0].lower(), upper)]


@pytest.mark.parametrize(("pattern", "path"), SAME)
def test_reserved_characters_match_plain_and_escaped(pattern: str, path: str) -> None:
    match = parse_path(f"~{pattern}")
    assert [one for one in _spelled(path) if not regex.matches(match.regex, one)] == []
    assert regex.compiled(match.regex).groups == regex.compiled(pattern).groups


@pytest.mark.parametrize(("pattern", "path"), OTHERS)
def test_what_is_not_meant_is_matched_in_no_spelling(pattern: str, path: str) -> None:
    assert [one for one in _spelled(path) if regex.matches(parse_path(f"~{pattern}").regex, one)] == []


@pytest.mark.parametrize(("pattern", "paths"), KEPT)
def test_other_characters_match_as_ever(pattern: str, paths: list[str]) -> None:
    assert [one for one in paths if not regex.matches(parse_path(f"~{pattern}").regex, one)] == []


def test_an_expression_that_becomes_too_large_is_refused() -> None:
    with pytest.raises(Mistake, match="RE2 compiles"):
        parse_path("~^/x/.{1,255}$")


@pytest.mark.parametrize("pattern", [r"\x{100}", r"[^\x00-\x{10FFFF}]"])
def test_a_character_that_envoy_does_not_know_is_a_mistake(pattern: str) -> None:
    with pytest.raises(Mistake, match="Envoy's RE2, which reads bytes"):
        regex.check(pattern)


@pytest.mark.parametrize("pattern", [r"\x{FF}", r"\p{L}+", "é+"])
def test_other_characters_are_taken(pattern: str) -> None:
    regex.check(pattern)
