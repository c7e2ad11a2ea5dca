"""The rules of the composer: what is in their names, and what becomes of retries and of previews."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xds_server.control_plane.compiler import Compiled, Compiler, InvalidGateway
from xds_server.sources.folder import Folder
from xds_server.translate.composer_entry import COMPOSITION
from xds_server.translate.translator import RULE_TYPES

YAML = """
listeners: {http: {port: 8080}}
upstreams: {users: {endpoints: ["127.0.0.1:9001"]}}
routes:
  home: {path: "/home/{id}", MORE aggregate: {calls: {user: {upstream: users, path: "/users/{id}"}}}}
"""


def compiled(more: str = "", compiler: Compiler | None = None) -> Compiled:
    text = YAML.replace("MORE", more).encode()
    return (compiler or Compiler({})).compile(Folder(Path(), {"gateway.yaml": text}))


def rule(of: Compiled) -> tuple[str, dict[str, Any]]:
    ((name, resource),) = of.snapshot[RULE_TYPES[COMPOSITION.name]].items()
    return name, json.loads(COMPOSITION.message.FromString(resource.body).content)


def test_the_name_of_a_rule_changes_with_what_requests_do() -> None:
    name, _ = rule(compiled())
    assert name.startswith("home/")
    assert rule(compiled())[0] == name
    assert rule(compiled("timeout: 1s,"))[0] != name


def test_errors_may_change_at_once() -> None:
    text = YAML.replace("MORE", "") + "errors: {call_failed: {body: {a: 1}}}\n"
    found = Compiler({}).compile(Folder(Path(), {"gateway.yaml": text.encode()}))
    name, content = rule(found)
    assert name == rule(compiled())[0]
    assert content["overrides"] == {"call_failed": {"body": {"a": 1}}}


def test_retries_are_headers_of_calls() -> None:
    _, content = rule(compiled("retry: {attempts: 2, on: [5xx, 429], per_try_timeout: 250ms},"))
    assert content["retry"] == {
        "x-envoy-max-retries": "2",
        "x-envoy-retry-on": "5xx,retriable-status-codes",
        "x-envoy-retriable-status-codes": "429",
        "x-envoy-upstream-rq-per-try-timeout-ms": "250",
    }


def test_where_there_is_no_composer_an_aggregate_is_an_error() -> None:
    with pytest.raises(InvalidGateway) as error:
        compiled(compiler=Compiler({}, composed=False))
    assert "gateway.yaml:5:" in str(error.value.problems[0])
    assert "a preview has no composer" in str(error.value.problems[0])
    sdl = '{inline: \'type Query { a: Int @rest(upstream: "users", path: "/a") }\'}'
    text = YAML.partition("routes:")[0] + f"routes: {{g: {{path: /g, graphql: {{schema: {sdl}}}}}}}\n"
    with pytest.raises(InvalidGateway, match="a preview has no composer"):
        Compiler({}, composed=False).compile(Folder(Path(), {"gateway.yaml": text.encode()}))


def test_a_gateway_without_aggregates_has_nothing_of_the_composer() -> None:
    text = YAML.partition("routes:")[0] + "routes: {a: {path: /a, upstream: users}}\n"
    snapshot = Compiler({}).compile(Folder(Path(), {"gateway.yaml": text.encode()})).snapshot
    names = {name for type_ in snapshot for name in snapshot[type_]}
    assert not [name for name in names if "composer" in name]
