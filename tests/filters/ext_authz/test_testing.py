"""The kit with which users test their policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from filters.ext_authz import Decision, Request, allow, deny
from filters.ext_authz.functions import Failed
from filters.ext_authz.testing import decide, policy, request
from filters.rules import Refused


def check(asked: Request) -> Decision:
    return allow() if asked.query.get("key") == "1" and asked.headers["X-Team"] == "blue" else deny()


async def later(asked: Request) -> Decision:
    return check(asked)


@pytest.mark.parametrize("function", [check, later])
def test_a_request_in_one_line_and_its_decision(function: object) -> None:
    assert decide(function, request("GET", "/x?key=1&key=2", {"x-team": "blue"})).allowed  # type: ignore[arg-type]
    assert not decide(function, request("GET", "/x", {"x-team": "blue"})).allowed  # type: ignore[arg-type]


def test_further_fields_of_a_request() -> None:
    asked = request(claims={"department": "ops"}, consumer="acme", client_address="10.0.0.1")
    assert (asked.claims["department"], asked.consumer, asked.client_address) == ("ops", "acme", "10.0.0.1")


def test_what_is_no_decision_fails() -> None:
    with pytest.raises(Failed):
        decide(lambda _: True, request())


def test_a_policy_is_loaded_as_the_policy_server_loads_it(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text("from filters.ext_authz import deny\ndef check(r): return deny(409)\n")
    assert decide(policy("p.py:check", tmp_path), request()).status == 409
    with pytest.raises(Refused, match="no function 'other'"):
        policy("p.py:other", tmp_path)
