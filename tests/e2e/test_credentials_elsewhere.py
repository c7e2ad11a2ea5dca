"""The same table of credentials where there are more API keys than Envoy holds: a policy server looks them up."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support import tokens
from tests.support.credential_stack import CredentialStack, credential_stack
from tests.support.identity_cases import ACME, CREDENTIAL_CASES, Case, bearer, sha256
from tests.support.identity_requests import expect, send
from tests.support.wait import wait_for
from xds_server.serving.events import Sent


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CredentialStack]:
    with credential_stack(tmp_path_factory.mktemp("many-keys"), many=True) as stack:
        yield stack


@pytest.mark.parametrize("case", CREDENTIAL_CASES, ids=lambda case: case.name)
def test_a_credential_names_its_consumer_or_is_refused_by_name(stack: CredentialStack, case: Case) -> None:
    expect(case, send(stack.url, case))


def test_a_new_key_is_one_small_resource_and_nothing_for_envoy(stack: CredentialStack) -> None:
    before = len(stack.control.seen(Sent))
    stack.change(more=f"consumers: {{new: {{plan: pro, api_keys: [{{sha256: {sha256('new')}}}]}}}}")
    stack.publish()
    wait_for(lambda: stack.get("/key", headers={"x-api-key": "new"}).status_code == 200, "the new key")
    sent = stack.control.seen(Sent)[before:]
    assert [(one.node.id, one.resources, one.removed) for one in sent] == [("policy-server", 1, 0)]
    assert sent[0].size < 1000
    assert stack.get("/key", headers={"x-api-key": "new"}).json()["headers"]["x-consumer"] == "new"
    stack.change()
    stack.publish()
    wait_for(lambda: stack.get("/key", headers={"x-api-key": "new"}).status_code == 401, "the key to be gone")


def test_without_the_policy_server_keys_are_refused_and_other_ways_still_work(stack: CredentialStack) -> None:
    stack.policy_server.stop()
    answer = stack.get("/any", headers={"x-api-key": ACME})
    assert (answer.status_code, answer.json()["reason"]) == (503, "identity_unavailable")
    token = dict(bearer(lambda: tokens.token(azp="acme-app"))())
    assert stack.get("/any", headers=token).json()["headers"]["x-consumer"] == "acme"
    assert stack.get("/key").status_code == 401
    assert httpx.get(f"{stack.url}/key-optional").status_code == 200
    stack.policy_server.start()
    wait_for(lambda: stack.get("/key", headers={"x-api-key": ACME}).status_code == 200, "it to be back")
