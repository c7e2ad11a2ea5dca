"""groups: Envoys that are served another branch of the gateway's repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from filters.language import Mistake, option
from xds_server.gateway.model.upstreams import parse_address

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMatch:
    """Which nodes belong to a group. Every given pattern must match; `*` and `?` stand for any characters."""

    id: str = option("The id of the node: `node.id` of Envoy's bootstrap.", default=_ANY)
    cluster: str = option("The cluster of the node.", default=_ANY)
    region: str = option("The region of its locality.", default=_ANY)
    zone: str = option("The zone of its locality.", default=_ANY)
    sub_zone: str = option("The sub-zone of its locality.", default=_ANY)
    metadata: Mapping[str, str] = option("Metadata of the node, by dotted path.", default=_EMPTY)

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake if every node matches."""
        texts = (getattr(self, one.name) for one in fields(self) if one.name != "metadata")
        if not any(one.strip(_ANY) for one in (*texts, *self.metadata.values())):
            yield Mistake(
                "every node matches, so no Envoy would be served this gateway", 'write id: "preview-*"'
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Envoys that are served a branch, so that a change can be tried before it is merged."""

    match: NodeMatch = option(
        "Which nodes belong to the group. If several groups match, the first one decides."
    )
    ref: str = option(
        'The branch. With `feature/*` and `match: {id: "preview-*"}`, the node `preview-login` is served the branch '
        "`feature/login`: what the `*` of the id stands for takes the place of the other one.",
        pattern=r"[^\x00-\x20\x7f~^:?\[\\]+",
        shape="the name of a branch",
    )
    environment: tuple[str, ...] = option(
        "Environment variables of the control plane that such a branch may read. No others, because whoever may push a "
        "branch could send them to a client.",
        default=(),
    )
    files: tuple[str, ...] = option(
        "Files of the control plane's machine, outside of the repository, that such a branch may read: absolute paths "
        "in which `*` stands for any characters.",
        default=(),
    )
    python: bool = option(
        "Whether such a branch may have policies in Python. They run in a policy server, with its rights.",
        default=False,
    )
    policy_server: str | None = option(
        "The address of the policy servers of the group, as their Envoys reach it, if it is not the one of all. Policy "
        "servers belong to the group by their node id alone.",
        default=None,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield mistakes between the keys."""
        stars = self.ref.count(_ANY)
        if stars > 1:
            yield Mistake("a branch has at most one '*'", "write feature/*", path=("ref",), value=self.ref)
        elif stars and (self.match.id.count(_ANY) != 1 or set(self.match.id) & set("?[")):
            message = "the '*' of the branch has no '*' of the node id to take its place"
            yield Mistake(message, 'write match: {id: "preview-*"}', path=("ref",), value=self.ref)
        for number, path in enumerate(self.files):
            if not path.startswith("/"):
                yield Mistake("not an absolute path", "begin it with /", path=("files", number), value=path)
        if self.policy_server is not None:
            try:
                parse_address(self.policy_server)
            except Mistake as mistake:
                yield Mistake(
                    mistake.message, mistake.remedy, path=("policy_server",), value=self.policy_server
                )
