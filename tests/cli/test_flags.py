"""A flag is the same word in every command; its former spelling still works, and no help shows it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import yaml

from tests.support.flags import shown
from xds_server.cli.flags import FORMS
from xds_server.cli.main import COMMANDS, main, parser

NEEDED = {
    "run": ["folder"],
    "bootstrap": [],
    "policy-server": [],
    "watch": ["cluster"],
}
"""Arguments that a command needs."""
FORMER = [
    ("run", ["--xds-address", "a:1"], ["--xds", "a:1"]),
    ("run", ["--admin-address", "a:1"], ["--admin", "a:1"]),
    ("run", ["--concurrency", "3"], ["--envoy-workers", "3"]),
    ("run", ["--xds-certificate", "a"], ["--certificate", "a"]),
    ("run", ["--xds-private-key", "a"], ["--private-key", "a"]),
    ("run", ["--xds-client-ca", "a"], ["--ca", "a"]),
    ("run", ["--xds-identity", "a", "--xds-identity", "b"], ["--identity", "a", "--identity", "b"]),
    ("policy-server", ["--admin-address", "a:1"], ["--admin", "a:1"]),
    ("policy-server", ["--xds-certificate", "a"], ["--certificate", "a"]),
    ("policy-server", ["--xds-key", "a"], ["--private-key", "a"]),
    ("policy-server", ["--xds-ca", "a"], ["--ca", "a"]),
    ("bootstrap", ["--xds-address", "a:1"], ["--xds", "a:1"]),
    ("bootstrap", ["--sotw"], ["--no-delta"]),
    ("watch", ["--server", "a:1"], ["--xds", "a:1"]),
]


def parsed(command: str, *words: str) -> argparse.Namespace:
    return parser(command).parse_args([command, *NEEDED[command], *words])


@pytest.mark.parametrize(
    ("command", "former", "now"), FORMER, ids=lambda one: one if isinstance(one, str) else one[0]
)
def test_a_former_spelling_means_the_same_and_is_hidden(
    command: str, former: list[str], now: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert parsed(command, *former) == parsed(command, *now)
    assert parsed(command, *former) != parsed(command)
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = capsys.readouterr().out.replace("[", " ").replace("]", " ").split()
    assert now[0] in words
    assert former[0] not in words


def test_commands_use_the_same_words() -> None:
    has = {command: set(shown(command)) for command in COMMANDS}
    listening = {command for command in COMMANDS if "--xds" in has[command]}
    assert listening == {"run", "policy-server", "composer", "watch", "bootstrap", "controller"}
    for command in listening - {"controller"}:  # it has an authority of its own
        assert {"--ca", "--certificate", "--private-key"} <= has[command]
    assert {command for command in COMMANDS if "--admin" in has[command]} == {
        "run",
        "controller",
        "policy-server",
        "composer",
        "usage-server",
        "rollout",
        "status",
        "cache",
        "limits",
        "pin",
        "rollback",
    }
    assert {command for command in COMMANDS if "--delta" in has[command]} == {"watch", "bootstrap"}


@pytest.mark.parametrize("command", COMMANDS)
def test_output_has_the_same_words_everywhere(command: str) -> None:
    output = shown(command).get("--output")
    if output is not None:
        assert output.choices is not None
        assert tuple(one for one in FORMS if one in output.choices) in (FORMS, FORMS[1:])


@pytest.mark.parametrize(
    "words",
    [
        ("check", "FOLDER", "--no-envoy"),
        ("compile", "FOLDER"),
        ("explain", "FOLDER", "GET", "http://localhost:8080/a"),
        ("diff", "FOLDER", "FOLDER/other"),
        ("version",),
    ],
    ids=lambda one: one[0],
)
def test_yaml_has_the_same_data_as_json(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "gateway.yaml").write_text(
        "listeners: {http: {port: 8080}}\nroutes: {a: {path: /a, respond: {body: é}}}\n"
    )
    command = [word.replace("FOLDER", str(tmp_path)) for word in words]
    assert main([*command, "--output", "json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert main([*command, "--output", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == expected


def test_mistakes_are_yaml_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text("rutes: {}\n")
    assert main(["check", str(tmp_path), "--output", "yaml"]) == 1
    (problem,) = yaml.safe_load(capsys.readouterr().out)["problems"]
    assert problem["remedy"] == "did you mean 'routes'?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bootstrap", "--admin-port", "65536"), "'65536' is not a whole number from 0 to 65535"),
        (("bootstrap", "--max-heap", "0"), "'0' is not a whole number from 1"),
        (("policy-server", "--workers", "none"), "'none' is not a whole number from 1"),
        (("policy-server", "--drain", "-1"), "'-1' is not a number of seconds from 0 to 86400"),
        (("run", "folder", "--drain", "nan"), "'nan' is not a number of seconds from 0 to 86400"),
        (("run", "folder", "--envoy-workers", "1.5"), "'1.5' is not a whole number from 1"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_a_number_out_of_range_is_wrong_usage(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
