"""What was written and never takes part: worth a warning, never an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from filters.identity import Consumer
from filters.language import Path, Problem
from xds_server.gateway.files import File
from xds_server.gateway.model.gateway import Sections

REFERRED = ("secrets", "upstreams", "identity", "plans", "policy_sets")
"""Sections whose objects do nothing unless another one names them."""


def unused(
    sections: Sections, policies: Mapping[str, Mapping[str, Any]], files: Iterable[File]
) -> Iterator[Problem]:
    """Warnings for objects that nothing refers to, consumers that no route knows, and routes without listeners."""
    targets = frozenset[Path]().union(*(file.targets for file in files))
    idle = [
        (section, name)
        for section in REFERRED
        for name in getattr(sections, section)
        if (section, name) not in targets
    ]
    raw = _raw_texts(sections) if idle else frozenset()
    for section, name in idle:
        if name not in raw:
            yield _warning((section, name), "nothing uses this", "remove it, or refer to it")
    asked = {key for settings in _distinct(policies.values()) for key in settings}
    for name, consumer in sections.consumers.items():
        if consumer.api_keys and "api_key" in asked:  # as most of very many
            continue
        keys = _credentials(consumer)
        if not keys:
            remedy = "add api_keys, jwt, basic_auth or certificates"
            yield _warning(("consumers", name), "nothing identifies this consumer", remedy)
        elif not asked.intersection(keys):
            message = f"no route has the policy {' or '.join(keys)}, which would identify this consumer"
            yield _warning(("consumers", name), message, "add the policy to a route")
    if sections.routes and not sections.listeners:
        message = "no listener answers, so no request reaches these routes"
        yield _warning(("routes",), message, "add listeners: {http: {port: 8080}}")


def _warning(path: Path, message: str, remedy: str) -> Problem:
    return Problem(path=path, message=message, remedy=remedy, at_key=True, severity="warning")


def _distinct(found: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Most routes share one and the same mapping."""
    return {id(one): one for one in found}.values()


def _credentials(consumer: Consumer) -> list[str]:
    """The policies that can identify a consumer."""
    held = {
        "api_key": consumer.api_keys,
        "jwt": consumer.jwt,
        "basic_auth": consumer.basic_auth,
        "mtls": consumer.certificates,
    }
    return [key for key, found in held.items() if found]


def _raw_texts(sections: Sections) -> frozenset[str]:
    """All texts in raw Envoy fields: a name among them may be a reference."""
    owners: Iterable[Any] = (
        *sections.listeners.values(),
        *sections.upstreams.values(),
        *sections.routes.values(),
    )
    return frozenset(text for one in owners if one.envoy is not None for text in _texts(one.envoy))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
