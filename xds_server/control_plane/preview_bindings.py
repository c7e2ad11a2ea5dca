"""Which nodes are served which branch, by the section `groups` of the gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from filters.policy_server import NODE_CLUSTER as POLICY_SERVERS
from xds_server.discovery.node import Node
from xds_server.discovery.snapshot import Resource, Snapshot
from xds_server.discovery.types import custom
from xds_server.gateway.model.groups import Group, NodeMatch
from xds_server.serving.groups import Rule
from xds_server.serving.persistence import FURTHER

PREFIX = "preview/"
"""The beginning of the names of groups in the store that are served a branch."""
_SAVED = f"{FURTHER}groups"
_SAVED_TYPE = custom("Groups", "xds.Groups")
_BRANCH = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,200}")
"""What may take the place of a `*` in a branch, by git-check-ref-format."""


class NoBranch(ValueError):  # noqa: N818 - it is what a node id names
    """A node id names no branch, because it has characters that branches have not."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A branch that is served to nodes of a group."""

    group: str
    branch: str

    @property
    def name(self) -> str:
        """The group of its Envoys in the store."""
        return f"{PREFIX}{self.group}/{self.branch}"

    @property
    def policy_servers(self) -> str:
        """The group of its policy servers in the store."""
        return f"{POLICY_SERVERS}/{self.name}"


def binding(groups: Mapping[str, Group], node: Node) -> Binding | None:
    """Return what a node is served in the place of the gateway, None if it is in no group. Raises NoBranch.

    Of a policy server only the id counts, because all have the same cluster and no other properties.
    """
    of_policy_server = node.cluster == POLICY_SERVERS
    for name, group in groups.items():
        match = group.match
        if of_policy_server:
            found = bool(match.id.strip("*")) and Rule(group=name, id=match.id).matches(node)
        else:
            found = Rule(group=name, **_fields(match)).matches(node)
        if found:
            return Binding(name, _branch(group, node.id))
    return None


def _fields(value: Group | NodeMatch) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _branch(group: Group, node: str) -> str:
    if "*" not in group.ref:
        return group.ref
    before, _, after = group.match.id.partition("*")
    instead = node[len(before) : len(node) - len(after)]
    if not _BRANCH.fullmatch(instead):
        raise NoBranch(f"{instead!r} of the node id is no name of a branch")
    return group.ref.replace("*", instead)


def saved(groups: Mapping[str, Group]) -> Mapping[str, Snapshot]:
    """Return groups as a snapshot for the state file, by the name that it has there."""
    if not groups:
        return {}
    body = json.dumps([[name, _plain(group)] for name, group in groups.items()]).encode()
    return {_SAVED: Snapshot.of({_SAVED_TYPE: [Resource.from_bytes("groups", body)]})}


def restored(kept: Mapping[str, Snapshot]) -> Mapping[str, Group]:
    """Return the groups that a state file kept. Raises ValueError if they cannot be read."""
    found = next((one for type_ in kept.get(_SAVED, ()) for one in kept[_SAVED][type_].values()), None)
    if found is None:
        return {}
    try:
        return {name: _group(values) for name, values in json.loads(found.body)}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"unexpected content: {error}") from None


def _plain(group: Group) -> Mapping[str, Any]:
    return {**_fields(group), "match": {**_fields(group.match), "metadata": dict(group.match.metadata)}}


def _group(values: Mapping[str, Any]) -> Group:
    lists = {key: tuple(values[key]) for key in ("environment", "files")}
    return Group(**{**values, **lists, "match": NodeMatch(**values["match"])})
