"""The documentation is what the code says: reasons, links, commands."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from docs import generate
from filters.log_fields import FIELDS
from filters.pipeline import POLICIES
from tests.support.flags import shown
from tests.support.reading import read
from xds_server.cli.main import COMMANDS
from xds_server.gateway.model.gateway import Sections
from xds_server.serving.metrics import Metrics
from xds_server.serving.store import Store

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {one.name for one in fields(Sections)}
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md"), *ROOT.glob("envoy/*.md")]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_not_half_of_a_merge(page: Path) -> None:
    assert not re.search(r"^(<{7}|>{7}) ", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_page_that_is_made_from_the_code_is_current(name: str, request: pytest.FixtureRequest) -> None:
    page = generate.FOLDER / name
    if request.config.getoption("--update-golden"):
        page.write_text(generate.PAGES[name]())
    assert page.read_text() == generate.PAGES[name](), "run: make docs"


def test_every_field_of_the_access_log_is_shown() -> None:
    page = (generate.FOLDER / "access-log.md").read_text()
    assert all(f"| `{field.name}` | " in page and f"`{field.operator}`" in page for field in FIELDS)


def test_every_metric_of_a_running_server_is_shown() -> None:
    registry = CollectorRegistry()
    Metrics(Store(), registry)
    page = (generate.FOLDER / "metrics.md").read_text()
    for family in registry.collect():
        assert f"| `{family.name}{'_total' if family.type == 'counter' else ''}` |" in page


COMMAND = re.compile(rf"\bxds ({'|'.join(COMMANDS)})(?![\w-])([^`\n]*)")


@pytest.mark.parametrize(
    "page",
    [one for one in PAGES if one.name != "CHANGELOG.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_a_command_that_a_page_shows_has_flags_that_the_help_shows(page: Path) -> None:
    for name, rest in COMMAND.findall(page.read_text()):
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.partition("#")[0]):
            assert flag in shown(name), f"{page}: xds {name} {flag}"


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


def _blocks(page: Path, language: str) -> list[str]:
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


def _fragments(page: Path) -> list[str]:
    """The YAML blocks of a page that are parts of a gateway: sections, or policies, which stand at the top here."""
    texts = _blocks(page, "yaml")
    policies = {policy.key for policy in POLICIES}
    return [
        f"policies:\n{textwrap.indent(text, '  ')}" if policies >= yaml.safe_load(text).keys() else text
        for text in texts
        if (SECTIONS | policies) >= yaml.safe_load(text).keys()
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_write_only_keys_that_the_language_has(page: Path) -> None:
    for text in _fragments(page):
        unknown = [str(error) for error in read(text).errors if "unknown key" in str(error)]
        assert not unknown, text


@pytest.mark.parametrize(
    ("guide", "module"), [("write-a-policy-in-python", "access"), ("change-messages-in-python", "names")]
)
def test_the_python_of_a_guide_passes_its_tests(tmp_path: Path, guide: str, module: str) -> None:
    python, tests, *_ = _blocks(ROOT / "docs" / "how-to" / f"{guide}.md", "python")
    for name, text in ((f"gateway/policies/{module}.py", python), (f"tests/test_{module}.py", tests)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
