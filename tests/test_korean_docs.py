"""Each Korean page is a translation of an English page as that is now."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.support.running import ROOT

KOREAN = ROOT / "docs" / "ko"
TUTORIALS = sorted(one.name for one in (ROOT / "docs" / "tutorials").glob("*.md"))
PAIRS = [
    (ROOT / "README.md", KOREAN / "README.md"),
    *((ROOT / "docs" / "tutorials" / name, KOREAN / "tutorials" / name) for name in TUTORIALS),
]
TRANSLATIONS = dict(PAIRS)
ENDS = {ROOT / "README.md": "\n## Policies\n", KOREAN / "README.md": "\n## 더 읽기\n"}
"""Where the part of a page ends that is translated; a page without an entry is translated as a whole."""

_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")

each_pair = pytest.mark.parametrize(
    ("english", "korean"), PAIRS, ids=lambda page: str(page.relative_to(ROOT))
)


def _translated(page: Path) -> str:
    text, end, _ = page.read_text().partition(ENDS.get(page, "\0"))
    assert end or page not in ENDS, f"{page} has no {ENDS[page]!r}"
    return text


def _headings(page: Path) -> list[str]:
    return re.findall(r"^(#+) ", _BLOCK.sub("", _translated(page)), re.MULTILINE)


def _links(page: Path) -> list[str]:
    """The links of a page as paths from the root; one to an English page with a translation as one to that."""
    links = []
    for link in _LINK.findall(_BLOCK.sub("", _translated(page))):
        if "://" in link:
            links.append(link)
            continue
        path, sharp, fragment = link.partition("#")
        target = Path(os.path.normpath(page.parent / path))
        if page not in TRANSLATIONS:
            assert target not in TRANSLATIONS, f"{page}: {link} is there in Korean"
        links.append(f"{TRANSLATIONS.get(target, target)}{sharp}{fragment}")
    return sorted(links)


@each_pair
def test_code_is_that_of_the_english_page(english: Path, korean: Path) -> None:
    assert _BLOCK.findall(_translated(korean)) == _BLOCK.findall(_translated(english))


@each_pair
def test_headings_and_links_are_those_of_the_english_page(english: Path, korean: Path) -> None:
    assert _headings(korean) == _headings(english)
    assert _links(korean) == _links(english)


@each_pair
def test_the_translation_is_of_the_english_text_as_it_is(english: Path, korean: Path) -> None:
    """The Korean page ends with the SHA-256 of the English text that it translates."""
    digest = hashlib.sha256(_translated(english).encode()).hexdigest()
    line = f"<!-- SHA-256 of the English text: {digest} -->"
    assert line in korean.read_text(), (
        f"{english.relative_to(ROOT)} has changed: change {korean.relative_to(ROOT)} too, then end it with {line}"
    )
