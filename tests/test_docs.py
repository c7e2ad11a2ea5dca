"""The documentation is what the code says: reasons, links, commands."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from filters import POLICIES
from filters.reasons import BY_STATUS, OTHER, REASONS
from xds_server.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md"), *ROOT.glob("envoy/*.md")]
)


def _rows() -> list[str]:
    policies = [reason for policy in POLICIES for reason in policy.reasons]
    named = {reason.name: (reason.status, reason.title) for reason in (*policies, *REASONS)}
    for status, name, title in BY_STATUS:
        named.setdefault(name, (status, title))
    named.setdefault(OTHER[0], (None, OTHER[1]))
    return [
        f"| `{name}` | {status or 'as Envoy chose'} | {title} |"
        for name, (status, title) in sorted(named.items())
    ]


def test_the_table_of_reasons_is_current(request: pytest.FixtureRequest) -> None:
    page = ROOT / "docs" / "reference" / "errors.md"
    text = page.read_text()
    begin = "| reason | status | title |\n|---|---|---|\n"
    head, _, rest = text.partition(begin)
    rows, _, tail = rest.partition("\n\n")
    if request.config.getoption("--update-golden"):
        page.write_text(head + begin + "\n".join(_rows()) + "\n\n" + tail)
        return
    assert rows.splitlines() == _rows(), "run: make golden"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        if command != "version":
            assert f"`xds {command}" in readme, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_exist(page: Path) -> None:
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert re.search(rf"def {name}\(", (ROOT / file).read_text()), f"{page}: {file}::{name}"


@pytest.mark.parametrize("text", sorted(ROOT.glob("docs/pictures/*.dot")), ids=lambda text: text.stem)
def test_each_picture_is_drawn_from_its_text(text: Path) -> None:
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    picture = text.with_suffix(".svg").read_text()
    assert f"<!-- SHA-256 of {text.name}: {digest} -->" in picture, "run: make pictures"
