"""Checks of the sections `catalog` and `products` across objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from filters.language import Problem
from filters.language.options import OFF
from filters.model.cors import allows
from filters.pipeline import POLICIES
from filters.policy import Policy
from xds_server.gateway.model.gateway import FileRoutes, Sections


def check(sections: Sections, routes: Sequence[FileRoutes]) -> Iterator[Problem]:
    """Yield problems of routes with two APIs, of successors, and of products whose plans cannot apply."""
    yield from _shared_routes(sections)
    yield from _successors(sections)
    yield from _without_date(sections)
    for name in sections.products:
        yield from _hidden_apis(name, sections)
    yield from _open_routes(sections, routes)
    yield from _unreachable_pages(sections, routes)


def _shared_routes(sections: Sections) -> Iterator[Problem]:
    owners: dict[str, tuple[str, int]] = {}
    for name, api in sections.catalog.items():
        for number, route in enumerate(api.routes):
            if route in owners:
                other, at = owners[route]
                same = other == name
                message = (
                    f"the route '{route}' is named twice"
                    if same
                    else (f"the route '{route}' belongs to the API '{other}' already")
                )
                yield Problem(
                    path=("catalog", name, "routes", number),
                    message=message,
                    remedy="remove one" if same else "remove it from one of them",
                    also_path=() if same else ("catalog", other, "routes", at),
                )
            owners.setdefault(route, (name, number))


def _successors(sections: Sections) -> Iterator[Problem]:
    for name, api in sections.catalog.items():
        seen, following = [name], api.successor
        while following is not None and following in sections.catalog and following not in seen:
            seen.append(following)
            following = sections.catalog[following].successor
        if following == name:
            chain = " → ".join((*seen, name))
            message = (
                "an API cannot replace itself" if len(seen) == 1 else f"the APIs replace each other: {chain}"
            )
            remedy = "name another API, or remove it"
            yield Problem(path=("catalog", name, "successor"), message=message, remedy=remedy)


def _without_date(sections: Sections) -> Iterator[Problem]:
    for name, api in sections.catalog.items():
        if api.lifecycle == "deprecated" and api.deprecated is None:
            yield Problem(
                path=("catalog", name, "lifecycle"),
                message="responses say nothing of the deprecation, because its date is missing",
                remedy="add deprecated: DATE",
                severity="warning",
            )


def _hidden_apis(name: str, sections: Sections) -> Iterator[Problem]:
    product = sections.products[name]
    for number, one in enumerate(product.apis):
        api = sections.catalog.get(one)
        if api is not None and not api.visibility.covers(product.visibility):
            yield Problem(
                path=("products", name, "apis", number),
                message=f"some who see this product do not see its API '{one}'",
                also_path=("catalog", one, "visibility"),
                remedy="give the product the visibility of the API",
                severity="warning",
            )


def _open_routes(sections: Sections, files: Sequence[FileRoutes]) -> Iterator[Problem]:
    """Yield a warning for each route of a product that identifies nobody, so that everybody may call it."""
    sold = {api for product in sections.products.values() for api in product.apis}
    for name in sorted(sold & sections.catalog.keys()):
        routes = sections.catalog[name].routes
        for number, route in enumerate(routes):
            settings = _settings(route, files)
            if settings is not None and not _identifies(settings) and route not in routes[:number]:
                yield Problem(
                    path=("catalog", name, "routes", number),
                    message=f"the route '{route}' identifies no caller, so it needs no subscription",
                    remedy="write api_key: true under its policies",
                    severity="warning",
                )


def _unreachable_pages(sections: Sections, files: Sequence[FileRoutes]) -> Iterator[Problem]:
    """Yield a warning for each route whose own CORS keeps pages of the portal from trying calls."""
    origin = sections.portal.origin if sections.portal.calls_other_origin else None
    if origin is None:
        return
    for name, api in sections.catalog.items():
        for number, route in enumerate(api.routes):
            settings = _settings(route, files)
            cors = (settings or {}).get("cors")
            if settings is not None and (cors is None or not allows(cors, origin)):
                yield Problem(
                    path=("catalog", name, "routes", number),
                    message=f"developers cannot try the route '{route}' in the portal, because its policy cors does not "
                    f"allow pages of {origin}",
                    remedy="add this origin to its allow_origins, or remove its cors",
                    severity="warning",
                )


def _settings(route: str, files: Sequence[FileRoutes]) -> Mapping[str, Any] | None:
    """Return the effective policies of a route, or None if it does not exist."""
    return next((file.policies[route] for file in files if route in file.policies), None)


def _identifies(settings: Mapping[str, Any]) -> bool:
    return any(settings.get(key, OFF) is not OFF for key in _identifying())


@cache
def _identifying() -> frozenset[str]:
    """Return the keys of policies that identify consumers."""
    return frozenset(policy.key for policy in POLICIES if type(policy).identifies is not Policy.identifies)
