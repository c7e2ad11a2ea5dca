"""The core asks every policy through hooks and knows no single one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from filters.pipeline import POLICIES
from filters.policy import Policy

CORE = [
    path
    for room in ("gateway", "translate", "discovery", "serving", "control_plane")
    for path in sorted((Path(__file__).parents[2] / "xds_server" / room).rglob("*.py"))
]
MODULES = {type(policy).__module__ for policy in POLICIES}
KNOWN = {
    ("releases.py", "filters.rate_limit.policy"),  # a fault of Envoy 1.36, which is no property of the policy
    ("local_replies.py", "filters.fault"),  # an aborted request looks like an answer of the route
    ("routes.py", "filters.headers"),
    ("actions.py", "filters.headers"),  # request_headers and response_headers are keys of a route too
}


@pytest.mark.parametrize("path", CORE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_core_imports_no_policy(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert {(path.name, one) for one in imported & MODULES} <= KNOWN


@pytest.mark.parametrize(
    ("hook", "keys"),
    [
        ("secrets", ["oidc"]),
        ("cross_checks", ["jwt"]),
        ("route_key", ["validate"]),
        ("own_headers", ["ip_access", "authentication"]),
        ("identifies", ["mtls", "jwt", "api_key", "basic_auth"]),
    ],
)
def test_who_implements_a_hook(hook: str, keys: list[str]) -> None:
    base = getattr(Policy, hook)
    assert [policy.key for policy in POLICIES if getattr(type(policy), hook) is not base] == keys
