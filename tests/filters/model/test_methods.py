"""Which callers have a consumer, by a route's ways to authenticate."""

from __future__ import annotations

from typing import Any

import pytest

from filters.identity.api_key import ApiKeySettings
from filters.identity.mtls import MtlsSettings
from filters.model.methods import identified

KEY, OPTIONAL, CERTIFICATE = ApiKeySettings(), ApiKeySettings(optional=True), MtlsSettings()


@pytest.mark.parametrize(
    ("effective", "expected"),
    [
        ({}, False),
        ({"rate_limit": object()}, False),
        ({"api_key": KEY}, True),
        ({"api_key": OPTIONAL}, None),
        ({"mtls": CERTIFICATE}, None),
        ({"api_key": KEY, "mtls": CERTIFICATE}, None),
        ({"api_key": KEY, "mtls": CERTIFICATE, "authentication": "any"}, None),
        ({"api_key": KEY, "mtls": CERTIFICATE, "authentication": "all"}, True),
    ],
)
def test_only_a_required_key_always_names_a_consumer(
    effective: dict[str, Any], expected: bool | None
) -> None:
    assert identified(effective) is expected
