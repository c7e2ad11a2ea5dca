"""Plans of aggregates for tests, made as the control plane makes them."""

from __future__ import annotations

from typing import Any

from filters.language import INVALID, Problems, decoder_for
from xds_server.composer.aggregate_plan import AggregatePlan, load
from xds_server.gateway.model.routes import Route
from xds_server.translate.compositions import rules


def planned(aggregate: dict[str, Any], path: str = "/x/{id}", **more: Any) -> AggregatePlan:
    """Return the plan of a route with this aggregate. Calls without an upstream go to that with their name."""
    calls = {
        name: {"upstream": name, "path": f"/{name}", **call} for name, call in aggregate["calls"].items()
    }
    problems = Problems()
    written = {"path": path, "aggregate": {**aggregate, "calls": calls}, **more}
    route = decoder_for(Route)(written, (), problems)
    assert route is not INVALID, problems
    (rule,) = rules({"r": route}, {}, {})
    return load(rule.value.content)
