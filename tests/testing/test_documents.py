"""The JSON Schema of files of tests: it knows what the decoder accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from xds_server.cli.main import main
from xds_server.testing.documents import schema

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*/gateway/tests/*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_it_is_a_schema_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert main(["schema", "--tests"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
    assert main(["schema", "--tests", "--format", "crds"]) == 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_the_tests_of_examples_fit(file: Path) -> None:
    errors = VALIDATOR.iter_errors(yaml.safe_load(file.read_text()))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"tests": {}},
        {"tests": {"a": {"requst": "/"}}},
        {"tests": {"a": {"request": "/", "expect": {"status": "ok"}}}},
        {"tests": {"a": {"request": {"grpc": {"message": {}}}}}},
        {"upstreams": {"users": {"status": 99}}, "tests": {"a": {"request": "/"}}},
    ],
)
def test_what_is_wrong_does_not_fit(wrong: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(wrong)
