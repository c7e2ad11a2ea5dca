"""What the pods of a mesh accept by their MeshPolicies."""

from __future__ import annotations

from typing import Any

import pytest

from filters.language import Problems
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.mesh_policies import Inbound, inbound
from xds_server.gateway_api.mesh_tls import inbound_routes
from xds_server.gateway_api.objects import KINDS, read_object

(KIND,) = [one for one in KINDS if one.name == "MeshPolicy"]


def policies(*specs: dict[str, Any]) -> tuple[Cluster, list[str]]:
    problems = Problems()
    found = [
        read_object(
            KIND, {"metadata": {"namespace": "shop", "name": f"p{number}"}, "spec": spec}, (), problems
        )
        for number, spec in enumerate(specs)
    ]
    return Cluster.of([one for one in found if one is not None]), [one.message for one in problems]


def test_policies_are_united() -> None:
    cluster, _ = policies(
        {"mtls": "strict", "serviceAccounts": ["a"]},
        {"allow": [{"serviceAccount": "x"}]},
        {"allow": [{"namespace": "other"}], "serviceAccounts": ["a"]},
    )
    assert inbound("shop", "a", cluster) == Inbound(strict=True, clients=(("other", "*"), ("shop", "x")))
    assert inbound("shop", "b", cluster) == Inbound(strict=True, clients=(("shop", "x"),))
    assert inbound("elsewhere", "a", cluster) == Inbound()


@pytest.mark.parametrize(
    "bad",
    [{"mtsl": "strict"}, {"mtls": "on"}, {"allow": []}, {"allow": [{"account": "x"}]}, {"allow": "all"}],
)
def test_a_policy_that_is_not_understood_closes(bad: dict[str, Any]) -> None:
    cluster, problems = policies(bad, {"allow": [{"serviceAccount": "x"}]})
    assert problems
    found = inbound("shop", "a", cluster)
    assert found == Inbound(strict=True, clients=())
    assert list(inbound_routes("application", None, found)) == []
