"""Who gets what: by what a node says of itself, and by what its certificate proves."""

from __future__ import annotations

import pytest

from xds_server.discovery.node import Node
from xds_server.serving.groups import Groups, Rule

EDGE = Node(
    id="edge-1",
    cluster="edge",
    region="eu",
    zone="eu-1",
    metadata={"team": {"name": "shop"}, "canary": True, "ring": 3.0},
)


@pytest.mark.parametrize(
    "rule",
    [
        Rule(group="g", id="edge-*"),
        Rule(group="g", cluster="edge"),
        Rule(group="g", region="eu", zone="eu-?"),
        Rule(group="g", metadata={"team.name": "shop"}),
        Rule(group="g", metadata={"canary": "true", "ring": "3"}),
    ],
)
def test_a_group_is_found_by_id_cluster_locality_and_metadata(rule: Rule) -> None:
    assert Groups(rule).of(EDGE) == "g"


@pytest.mark.parametrize(
    "rule",
    [
        Rule(group="g", id="core-*"),
        Rule(group="g", cluster="edge", zone="us-1"),
        Rule(group="g", metadata={"team.name": "other"}),
        Rule(group="g", metadata={"team.name.deeper": "?*"}),
        Rule(group="g", metadata={"missing": "?*"}),
    ],
)
def test_every_pattern_must_match(rule: Rule) -> None:
    assert Groups(rule).of(EDGE) is None


def test_the_first_rule_that_matches_decides() -> None:
    groups = Groups(Rule(group="canary", metadata={"canary": "true"}), Rule(group="rest"))
    assert groups.of(EDGE) == "canary"
    assert groups.of(Node(id="x")) == "rest"


def test_a_node_is_bound_to_the_certificate_that_names_it() -> None:
    groups = Groups(Rule(group="g", identities=("spiffe://example.com/envoy/{cluster}/{id}",)))
    assert groups.of(EDGE, ["spiffe://example.com/envoy/edge/edge-1"]) == "g"
    assert groups.of(EDGE, ["spiffe://example.com/envoy/edge/edge-2"]) is None
    assert groups.of(EDGE, []) is None


def test_a_node_cannot_widen_its_identity_with_a_pattern() -> None:
    groups = Groups(Rule(group="g", identities=("spiffe://example.com/{id}",)))
    assert groups.of(Node(id="*"), ["spiffe://example.com/edge-1"]) is None
    assert groups.of(Node(id=".*"), ["spiffe://example.com/edge-1"]) is None


def test_a_node_without_a_name_or_with_a_pattern_for_one_is_nobody_else() -> None:
    groups = Groups(Rule(group="g", identities=("spiffe://example.com/{id}/{cluster}",)))
    assert groups.of(Node(id="{cluster}", cluster="b"), ["spiffe://example.com/b/b"]) is None
    assert groups.of(Node(id="{cluster}", cluster="b"), ["spiffe://example.com/{cluster}/b"]) == "g"
    assert groups.of(Node(cluster="b"), ["spiffe://example.com/{id}/b"]) is None


def test_any_name_of_a_certificate_may_be_the_one() -> None:
    groups = Groups(Rule(group="g", identities=("spiffe://example.com/{id}",)))
    names = ["edge.example.com", "spiffe://example.com/edge-1", "spiffe://example.com/edge-2"]
    assert groups.of(EDGE, names) == "g"
    assert groups.of(Node(id="edge-3"), names) is None


def test_a_star_in_an_identity_stops_at_a_slash() -> None:
    groups = Groups(Rule(group="g", identities=("spiffe://example.com/*",)))
    assert groups.of(EDGE, ["spiffe://example.com/edge-1"]) == "g"
    assert groups.of(EDGE, ["spiffe://example.com/other/edge-1"]) is None


def test_a_certificate_that_does_not_fit_gives_no_other_group() -> None:
    groups = Groups(Rule(group="secret", cluster="edge", identities=("spiffe://a",)), Rule(group="public"))
    assert groups.of(EDGE, ["spiffe://b"]) is None
