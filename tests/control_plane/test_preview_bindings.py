"""Which nodes are served which branch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.policy_server import NODE_CLUSTER
from xds_server.control_plane.preview_bindings import Binding, NoBranch, binding, restored, saved
from xds_server.discovery.node import Node
from xds_server.gateway.model.groups import Group, NodeMatch

PREVIEW = Group(match=NodeMatch(id="preview-*-eu"), ref="feature/*")
STAGING = Group(match=NodeMatch(cluster="staging", metadata={"team.name": "shop"}), ref="staging")
GROUPS = {"preview": PREVIEW, "staging": STAGING}


def test_the_star_of_the_node_id_takes_the_place_of_that_of_the_branch() -> None:
    assert binding(GROUPS, Node(id="preview-login-eu")) == Binding("preview", "feature/login")
    assert binding(GROUPS, Node(id="preview-a/b-c-eu")) == Binding("preview", "feature/a/b-c")
    assert binding(GROUPS, Node(id="preview-login-us")) is None
    assert binding({}, Node(id="preview-login-eu")) is None


def test_every_given_pattern_must_match_and_the_first_group_decides() -> None:
    node = Node(id="a", cluster="staging", metadata={"team": {"name": "shop"}})
    assert binding(GROUPS, node) == Binding("staging", "staging")
    assert binding(GROUPS, Node(id="a", cluster="staging")) is None
    both = Node(id="preview-x-eu", cluster="staging", metadata={"team": {"name": "shop"}})
    assert binding(GROUPS, both) == Binding("preview", "feature/x")
    assert binding(dict(reversed(GROUPS.items())), both) == Binding("staging", "staging")


def test_of_a_policy_server_only_the_id_counts() -> None:
    found = binding(GROUPS, Node(id="preview-login-eu", cluster=NODE_CLUSTER))
    assert found is not None
    assert found.policy_servers == f"{NODE_CLUSTER}/preview/preview/feature/login"
    assert binding({"staging": STAGING}, Node(id="a", cluster=NODE_CLUSTER)) is None


@pytest.mark.parametrize("part", ["", "a b", "a\n", "a~1", "a^", "a:b", "*", "x" * 201])
def test_a_node_id_that_names_no_branch_is_rejected(part: str) -> None:
    with pytest.raises(NoBranch):
        binding(GROUPS, Node(id=f"preview-{part}-eu"))


@given(st.text(max_size=30))
def test_no_node_id_reaches_a_branch_outside_of_the_pattern(node: str) -> None:
    try:
        found = binding({"preview": PREVIEW}, Node(id=f"preview-{node}-eu"))
    except NoBranch:
        return
    assert found == Binding("preview", f"feature/{node}")


def test_groups_survive_a_restart() -> None:
    more = Group(
        match=NodeMatch(id="x"),
        ref="x",
        environment=("A",),
        files=("/a/*",),
        python=True,
        policy_server="a:1",
    )
    groups = {**GROUPS, "more": more}
    found = restored(saved(groups))
    assert found == groups
    assert list(found) == list(groups)
    assert restored(saved({})) == {}
