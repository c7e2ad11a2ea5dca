"""Callers for gateways whose sources name none: a policy that nobody can pass would be a mistake of the language."""

from __future__ import annotations

from typing import Any

from filters.language import Problem
from xds_server.imports.draft import Draft

NAME = "first-caller"
NO_SECRET = "0" * 64
"""The hash of no known text, so that nobody can call."""


def _has_users(value: Any) -> bool:
    return isinstance(value, dict) and "htpasswd" in value


def add(draft: Draft) -> None:
    """Add a consumer with the credentials that some route wants and no consumer has, and report it."""
    levels = [draft.sections.get("policies", {}), *draft.sections.get("policy_sets", {}).values()]
    levels += (one.get("policies", {}) for one in draft.sections.get("routes", {}).values())
    wanted = {key for one in levels for key, value in one.items() if not _has_users(value)}
    consumers = draft.sections.get("consumers", {}).values()
    value: dict[str, Any] = {}
    if "api_key" in wanted and not any("api_keys" in one for one in consumers):
        value["api_keys"] = [{"sha256": NO_SECRET}]
    if "basic_auth" in wanted and not any("basic_auth" in one for one in consumers):
        value["basic_auth"] = [{"username": NAME, "sha256": NO_SECRET}]
    if value:
        name = draft.add("consumers", NAME, value)
        draft.problems.append(
            Problem(
                path=("consumers", name),
                message="the source names no callers, so this consumer has a secret that nobody knows",
                remedy="write your callers and the SHA-256 of their keys, or a portal at which they subscribe",
                severity="warning",
            )
        )
