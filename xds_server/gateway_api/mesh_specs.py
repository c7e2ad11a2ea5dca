"""The spec of our own kind MeshPolicy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from filters.authorization import principals
from filters.authorization.authorize import CONDITIONS
from filters.language import Mistake, option

ANY = "*"
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshRule:
    """Connections or requests, by their client and by what they are for. All of its keys must match."""

    namespace: str | None = option(
        "The client's namespace; `*` for all. The default is that of the policy if `serviceAccount` is given, else all.",
        default=None,
    )
    service_account: str | None = option(
        "The client's service account; `*` for all of the namespace.", default=None, key="serviceAccount"
    )
    ports: tuple[int, ...] = option(
        "Only these ports of the pods, as their containers open them.", default=(), narrows=True
    )
    methods: tuple[str, ...] = option(
        "Only requests with these HTTP methods. The `ports` are read as HTTP.", default=(), narrows=True
    )
    paths: tuple[str, ...] = option(
        "Only requests for these paths, `/orders/*` for `/orders` and all below. The `ports` are read as HTTP.",
        default=(),
        narrows=True,
    )

    @property
    def of_requests(self) -> bool:
        """True if the rule is about requests, so that connections alone do not tell whether it matches."""
        return bool(self.methods or self.paths)

    def check(self) -> Iterator[Mistake]:
        """Yield the mistakes of one rule."""
        if self.namespace == ANY and self.service_account not in (None, ANY):
            message = "an account belongs to one namespace"
            yield Mistake(message, "name the namespace", path=("namespace",))
        if self.service_account not in (None, ANY) and not is_account(self.service_account or ""):
            message, remedy = "not the name of a service account", "write a whole name, or *"
            yield Mistake(message, remedy, path=("serviceAccount",), value=self.service_account)
        for number, port in enumerate(self.ports):
            if not 0 < port <= _LAST_PORT:
                yield Mistake("not a port", "write a number up to 65535", path=("ports", number), value=port)
        for number, method in enumerate(self.methods):
            if not re.fullmatch(r"[A-Z][A-Z0-9_-]*", method):
                yield Mistake("not a method", "write GET", path=("methods", number), value=method)
        for number, path in enumerate(self.paths):
            try:
                principals.check_path(path)
            except Mistake as mistake:
                yield Mistake(mistake.message, mistake.remedy, path=("paths", number), value=path)
        if self.of_requests and not self.ports:
            message = "a rule about requests must say which ports speak HTTP"
            yield Mistake(message, "add ports, such as [8080]")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshAllow(MeshRule):
    """Clients that are allowed. Without `anonymous`, they have a certificate of the mesh."""

    anonymous: bool = option(
        "Everybody, with and without a certificate of the mesh.",
        default=False,
    )
    when: str | None = option(
        "A CEL condition about the request, as in `authorize` of the gateway language. The `ports` are read as HTTP.",
        default=None,
        multiline=True,
        narrows=True,
    )

    @property
    def of_requests(self) -> bool:
        """True if the rule is about requests, so that connections alone do not tell whether it matches."""
        return bool(self.methods or self.paths or self.when)

    def check(self) -> Iterator[Mistake]:
        """Yield the mistakes of one rule."""
        yield from MeshRule.check(self)
        if self.anonymous and (self.namespace is not None or self.service_account is not None):
            message = "a client without a certificate has no account"
            yield Mistake(message, "keep one", path=("anonymous",))
        if self.when is not None:
            try:
                CONDITIONS.parse(self.when)
            except Mistake as mistake:
                yield Mistake(mistake.message, mistake.remedy, path=("when",), value=self.when)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPolicySpec:
    """What the pods of a namespace accept."""

    service_accounts: tuple[str, ...] = option(
        "The accounts of the pods; all of the namespace if left out.", default=(), key="serviceAccounts"
    )
    mtls: Literal["permissive", "strict"] = option(
        "`strict` rejects connections without a certificate of the mesh.", default="permissive"
    )
    allow: tuple[MeshAllow, ...] | None = option(
        "Only these clients and requests. Without `anonymous`, it implies `strict`.",
        default=None,
        minimum_items=1,
    )
    deny: tuple[MeshRule, ...] = option(
        "Not these clients and requests, whatever is allowed. A rule without a client is about everybody.",
        default=(),
        narrows=True,
    )

    def check(self) -> Iterator[Mistake]:
        """Yield a mistake for each name that no account has, and for each rule that denies everything."""
        for number, account in enumerate(self.service_accounts):
            if not is_account(account):
                remedy = "write a name, or leave serviceAccounts out for all pods of the namespace"
                path = ("serviceAccounts", number)
                yield Mistake("not the name of a service account", remedy, path=path, value=account)
        for number, rule in enumerate(self.deny):
            if rule == MeshRule():
                message = "this rule denies everything"
                yield Mistake(message, "say what it denies, or scale the pods to 0", path=("deny", number))


def is_account(name: str) -> bool:
    """True if a service account may have a name (RFC 1123)."""
    return re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadablePolicy(MeshPolicySpec):
    """A policy that is not understood, with what is wrong. Nobody may connect, because it would protect something."""

    faults: tuple[str, ...]
