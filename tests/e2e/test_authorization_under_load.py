"""Ways to authenticate and policies change under load: who may pass before and after a change passes all the time."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.support import tokens
from tests.support.backend import Backend
from tests.support.identity_cases import ACME, CONSUMERS, PROVIDERS, partner
from tests.support.policy_server import Stack
from tests.support.wait import wait_for

STATES: dict[str, dict[str, str]] = {
    "first": {
        "any": "jwt: [corp, partner]",
        "all": "jwt: {all: [corp, partner]}",
        "optional": "jwt: {any: [corp, partner], optional: true}",
        "either": "jwt: [corp, partner], api_key: true",
        "policy": 'ext_authz: {timeout: 10s, python: "policies/first.py:check"}',
        "both": 'jwt: corp, ext_authz: {timeout: 10s, python: "policies/first.py:check", on_error: allow}',
    },
    "second": {
        "any": "jwt: corp",
        "all": "jwt: [partner, corp]",
        "optional": "csrf: off",
        "either": "api_key: true",
        "policy": 'ext_authz: {timeout: 10s, python: "policies/second.py:check"}',
        "both": "jwt: {all: [corp, partner]}",
    },
}


YAML = """
listeners: {http: {port: $port}}
upstreams: {echo: {endpoints: [$echo]}}
$providers$consumers
routes:
$routes"""


def routes(state: str) -> str:
    return "".join(
        f"  {name}: {{path: /{name}, upstream: echo, policies: {{{policies}}},"
        f" response_headers: {{set: {{x-state: {state}}}}}}}\n"
        for name, policies in STATES[state].items()
    )


def test_nobody_is_refused_who_may_pass_before_and_after(tmp_path: Path, backend: Backend) -> None:
    source = "from filters.ext_authz import allow\ndef check(r): return allow()\n"
    files = {"jwks.json": tokens.jwks(), **{f"policies/{name}.py": source for name in STATES}}
    stack = Stack(tmp_path)

    def write(state: str) -> None:
        given = {"providers": PROVIDERS, "consumers": CONSUMERS, "routes": routes(state)}
        stack.write(YAML, files, echo=backend.address, **given)

    write("first")
    headers = {"authorization": f"Bearer {tokens.token()}", "x-token": partner(), "x-api-key": ACME}
    done, seen = threading.Event(), Counter[tuple[str, int, str, str]]()

    def ask(paths: list[str]) -> None:
        with httpx.Client(base_url=stack.url, timeout=30, headers=headers) as client:
            while not done.is_set():
                for path in paths:
                    answer = client.get(f"/{path}")
                    reason = answer.headers.get("x-gateway-reason", "")
                    seen[path, answer.status_code, reason, answer.headers.get("x-state", "")] += 1

    def all_in(state: str) -> bool:
        answers = [stack.get(f"/{path}", headers=headers) for path in STATES[state]]
        return all(one.headers.get("x-state") == state for one in answers)

    with stack, ThreadPoolExecutor() as pool:
        wait_for(lambda: all_in("first"), "the gateway to serve")
        asking = [pool.submit(ask, [path]) for path in STATES["first"]]
        try:
            for state in ("second", "first") * 3:
                write(state)
                stack.publish()
                wait_for(lambda state=state: all_in(state), f"the {state} state")
        finally:
            done.set()
        for one in asking:
            one.result()
    assert {one: count for one, count in seen.items() if one[1] != 200} == {}
    assert {(path, state) for path, _, _, state in seen} == {
        (path, state) for state in STATES for path in STATES[state]
    }
