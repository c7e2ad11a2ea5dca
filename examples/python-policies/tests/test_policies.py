"""Tests of this gateway's policies, which are plain functions."""

from pathlib import Path

import pytest

from filters.ext_authz.testing import decide, policy, request

GATEWAY = Path(__file__).parents[1] / "gateway"
operators_write = policy("policies/access.py:operators_write", GATEWAY)
small = policy("policies/amounts.py:small", GATEWAY)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_is_for_everybody(method: str) -> None:
    assert decide(operators_write, request(method, "/orders")).allowed


def test_writing_is_for_operators() -> None:
    assert decide(operators_write, request("POST", "/orders")).status == 403
    assert decide(operators_write, request("POST", "/orders", {"X-Team": "ops"})).allowed


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"amount": 10000}', 200),
        (b'{"amount": 10001}', 403),
        (b'{"amount": "1"}', 403),
        (b"[]", 400),
        (b"{", 400),
        (None, 200),
    ],
)
def test_small_transfers_pass(body: bytes | None, status: int) -> None:
    assert decide(small, request("POST", "/transfers", body=body)).status == status
