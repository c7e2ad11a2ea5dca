"""What the portal needs of a gateway: its catalogue, its plans, its products, and the names of its consumers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.language import DataSource
from filters.model.identity import Plan
from xds_server.gateway.model.catalog import Api
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.portal import NO_PORTAL, Portal
from xds_server.gateway.model.products import Product
from xds_server.marketplace import prices
from xds_server.marketplace.products import Offered


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayView:
    """A part of a gateway. `contents` has the documents of its APIs and the pages, by their sources."""

    portal: Portal = NO_PORTAL
    apis: Mapping[str, Api] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    products: Mapping[str, Product] = field(default_factory=dict)
    consumers: Collection[str] = ()
    contents: Mapping[DataSource, bytes] = field(default_factory=dict, repr=False)

    @property
    def offered(self) -> Offered:
        """The names that products may use."""
        return Offered(apis=self.apis.keys(), plans=self.plans.keys())

    def text(self, source: DataSource | None) -> str:
        """Return a text of the gateway, empty if there is none."""
        return "" if source is None else self.contents.get(source, b"").decode("utf-8", "replace")

    def written_products(self) -> list[dict[str, Any]]:
        """Return the products of the YAML as the store takes them."""
        return [self._written(name, one) for name, one in sorted(self.products.items())]

    def _written(self, name: str, one: Product) -> dict[str, Any]:
        plans = [
            {
                "plan": plan,
                "approval": offered.approval,
                "price": prices.written(offered.price) if offered.price is not None else None,
            }
            for plan, offered in one.plans.items()
        ]
        return {
            "slug": name,
            "title": one.title or name,
            "summary": one.summary or "",
            "description": self.text(one.description),
            "apis": list(one.apis),
            "plans": plans,
            "visible_to": None if one.visibility.public else list(one.visibility.organisations),
            "terms": self.text(one.terms),
        }


NOTHING = GatewayView()
"""Before the gateway has been read."""


def view(gateway: Gateway) -> GatewayView:
    """Return the view of a gateway."""
    sections = gateway.sections
    return GatewayView(
        portal=sections.portal,
        apis=sections.catalog,
        plans=sections.plans,
        products=sections.products,
        consumers=sections.consumers,
        contents=gateway.contents,
    )
