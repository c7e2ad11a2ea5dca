"""A portal of a small shop, with pages, in a web server of this process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from tests.support.folder import compiled, filled, write
from tests.support.market import Market
from tests.support.portal import serving
from xds_server.marketplace import logins, products
from xds_server.marketplace.actor import GATEWAY, VISITOR
from xds_server.portal.application import application
from xds_server.portal.attempts import Attempts
from xds_server.portal.gateway_view import Viewer
from xds_server.portal.generated_clients import GeneratedClients, installed
from xds_server.portal.pages import web
from xds_server.usage.store import Store

OPENAPI = """
openapi: 3.1.0
info: {title: Orders, version: "2.1", summary: Buy things, description: "Orders of a **shop**."}
paths:
  /orders/{id}:
    get:
      operationId: getOrder
      summary: Read an order
      parameters: [{name: id, in: path, required: true, schema: {type: string}}]
      responses: {"200": {description: The order, content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}}
components: {schemas: {Order: {type: object, required: [id], properties: {id: {type: string, description: Its number}, total: {type: integer}}}}}
"""
YAML = """
listeners: {http: {port: 8080}}
upstreams: {echo: {endpoints: ["127.0.0.1:1"]}}
plans: {free: {rate_limit: 1000/hour}, gold: {rate_limit: 100000/hour}}
policies: {api_key: true}
routes:
  orders: {path: /orders/*, upstream: echo}
  secret: {path: /secret, upstream: echo}
catalog:
  orders: {openapi: {file: orders.yaml}, routes: [orders], tags: [commerce], owner: Team Orders, docs: [guide.md], deprecated: 2026-11-01, sunset: 2027-05-01}
  secret: {title: Secret, routes: [secret], visibility: {organisations: [other]}}
products:
  shop:
    title: Shop
    summary: Everything of the shop
    apis: [orders]
    terms: {file: terms.md}
    plans:
      free: {}
      gold: {approval: manual, price: {currency: EUR, monthly: 2900, included: 1000, per_call: {amount: 50, per: 1000}}}
portal: {url: "$url", gateway: "http://api.example", name: Shop Developers, docs: [start.md], accent: "#0b57d0"}
"""
FILES = {
    "orders.yaml": OPENAPI,
    "guide.md": "# First steps\n\nCall `GET /orders/1`.\n\n<script>alert(1)</script> [bad](javascript:alert(1))\n",
    "start.md": "# Welcome\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "terms.md": "Be **kind**.",
}


class Visitor:
    """A browser without scripts. `name` is the person who is logged in, None for a visitor."""

    def __init__(self, portal: ShopPortal, name: str | None, language: str = "en") -> None:
        self.client = httpx.Client(
            base_url=portal.address,
            timeout=30,
            headers={"accept-language": language, "origin": portal.address},
        )
        self._csrf = ""
        if name is not None:
            with portal.market.store.begin(VISITOR) as now:
                opened = logins.open_session(now, portal.market.users[name])
            self._csrf = opened.session.csrf
            self.client.cookies.set("xds_portal", opened.token)
            self.token = opened.token

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, **form: str) -> httpx.Response:
        """Send a form as the page would."""
        return self.client.post(path, data={"csrf": self._csrf, **form})


class ShopPortal:
    """The portal. `folder` is the gateway's."""

    def __init__(self, market: Market, address: str, attempts: Attempts) -> None:
        self.market, self.address, self.attempts = market, address, attempts
        self._visitors: list[Visitor] = []

    def as_(self, name: str | None, language: str = "en") -> Visitor:
        self._visitors.append(Visitor(self, name, language))
        return self._visitors[-1]

    def close(self) -> None:
        """Close the connections of all visitors."""
        for one in self._visitors:
            one.client.close()


def csrf_of(page: httpx.Response) -> str:
    """Return the token of the forms of a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


@contextmanager
def shop_portal(
    market: Market,
    folder: Path,
    yaml: str = YAML,
    most: int = 1000,
    usage: Store | None = None,
    typescript: str | None = None,
    files: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[ShopPortal]:
    """Serve the portal of a gateway that is written to a folder.

    `usage` is the usage store, `typescript` the program that makes clients in TypeScript, and `files` are others than those
    of the shop.
    """
    views: list[Any] = []
    attempts = Attempts(most=most, clock=lambda: 0.0)
    clients = GeneratedClients(installed(typescript))
    pages = web.routes(market.store, lambda: views[-1], attempts, usage, clients)
    app = application(market.store, lambda: views[-1], attempts, pages, usage)
    with serving(app) as address:
        write(folder, {**FILES, **files}, gateway=filled(yaml, url=address))
        views.append(Viewer().view(compiled(folder).gateway))
        with market.store.begin(GATEWAY) as now:
            products.take_from_gateway(now, views[-1].written_products(), views[-1].offered)
        served = ShopPortal(market, address, attempts)
        yield served
        served.close()
