"""Headers by which Kong names the caller to a service. Clients may forge them where nobody sets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = ("x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier", "x-anonymous-consumer")  # fmt: skip
"""Headers by which Kong tells a service who calls. Here it is `x-consumer`."""


def without_names(rules: dict[str, Any], of_callers: Mapping[str, Any]) -> dict[str, Any]:
    """Return policies that also remove headers by which Kong names the caller, if callers authenticate: clients may forge them."""
    if not of_callers.keys() & {"api_key", "basic_auth", "jwt"} or not rules:
        return rules
    headers = dict(rules.get("request_headers", {}))
    headers["remove"] = list(dict.fromkeys([*headers.get("remove", ()), *_NAMES]))
    return {**rules, "request_headers": headers}
