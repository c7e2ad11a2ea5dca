"""What the portal needs of a gateway: its catalogue, its plans, its products, and the names of its consumers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from filters.api_documents.reference import ApiReference
from filters.language import DataSource
from filters.model.identity import Plan
from xds_server.catalog.entries import Catalog, Entry, Page
from xds_server.catalog.search import Hit, SearchIndex
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.model.portal import NO_PORTAL, Portal
from xds_server.gateway.model.products import Product
from xds_server.marketplace import prices
from xds_server.marketplace.products import Offered


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayView:
    """A part of a gateway. `contents` has the texts of its products, by their sources.

    `reference` returns the reference of an API by its name, and `search` the entries that match a query and that its
    caller may see.
    """

    portal: Portal = NO_PORTAL
    entries: Mapping[str, Entry] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    products: Mapping[str, Product] = field(default_factory=dict)
    consumers: Collection[str] = ()
    contents: Mapping[DataSource, bytes] = field(default_factory=dict, repr=False)
    pages: tuple[Page, ...] = ()
    reference: Callable[[str], ApiReference | None] = lambda _name: None
    search: Callable[[str, Callable[[Entry], bool]], Iterable[Hit]] = lambda _query, _allows: ()

    @property
    def offered(self) -> Offered:
        """The names that products may use."""
        return Offered(apis=self.entries.keys(), plans=self.plans.keys())

    @property
    def reserved(self) -> frozenset[str]:
        """Slugs of organisations that the YAML shows more than others. Only admins make such organisations."""
        shown = [one.visibility for one in self.entries.values()]
        shown += [one.visibility for one in self.products.values()]
        return frozenset(slug for one in shown for slug in one.organisations)

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


class Viewer:
    """Makes views of successive gateways. What did not change is neither read nor indexed again."""

    def __init__(self) -> None:
        self._catalog, self._index = Catalog(), SearchIndex()

    def view(self, gateway: Gateway) -> GatewayView:
        """Return the view of a gateway."""
        self._catalog.update(gateway)
        self._index.update(self._catalog)
        sections = gateway.sections
        return GatewayView(
            portal=sections.portal,
            entries=self._catalog.entries,
            plans=sections.plans,
            products=sections.products,
            consumers=sections.consumers,
            contents=gateway.contents,
            pages=tuple(Page.of(one, gateway.contents.get(one, b"")) for one in sections.portal.docs),
            reference=self._catalog.reference,
            search=self._index.search,
        )
