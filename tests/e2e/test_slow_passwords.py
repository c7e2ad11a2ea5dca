"""The same table of credentials where the users' passwords have bcrypt hashes: a policy server verifies them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pytest

from tests.support.credential_stack import TOO_MANY_KEYS, CredentialStack, credential_stack
from tests.support.identity_cases import (
    ACME,
    CREDENTIAL_CASES,
    HTPASSWD_SLOW,
    SLOW_CASES,
    SLOW_ROUTES,
    Case,
)
from tests.support.identity_requests import expect, send
from tests.support.wait import wait_for
from xds_server.serving.events import Sent


def hashed(password: str, cost: int = 4) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CredentialStack]:
    folder = tmp_path_factory.mktemp("slow-passwords")
    with credential_stack(folder, htpasswd=HTPASSWD_SLOW, routes=SLOW_ROUTES) as stack:
        yield stack


@pytest.mark.parametrize("case", [*CREDENTIAL_CASES, *SLOW_CASES], ids=lambda case: case.name)
def test_a_credential_names_its_consumer_or_is_refused_by_name(stack: CredentialStack, case: Case) -> None:
    expect(case, send(stack.url, case))


def test_a_password_that_was_verified_is_still_compared(stack: CredentialStack) -> None:
    for password, status in (("admin", 200), ("x", 401), ("admin", 200), ("Admin", 401), ("admin", 200)):
        assert stack.get("/file", auth=("webmaster", password)).status_code == status


def test_many_at_once_are_all_answered(stack: CredentialStack) -> None:
    users = [("webmaster", "admin", 200), ("webmaster", "x", 401), ("guest", "guest-password", 200)] * 8
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda one: stack.get("/file", auth=one[:2]).status_code, users))
    assert found == [status for _, _, status in users]


def test_a_changed_password_is_nothing_for_envoy_and_the_old_one_ends(stack: CredentialStack) -> None:
    def change(password: str) -> None:
        stack.change(users=f"guest:{hashed(password)}\n")
        stack.publish()
        wait_for(lambda: stack.get("/file", auth=("guest", password)).status_code == 200, password)

    change("first")
    before = len(stack.control.seen(Sent))
    change("second")
    assert [one.node.id for one in stack.control.seen(Sent)[before:]] == ["policy-server"]
    assert stack.get("/file", auth=("guest", "first")).status_code == 401
    stack.change()
    stack.publish()
    wait_for(lambda: stack.get("/file", auth=("guest", "second")).status_code == 401, "the old file")


def test_without_the_policy_server_slow_users_are_refused_and_other_ways_still_work(
    stack: CredentialStack,
) -> None:
    stack.policy_server.stop()
    try:
        for user in (("webmaster", "admin"), ("webmaster", "x"), ("nobody", "x")):
            answer = stack.get("/file-any", auth=user)
            assert (answer.status_code, answer.json()["reason"]) == (503, "identity_unavailable")
        assert stack.get("/file-optional", auth=("webmaster", "admin")).status_code == 503
        assert stack.get("/file-any", headers={"x-api-key": ACME}).json()["headers"]["x-consumer"] == "acme"
        assert stack.get("/file-any", auth=("quick", "admin")).status_code == 200
        answer = stack.get("/file-any", auth=("acme", "acme:password"))
        assert answer.json()["headers"]["x-consumer"] == "acme"
        assert stack.get("/file").status_code == 401
        assert stack.get("/file-optional").status_code == 200
    finally:
        stack.policy_server.start()
    wait_for(lambda: stack.get("/file-any", auth=("webmaster", "admin")).status_code == 200, "it to be back")


def asks_for_keys(stack: CredentialStack) -> bool:
    """Whether the policy server finds the key of a request that goes through now."""
    before = _keys_found(stack)
    passes = stack.get("/file-both", headers={"x-api-key": ACME}, auth=("guest", "guest-password"))
    return passes.status_code == 200 and _keys_found(stack) > before


def _keys_found(stack: CredentialStack) -> float:
    found = re.findall(
        r'xds_policy_decisions_total{.*"found".*"api_key".*} (.+)', stack.policy_server.metrics()
    )
    return sum(map(float, found))


def test_keys_and_passwords_are_looked_up_for_one_request(stack: CredentialStack) -> None:
    stack.change(more=TOO_MANY_KEYS)
    stack.publish()
    wait_for(lambda: asks_for_keys(stack), "keys to be asked for")
    try:
        _both_are_looked_up(stack)
    finally:
        stack.change()
        stack.publish()
    wait_for(lambda: not asks_for_keys(stack), "keys to be Envoy's own again")


def _both_are_looked_up(stack: CredentialStack) -> None:
    guest = ("guest", "guest-password")
    for key, user, reason in (
        (ACME, guest, None),
        ("x", guest, "api_key_unknown"),
        (ACME, ("guest", "x"), "basic_auth_wrong"),
    ):
        answer = stack.get("/file-both", headers={"x-api-key": key}, auth=user)
        assert answer.headers.get("x-gateway-reason") == reason
