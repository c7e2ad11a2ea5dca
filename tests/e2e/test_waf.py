"""The web application firewall through a real Envoy and a real policy server.

The samples are the plainest ones of the Core Rule Set's documentation.
"""

from __future__ import annotations

import gzip
import os
import re
import signal
import threading
from pathlib import Path

import httpx
import pytest

from filters.waf.crs import VARIABLE
from tests.support.backend import Backend
from tests.support.firewall import needs_rules
from tests.support.policy_server import Stack, Stacks
from tests.support.ports import free_port
from tests.support.running import Served
from tests.support.wait import wait_for

pytestmark = needs_rules

SQL = {"id": "1' OR '1'='1"}
SCRIPT = {"text": "<script>alert(1)</script>"}
YAML = """
listeners: {http: {port: $port, address: 127.0.0.1, access_log: true}}
upstreams: {echo: {endpoints: ["$echo"]}}
policies: {waf: {rules: crs, timeout: 2s}}
routes:
  blocks: {path: /blocks, upstream: echo}
  detects: {path: /detects, upstream: echo, policies: {waf: {mode: detect}}}
  "off": {path: /off, upstream: echo, policies: {waf: off}}
  excludes: {path: /excludes, upstream: echo, policies: {waf: {exclude: [942100]}}}
  target: {path: /target, upstream: echo, policies: {waf: {exclude: [{rule: 942100, target: "ARGS:id"}]}}}
  tag: {path: /tag, upstream: echo, policies: {waf: {exclude: [{tag: attack-sqli}, {tag: attack-xss, target: "ARGS:text"}]}}}
  strict: {path: /strict, upstream: echo, policies: {waf: {paranoia: 4}}}
  lax: {path: /lax, upstream: echo, policies: {waf: {threshold: 100}}}
  small: {path: /small, upstream: echo, policies: {waf: {max_body: 1KB}}}
  long: {path: /long, upstream: echo, policies: {waf: {exclude: [{tag: OWASP_CRS, target: "ARGS:json.text"}, {rule: 200008, target: "ARGS:json.text"}]}}}
  headers: {path: /headers, upstream: echo, policies: {waf: {body: false}}}
  socket: {path: /socket, upstream: echo, websocket: true, policies: {waf: {body: false}}}
  local: {path: /local, respond: {status: 200, body: here}}
"""
HOST = {"host": "api.example.com"}


@pytest.fixture(scope="module")
def stack(stacks: Stacks, backend: Backend) -> Stack:
    return ready(stacks.start(YAML, echo=backend.address), "/blocks")


def ready(stack: Stack, path: str) -> Stack:
    """The stack, when its engines have loaded the rules."""
    wait_for(lambda: _outcome(_get(stack, path)) == PASSED, "the engines")
    return stack


def _get(stack: Stack, path: str, params: dict[str, str] | None = None) -> httpx.Response:
    return stack.get(path, params=params, headers=HOST)


def _outcome(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.headers.get("x-gateway-reason", "")


PASSED, BLOCKED = (200, ""), (403, "waf_blocked")


def test_an_ordinary_request_passes(stack: Stack) -> None:
    assert _outcome(_get(stack, "/blocks", {"page": "2", "sort": "name,email"})) == PASSED
    for method in ("PUT", "PATCH", "DELETE"):
        assert _outcome(stack.request(method, "/blocks", headers=HOST, json={"name": "Ada"})) == PASSED


def test_an_attack_is_rejected_by_a_reason_that_names_the_rule(stack: Stack) -> None:
    response = _get(stack, "/blocks", SQL)
    assert _outcome(response) == BLOCKED
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["reason"], problem["status"]) == ("waf_blocked", 403)
    assert problem["rules"] == [942100]
    assert problem["detail"].startswith("Rule 942100: SQL Injection")
    assert problem["request_id"]


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("/blocks", SCRIPT, BLOCKED),
        ("/detects", SQL, PASSED),
        ("/off", SQL, PASSED),
        ("/excludes", SQL, PASSED),
        ("/excludes", SCRIPT, BLOCKED),
        ("/target", SQL, PASSED),
        ("/target", {"other": SQL["id"]}, BLOCKED),
        ("/tag", SQL, PASSED),
        ("/tag", SCRIPT, PASSED),
        ("/tag", {"other": SCRIPT["text"]}, BLOCKED),
        ("/strict", {"name": "it's"}, BLOCKED),
        ("/lax", SQL, PASSED),
        ("/headers", SQL, BLOCKED),
        ("/socket", SQL, BLOCKED),
        ("/local", SQL, BLOCKED),
    ],
)
def test_routes_of_one_gateway_have_settings_of_their_own(
    stack: Stack, path: str, params: dict[str, str], expected: tuple[int, str]
) -> None:
    assert _outcome(_get(stack, path, params)) == expected


def test_bodies_are_inspected(stack: Stack) -> None:
    assert _outcome(stack.request("POST", "/blocks", headers=HOST, json=SQL)) == BLOCKED
    assert _outcome(stack.request("POST", "/blocks", headers=HOST, data=SQL)) == BLOCKED
    assert _outcome(stack.request("POST", "/headers", headers=HOST, json=SQL)) == PASSED
    response = stack.request("POST", "/blocks", headers=HOST, json={"name": "Ada Lovelace"})
    assert response.json()["body"] == '{"name":"Ada Lovelace"}'


def test_a_compressed_body_is_inspected_as_it_is_meant(stack: Stack) -> None:
    headers = {**HOST, "content-type": "application/json", "content-encoding": "gzip"}
    body = gzip.compress(b'{"text": "<script>alert(1)</script>"}')
    assert _outcome(stack.request("POST", "/blocks", headers=headers, content=body)) == BLOCKED


def test_a_body_that_cannot_be_read_is_rejected(stack: Stack) -> None:
    headers = {**HOST, "content-type": "application/json"}
    response = stack.request("POST", "/blocks", headers=headers, content=b'{"open":')
    assert _outcome(response) == BLOCKED
    assert response.json()["rules"] == [200002]


def test_a_body_above_the_limit_is_rejected(stack: Stack) -> None:
    response = stack.request("POST", "/small", headers=HOST, json={"text": "x" * 2_000})
    assert _outcome(response) == (413, "body_too_large")
    assert _outcome(stack.request("POST", "/small", headers=HOST, json={"text": "x" * 500})) == PASSED


def test_a_value_that_would_take_too_long_is_rejected(stack: Stack) -> None:
    text = {"text": "a word " * 5_000}
    response = stack.request("POST", "/blocks", headers=HOST, json=text)
    assert (_outcome(response), response.json()["rules"]) == (BLOCKED, [200008])
    assert _outcome(stack.request("POST", "/long", headers=HOST, json=text)) == PASSED
    assert (
        _outcome(stack.request("POST", "/long", headers=HOST, json={"title": SQL["id"], **text})) == BLOCKED
    )
    response = stack.get("/blocks", headers={**HOST, "x-long": "a" * 17_000})
    assert (_outcome(response), response.json()["rules"]) == (BLOCKED, [200009])


def test_an_http2_body_without_a_length_passes(stack: Stack) -> None:
    with httpx.Client(http1=False, http2=True, timeout=30) as client:
        response = client.post(
            f"{stack.url}/blocks",
            content=iter([b'{"name": ', b'"Ada"}']),
            headers={"content-type": "application/json", "host": "api.example.com"},
        )
    assert _outcome(response) == PASSED


def test_detections_are_counted(stack: Stack) -> None:
    _get(stack, "/detects", SQL)
    metrics = stack.policy_server.metrics()
    assert 'xds_waf_requests_total{outcome="detected",route="detects"}' in metrics
    assert 'xds_waf_matches_total{rule="942100"}' in metrics


def test_the_access_log_has_rules_and_score(tmp_path: Path, backend: Backend) -> None:
    with Stacks(tmp_path) as stacks:
        stack = ready(stacks.start(YAML, echo=backend.address), "/blocks")
        for path in ("/blocks", "/detects", "/lax"):
            _get(stack, path, SQL)
        _get(stack, "/blocks")
    found = {(line["path"], line["status"]): line for line in stack.envoy.access_log()}
    told = {
        key: (one.get("waf_rules"), one.get("waf_score"), one.get("waf_outcome"))
        for key, one in found.items()
    }
    assert told == {
        ("/blocks", 403): ("942100", "5", "blocked"),
        ("/detects", 200): ("942100", "5", "detected"),
        ("/lax", 200): ("942100", "5", "passed"),
        ("/blocks", 200): (None, None, None),
    }
    assert found["/blocks", 403]["reason"] == "waf_blocked"


ON_ERROR = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  closed: {path: /closed, upstream: echo, policies: {waf: {timeout: 2s}}}
  open: {path: /open, upstream: echo, policies: {waf: {timeout: 2s, on_error: allow}}}
"""


def _engines(stack: Stack) -> set[int]:
    """The engine processes of the policy server."""
    server = stack.policy_server
    assert server.process is not None
    parents = {server.process.pid, *server.children().values()}
    found = set()
    for one in parents:
        for child in Path(f"/proc/{one}/task/{one}/children").read_text().split():
            if b"filters.waf.engine_process" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.add(int(child))
    return found


def test_engines_that_stop_and_die_follow_on_error(tmp_path: Path, backend: Backend) -> None:
    with Stacks(tmp_path) as stacks:
        stack = ready(stacks.start(ON_ERROR, echo=backend.address), "/closed")
        wait_for(lambda: len(_engines(stack)) == 2, "both engines")
        for one in _engines(stack):
            os.kill(one, signal.SIGSTOP)
        assert _outcome(_get(stack, "/closed")) == (503, "waf_unavailable")
        wait_for(
            lambda: _outcome(_get(stack, "/closed")) == PASSED, "the engines"
        )  # a silent process is replaced
        killed = _engines(stack)
        for one in killed:
            os.kill(one, signal.SIGKILL)
        wait_for(lambda: len(_engines(stack) - killed) == 2, "both engines, without a request")
        wait_for(lambda: _outcome(_get(stack, "/closed", SQL)) == BLOCKED, "the engines")
        for one in _engines(stack):
            os.kill(one, signal.SIGSTOP)
        assert _outcome(_get(stack, "/open", SQL)) == PASSED


def test_a_policy_server_that_is_down_follows_on_error(tmp_path: Path, backend: Backend) -> None:
    with Stacks(tmp_path) as stacks:
        stack = ready(stacks.start(ON_ERROR, echo=backend.address), "/closed")
        assert _outcome(_get(stack, "/open", SQL)) == BLOCKED
        stack.policy_server.__exit__(None, None, None)
        assert _outcome(_get(stack, "/closed")) == (503, "processor_unavailable")
        assert _outcome(_get(stack, "/open", SQL)) == PASSED


def test_rules_change_without_a_lost_request(tmp_path: Path, backend: Backend) -> None:
    with Stacks(tmp_path) as stacks:
        stack = ready(stacks.start(YAML, echo=backend.address, arguments=("--workers", "2")), "/blocks")
        seen: list[tuple[int, str]] = []
        done = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=stack.url, headers=HOST, timeout=30) as client:
                while not done.is_set():
                    seen.append(_outcome(client.get("/blocks", params={"q": "plain"})))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for one in threads:
            one.start()
        try:
            for number in range(5):
                exclude = f"[942100, {{rule: 942101, target: 'ARGS:n{number}'}}]"
                text = YAML.replace("{rules: crs, timeout: 2s}", f"{{timeout: 2s, exclude: {exclude}}}")
                stack.write(text, echo=backend.address)
                stack.publish()
                wait_for(lambda: _outcome(_get(stack, "/blocks", SQL)) == PASSED, "the new rules")
                stack.write(YAML, echo=backend.address)
                stack.publish()
                wait_for(lambda: _outcome(_get(stack, "/blocks", SQL)) == BLOCKED, "the engines")
        finally:
            done.set()
            for one in threads:
                one.join()
    assert set(seen) == {PASSED}


def test_a_policy_server_without_rules_says_what_to_do(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with Stacks(tmp_path) as stacks:
        stack = stacks.start(ON_ERROR, echo=backend.address)
        assert _outcome(_get(stack, "/closed")) == (500, "processor_missing")
        assert "run make waf" in str(stack.policy_server.status()["refused"])


def test_the_console_shows_what_was_found(tmp_path: Path, backend: Backend) -> None:
    console = f"127.0.0.1:{free_port()}"
    text = """
listeners: {http: {port: $port, address: 127.0.0.1}}
upstreams: {echo: {endpoints: ["$echo"]}}
routes:
  version: {path: /version, respond: {body: "$version"}}
  guarded: {path: /guarded, upstream: echo, policies: {waf: {rules: crs, timeout: 2s}}}
"""
    served = Served(tmp_path, text, "--console", console, echo=backend.address)
    served.write("1")
    with served:
        wait_for(lambda: _outcome(served.get("/guarded", headers=HOST)) == PASSED, "the engines")
        assert _outcome(served.get("/guarded", params=SQL, headers=HOST)) == BLOCKED
        page = httpx.get(f"http://{console}/firewall").text
    row = page[page.index('href="/routes/guarded"') :].partition("</tr>")[0]
    passed, detected, blocked, _unavailable = re.findall(r'class="number">(\d+)<', row)
    assert int(passed) >= 1
    assert (detected, blocked) == ("0", "1")
    assert ">942100<" in page
