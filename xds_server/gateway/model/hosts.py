"""Hosts: exact names, and wildcards such as ``*.example.com``, which cover names of any depth below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from filters.language import Mistake

ANY_HOST = "*"
_HOST = re.compile(
    r"\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


@lru_cache(maxsize=65536)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def check(hosts: Iterable[str], key: str = "hosts") -> Iterator[Mistake]:
    """Yield a mistake for each text in the list `key` that is not a host."""
    for number, host in enumerate(hosts):
        if not _is_host(host):
            remedy = "write api.example.com or *.example.com, without scheme and port"
            yield Mistake("not a host", remedy, path=(key, number), value=host)


def of(hosts: Iterable[str]) -> tuple[str, ...]:
    """Return hosts as Envoy compares them; `*` if there are none."""
    return tuple(dict.fromkeys(map(str.lower, hosts))) or (ANY_HOST,)


def wildcards(host: str) -> Iterable[str]:
    """Yield the wildcards that cover a host or a wildcard, longest first."""
    labels = host.removeprefix("*.").split(".")
    start = 0 if host.startswith("*.") else 1
    if host != ANY_HOST:
        for number in range(start, len(labels)):
            wildcard = "*." + ".".join(labels[number:])
            if wildcard != host:
                yield wildcard
        yield ANY_HOST
