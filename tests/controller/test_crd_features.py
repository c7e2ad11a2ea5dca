"""Features that depend on the CRDs of a cluster."""

from __future__ import annotations

from typing import Any

from xds_server.controller.crd_features import supported
from xds_server.gateway_api.statuses import FEATURES, RETRY_FEATURES


def schema(**of_rules: Any) -> dict[str, Any]:
    rules = {"type": "array", "items": {"type": "object", "properties": of_rules}}
    spec = {"type": "object", "properties": {"rules": rules}}
    route = {"type": "object", "properties": {"spec": spec}}
    return {"components": {"schemas": {"io.k8s.networking.gateway.v1.HTTPRoute": route}}}


def test_retries_need_a_field() -> None:
    assert supported(schema(matches={})) == FEATURES
    assert supported(schema(matches={}, retry={"type": "object"})) == (*FEATURES, *RETRY_FEATURES)
    assert supported({}) == FEATURES
