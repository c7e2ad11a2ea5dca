"""What the pods of a mesh accept by their MeshPolicies."""

from __future__ import annotations

from typing import Any

import pytest

from filters.language import Problems
from xds_server.gateway_api.cluster import Cluster
from xds_server.gateway_api.mesh_inbound import inbound_file
from xds_server.gateway_api.mesh_policies import CLOSED, Inbound, InboundRule, inbound, statuses
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


def rule(**values: Any) -> InboundRule:
    return InboundRule(**values)


def test_policies_are_united() -> None:
    cluster, problems = policies(
        {"mtls": "strict", "serviceAccounts": ["a"]},
        {"allow": [{"serviceAccount": "x"}], "deny": [{"ports": [9090]}]},
        {"allow": [{"namespace": "other"}], "serviceAccounts": ["a"]},
    )
    assert problems == []
    deny = (rule(anonymous=True, ports=(9090,)),)
    x, other = rule(client=("shop", "x")), rule(client=("other", "*"))
    assert inbound("shop", "a", cluster) == Inbound(strict=True, allow=(other, x), deny=deny)
    assert inbound("shop", "b", cluster) == Inbound(allow=(x,), deny=deny)
    assert inbound("elsewhere", "a", cluster) == Inbound()


@pytest.mark.parametrize(
    "bad",
    [
        {"mtsl": "strict"},
        {"mtls": "on"},
        {"allow": []},
        {"allow": [{"account": "x"}]},
        {"allow": "all"},
        {"allow": [{"methods": ["GET"]}]},
        {"allow": [{"ports": [8080], "methods": ["get"]}]},
        {"allow": [{"ports": [8080], "paths": ["orders"]}]},
        {"allow": [{"ports": [8080], "paths": ["/a/../b"]}]},
        {"allow": [{"ports": [0]}]},
        {"allow": [{"anonymous": True, "namespace": "shop"}]},
        {"allow": [{"ports": [8080], "when": "request.method = 'GET'"}]},
        {"allow": [{"namespace": "*", "serviceAccount": "x"}]},
        {"deny": [{}]},
        {"deny": [{"anonymous": True}]},
    ],
)
def test_a_policy_that_is_not_understood_closes(bad: dict[str, Any]) -> None:
    cluster, problems = policies(bad, {"allow": [{"serviceAccount": "x"}]})
    assert problems
    found = inbound("shop", "a", cluster)
    assert found == Inbound(strict=True, allow=())
    assert "stream_routes" not in inbound_file(None, found)
    status, other = (one.ancestors[0].conditions[0] for one in statuses(cluster))
    assert (status.status, status.reason) == (False, "Invalid")
    assert status.message.startswith("the pods of the namespace accept no connection: spec")
    assert (other.status, other.reason) == (False, "TargetNotFound")


def test_a_policy_that_is_not_understood_closes_only_whom_it_is_for() -> None:
    cluster, _ = policies({"mtsl": "strict", "serviceAccounts": ["a"]})
    assert inbound("shop", "a", cluster).allow == ()
    assert inbound("shop", None, cluster) == Inbound()


def test_a_name_that_no_account_has_closes_all_pods() -> None:
    cluster, problems = policies({"mtls": "strict", "serviceAccounts": ["*"]})
    assert problems == ["not the name of a service account"]
    assert inbound("shop", "a", cluster) == inbound("shop", "b", cluster) == CLOSED
    cluster, problems = policies({"allow": [{"serviceAccount": "cli*"}]})
    assert problems == ["not the name of a service account"]
    assert inbound("shop", "a", cluster) == CLOSED
