"""Node groups: the snapshot that a node gets, and the certificates that may claim to be the node."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from xds_server.discovery.node import Node
from xds_server.serving.session import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The nodes of one group. Every given pattern must match; ``*`` and ``?`` stand for any characters.

    `metadata` is by dotted path (``team.name``). `identities` are the SANs of client certificates that may claim such
    a node (SPIFFE IDs). ``{id}`` and ``{cluster}`` in them stand for those of the node, so
    ``spiffe://example.com/envoy/{id}`` binds each node to its own certificate. Without identities, any client may
    claim the node.
    """

    group: str
    id: str = "*"
    cluster: str = "*"
    region: str = "*"
    zone: str = "*"
    sub_zone: str = "*"
    metadata: Mapping[str, str] = field(default_factory=dict)
    identities: tuple[str, ...] = ()

    def matches(self, node: Node) -> bool:
        """True if the node belongs to the group, provided that its claims are true."""
        pairs = [
            (node.id, self.id),
            (node.cluster, self.cluster),
            (node.region, self.region),
            (node.zone, self.zone),
            (node.sub_zone, self.sub_zone),
            *((_at(node.metadata, path), pattern) for path, pattern in self.metadata.items()),
        ]
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)

    def admits(self, node: Node, sans: Iterable[str]) -> bool:
        """True if a certificate with these names may claim the node."""
        return not self.identities or any(
            _named(pattern, node).fullmatch(san) for pattern in self.identities for san in sans
        )


class Groups:
    """The first rule that matches decides.

    A node is rejected if that rule does not admit it, or if no rule matches. It never gets another group because its
    certificate does not fit.
    """

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules

    def of(self, node: Node, sans: Iterable[str] = ()) -> str | None:
        """Return the group of a node, or None if the node is rejected."""
        for rule in self.rules:
            if rule.matches(node):
                return rule.group if rule.admits(node, tuple(sans)) else None
        return None

    def __call__(self, node: Node, context: Context) -> str | None:
        return self.of(node, names(context))


def names(context: Context) -> tuple[str, ...]:
    """Return the subject alternative names of the client's certificate, which the handshake has verified."""
    properties: Mapping[Any, Iterable[bytes]] = context.auth_context() or {}
    return tuple(
        san.decode("utf-8", "replace") for san in properties.get("x509_subject_alternative_name", ())
    )


def _at(metadata: Mapping[str, Any], path: str) -> str:
    value: Any = metadata
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _named(pattern: str, node: Node) -> re.Pattern[str]:
    """Return the pattern as a regular expression. Values of the node are literal, and ``*`` ends at a slash."""
    stands_for = {"*": "[^/]*", "?": "[^/]", "{id}": re.escape(node.id), "{cluster}": re.escape(node.cluster)}
    parts = re.split(r"(\*|\?|\{id\}|\{cluster\})", pattern)
    return re.compile("".join(stands_for[part] if part in stands_for else re.escape(part) for part in parts))
