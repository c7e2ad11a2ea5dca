"""The schema and the reference say what the decoder does, and the committed files are current."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from filters.language.scalars import FromVariable
from filters.pipeline import POLICIES
from xds_server.cli.main import main
from xds_server.gateway import document
from xds_server.gateway.schema import schema

ROOT = Path(__file__).resolve().parents[2]
VALIDATOR = jsonschema.Draft202012Validator(schema())


def _gateways() -> Iterator[Path]:
    for folder in (*sorted(ROOT.glob("examples/*/gateway")), ROOT / "tests" / "translate" / "cases"):
        for file in sorted(folder.rglob("*.yaml")):
            others = {"tests", "specs"}  # tests of a gateway, and documents of APIs
            if file.name != "out.yaml" and others.isdisjoint(file.relative_to(folder).parts):
                yield file


def _without_quotes(value: Any) -> Any:
    """Values from the environment as they are without quotes."""
    if isinstance(value, dict):
        return {key: _without_quotes(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_quotes(one) for one in value]
    return value.plain if isinstance(value, FromVariable) else value


@pytest.mark.parametrize("file", list(_gateways()), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_gateway_of_ours_fits_the_schema(file: Path) -> None:
    content = _without_quotes(document.parse(file.name, file.read_bytes(), {}).values)
    assert [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(content)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"rutes": {}},
        {"routes": {"x": {"pth": "/x"}}},
        {"routes": {"x": {"timeout": 5}}},
        {"listeners": {"http": {}}},
        {"listeners": {"http": {"port": 70000}}},
        {"upstreams": {"x": {"endpoints": "127.0.0.1:1"}}},
        {"upstreams": {"x": {"endpoints": [], "load_balancing": {"policy": "fastest"}}}},
        {"secrets": {"x": {"certificate": {"file": "a"}, "private_key": {"inline": "a"}}}},
        {"secrets": {"x": {"certificate": {"file": "a"}, "private_key": "a"}}},
        {"policies": {"corse": {}}},
        {"policy_sets": {"x": {"compression": "yes"}}},
    ],
)
def test_what_is_wrong_does_not_fit(wrong: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(wrong)


def test_sections_for_anchors_and_variables_in_quotes_fit() -> None:
    assert VALIDATOR.is_valid({"x-defaults": [1], "listeners": {"http": {"port": "${PORT}"}}})


def test_the_schema_is_a_schema_and_has_every_policy() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert set(schema()["$defs"]["policies"]["properties"]) == {policy.key for policy in POLICIES}


def test_the_committed_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (ROOT / "docs" / "reference" / "schema.json").read_text()
    )


def test_the_committed_reference_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "reference" / "language.md").read_text(), (
        "run: make docs"
    )
