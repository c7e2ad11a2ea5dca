"""The same table of credentials where there are more API keys than Envoy holds: a policy server looks them up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from filters.credentials import MOST_KEYS
from tests.support import tokens
from tests.support.backend import Backend
from tests.support.identity_cases import (
    ACME,
    CONSUMERS,
    CREDENTIAL_CASES,
    CREDENTIAL_ROUTES,
    HTPASSWD,
    PROVIDERS,
    Case,
    bearer,
    sha256,
)
from tests.support.identity_requests import expect, send
from tests.support.policy_server import Stack
from tests.support.wait import wait_for
from xds_server.serving.events import Sent

MANY = "\n".join(f"    - {{sha256: {number:064x}}}" for number in range(MOST_KEYS + 1))


def write(folder: Path, port: int, echo: str, more: str = "") -> None:
    (folder / "jwks.json").write_text(tokens.jwks())
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "many.yaml").write_text(f"consumers:\n  many:\n    api_keys:\n{MANY}\n")
    (folder / "more.yaml").write_text(more)
    (folder / "gateway.yaml").write_text(f"""
listeners: {{http: {{port: {port}, underscores_in_headers: allow}}}}
upstreams: {{echo: {{endpoints: [{echo}]}}}}
{PROVIDERS}{CONSUMERS}
routes:{CREDENTIAL_ROUTES}
""")


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend("echo") as echo:
        yield echo


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("many-keys"))
    write(stack.folder, stack.listener, backend.address)
    with stack:
        yield stack


@pytest.mark.parametrize("case", CREDENTIAL_CASES, ids=lambda case: case.name)
def test_a_credential_names_its_consumer_or_is_refused_by_name(stack: Stack, case: Case) -> None:
    expect(case, send(stack.url, case))


def test_a_new_key_is_one_small_resource_and_nothing_for_envoy(stack: Stack, backend: Backend) -> None:
    before = len(stack.control.seen(Sent))
    write(
        stack.folder,
        stack.listener,
        backend.address,
        f"consumers: {{new: {{plan: pro, api_keys: [{{sha256: {sha256('new')}}}]}}}}",
    )
    stack.publish()
    wait_for(lambda: stack.get("/key", headers={"x-api-key": "new"}).status_code == 200, "the new key")
    sent = stack.control.seen(Sent)[before:]
    assert [(one.node.id, one.resources, one.removed) for one in sent] == [("policy-server", 1, 0)]
    assert sent[0].size < 1000
    assert stack.get("/key", headers={"x-api-key": "new"}).json()["headers"]["x-consumer"] == "new"
    write(stack.folder, stack.listener, backend.address)
    stack.publish()
    wait_for(lambda: stack.get("/key", headers={"x-api-key": "new"}).status_code == 401, "the key to be gone")


def test_without_the_policy_server_keys_are_refused_and_other_ways_still_work(stack: Stack) -> None:
    stack.policy_server.stop()
    answer = stack.get("/any", headers={"x-api-key": ACME})
    assert (answer.status_code, answer.json()["reason"]) == (503, "identity_unavailable")
    token = dict(bearer(lambda: tokens.token(azp="acme-app"))())
    assert stack.get("/any", headers=token).json()["headers"]["x-consumer"] == "acme"
    assert stack.get("/key").status_code == 401
    assert httpx.get(f"{stack.url}/key-optional").status_code == 200
    stack.policy_server.start()
    wait_for(lambda: stack.get("/key", headers={"x-api-key": ACME}).status_code == 200, "it to be back")
