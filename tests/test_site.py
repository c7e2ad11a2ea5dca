"""The site of the documentation is built without a warning, and loads nothing from others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


def build(folder: Path, **environment: str) -> Path:
    command = [
        str(Path(sys.executable).parent / "mkdocs"),
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        str(folder),
    ]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1", **environment}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_every_page_is_there_and_found(site: Path) -> None:
    pages = [one.relative_to(ROOT / "docs") for one in (ROOT / "docs").rglob("*.md")]
    for page in pages:
        folder = site / page.parent / ("" if page.name == "README.md" else page.stem)
        assert (folder / "index.html").is_file(), page
    searched = json.loads((site / "search" / "search_index.json").read_text())
    assert {one["location"].partition("#")[0] for one in searched["docs"]} >= {
        "how-to/graphql/",
        "reference/limits/",
    }
    assert not [*site.rglob("*.py")]


def test_pages_load_nothing_from_others(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]*)"', page.read_text())
        assert loaded == [], page


def test_links_to_other_files_lead_to_the_repository(site: Path, tmp_path: Path) -> None:
    page = "reference/graphql/index.html"
    assert "examples/graphql/README.md" not in (site / page).read_text()
    made = build(tmp_path, SITE_REPOSITORY="https://git.example.com/team/gateway")
    assert (
        'href="https://git.example.com/team/gateway/blob/main/examples/graphql/README.md"'
        in (made / page).read_text()
    )


def test_korean_pages_have_a_tab_and_their_language(site: Path) -> None:
    assert '<html lang="ko"' in (site / "ko" / "tutorials" / "first-gateway" / "index.html").read_text()
    start = (site / "index.html").read_text()
    assert '<html lang="en"' in start
    assert re.search(r'<a href="ko/" class="md-tabs__link">\s*한국어\s*</a>', start)
