"""Golden cases: the files in cases/KIND-NAME/in become those in cases/KIND-NAME/out, with all that is reported in problems.txt.

``make golden`` rewrites them; read the difference before you commit it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from pathlib import Path
from typing import Any

import crossplane
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import Authority
from xds_server.control_plane.compiler import Compiler
from xds_server.errors import InvalidGateway
from xds_server.imports.coverage import table
from xds_server.imports.kinds import FILE, NGINX, Imported, import_files
from xds_server.sources.manifest_folder import ManifestState

CASES = Path(__file__).with_name("cases")
CERTIFICATE = Authority().issue("shop.example.com", "db.example.com")
NAMES = sorted(one.name for one in CASES.iterdir())


def imported(name: str) -> Imported:
    kind = name.partition("-")[0]
    return import_files(kind, dict(_content(kind, one) for one in sorted((CASES / name / "in").iterdir())))


def _content(kind: str, file: Path) -> tuple[str, bytes]:
    """Return the name of a file and its content as the importer reads it."""
    if kind != NGINX:
        return file.name, file.read_bytes()
    payload = crossplane.parse(str(file), combine=True)
    return file.name, json.dumps(payload).replace(str(file), file.name).encode()


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_imported(name: str, request: pytest.FixtureRequest) -> None:
    found = imported(name)
    expected = CASES / name / "out"
    texts = {**found.files, "problems.txt": "".join(f"{one}\n" for one in found.problems).encode()}
    if request.config.getoption("--update-golden"):
        shutil.rmtree(expected, ignore_errors=True)
        for file, content in texts.items():
            (expected / file).parent.mkdir(parents=True, exist_ok=True)
            (expected / file).write_bytes(content)
    known = {str(one.relative_to(expected)): one.read_bytes() for one in expected.rglob("*") if one.is_file()}
    assert texts == known


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_a_gateway_without_mistakes(name: str) -> None:
    found = imported(name)
    contents = {**found.files, "shop.crt": CERTIFICATE[0], "shop.key": CERTIFICATE[1]}
    compiled = Compiler().compile(ManifestState(files={FILE: found.files[FILE]}, contents=contents))
    assert compiled.gateway.sections.routes
    assert imported(name) == found


def test_the_coverage_counts_values_by_section() -> None:
    rows = {one.section: (one.values, one.reported) for one in imported("kong-shop").coverage}
    assert rows["upstreams"] == (12, 0)
    assert rows["consumers"][1] > 0
    assert table(imported("kong-shop").coverage).splitlines()[0].split() == [
        "section",
        "values",
        "imported",
        "reported",
    ]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(one for key, part in inner for one in _paths(part, (*path, key)))]


WRONG = st.sampled_from(
    [
        None,
        True,
        -1,
        10**30,
        0.5,
        "",
        "x",
        "~(",
        "%",
        "a:b:c",
        [],
        {},
        [1],
        ["x"],
        [[]],
        {"x": 1},
        {"name": []},
    ]
)


@given(st.data())
def test_a_wrong_value_anywhere_is_reported_or_imported(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([one for one in NAMES if not one.startswith(NGINX)]))
    file = next((CASES / name / "in").iterdir())
    values = yaml.safe_load(file.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(values)))
        wrong = copy.deepcopy(data.draw(WRONG))
        if not path:
            continue
        owner = values
        for key in path[:-1]:
            owner = owner[key]
        owner[path[-1]] = wrong
    content = yaml.safe_dump(values).encode()
    found = import_files(name.partition("-")[0], {file.name: content})
    if not found.files:
        assert any(one.severity == "error" for one in found.problems)
        return
    state = ManifestState(files={FILE: found.files[FILE]}, contents=found.files)
    with contextlib.suppress(InvalidGateway):
        Compiler(translates=False).compile(state)
