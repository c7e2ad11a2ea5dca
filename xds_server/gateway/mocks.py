"""Mocks of upstreams: the routes that they answer, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from filters.api_documents import openapi
from filters.api_documents.faults import DocumentFaults, Fault
from filters.language import Problem
from filters.mock.settings import Mock
from filters.policy import Context
from xds_server.gateway.catalog_documents import problems_of
from xds_server.gateway.model.gateway import Sections
from xds_server.gateway.model.routes import Route


def by_route(sections: Sections) -> Mapping[str, Mock]:
    """Return the mock that answers requests of a route, by its name. It is that of the first upstream with one."""
    mocked = {name: one.mock for name, one in sections.upstreams.items() if one.mock is not None}
    if not mocked:
        return {}
    found = {}
    for name, route in sections.routes.items():
        first = next((target for target in route.targets if target in mocked), None)
        if first is not None:
            found[name] = mocked[first]
    return found


def check(sections: Sections, context: Context) -> Iterator[Problem]:
    """Yield problems of documents of mocks, and of routes that a mock cannot answer."""
    for name, upstream in sections.upstreams.items():
        mock = upstream.mock
        if mock is not None and mock in context.contents:
            faults = _faults(context.contents[mock], mock.base_path)
            yield from problems_of(("upstreams", name, "mock"), faults, mock, context.contents)
    for name in context.mocks:
        yield from _of_route(name, sections.routes[name], sections)


@lru_cache(maxsize=64)
def _faults(content: bytes, base_path: str | None) -> tuple[Fault, ...]:
    try:
        openapi.read(content, base_path)
    except DocumentFaults as faults:
        return faults.faults
    return ()


def _of_route(name: str, route: Route, sections: Sections) -> Iterator[Problem]:
    if route.websocket:
        message = "a mock answers no WebSockets"
        remedy = "remove 'websocket', or name an upstream without a mock"
        yield Problem(path=("routes", name, "websocket"), message=message, remedy=remedy)
    known = [sections.upstreams[one].mock for one in route.targets if one in sections.upstreams]
    if any(mock != known[0] for mock in known):
        message = "the mock of one upstream would answer for the others too"
        remedy = "give all upstreams of the split the same mock"
        yield Problem(path=("routes", name, "split"), message=message, remedy=remedy)
