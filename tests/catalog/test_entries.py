"""Entries of the catalogue: what the YAML says, joined with what documents say."""

from __future__ import annotations

from typing import Any

from xds_server.catalog import entries
from xds_server.catalog.credentials import Credential
from xds_server.catalog.entries import Catalog
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.reader import Reader

GATEWAY = """
listeners: {http: {port: 8080}}
consumers: {acme: {api_keys: [{sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}]}}
routes:
  orders: {path: /api/orders/*, respond: {body: a}, policies: {api_key: {header: X-Orders-Key}}}
  graph: {path: /graphql, respond: {body: b}}
  old: {path: /old, respond: {body: c}}
catalog:
  orders:
    routes: [orders]
    openapi: {file: orders.yaml, base_path: /api}
    docs: [first-steps.md, other.md]
    sunset: 2027-05-01
  graph: {routes: [graph], graphql: {inline: "type Query {a: Int}", path: /graphql}, title: Graph, summary: One question}
  old: {routes: [old], lifecycle: retired, visibility: {organisations: [acme]}}
portal: {url: https://developers.test, gateway: https://api.test}
"""
FILES = {
    "orders.yaml": b"""
openapi: 3.1.0
info: {title: Orders, version: "2", summary: Things, description: Long}
paths: {/orders: {get: {responses: {}}}}
""",
    "first-steps.md": b"intro\n\n## First *steps* ##\ntext",
    "other.md": b"\xef\xbb\xbfno heading",
}


def _gateway(reader: Reader, text: str = GATEWAY, files: dict[str, bytes] = FILES) -> Gateway:
    gateway = reader.read({"gateway.yaml": text.encode()}, files.__getitem__, {}).gateway
    assert gateway is not None
    return gateway


def _catalog(*gateways: Gateway) -> Catalog:
    catalog = Catalog()
    for gateway in gateways:
        catalog.update(gateway)
    return catalog


def test_an_entry_has_what_yaml_and_document_say() -> None:
    catalog = _catalog(_gateway(Reader()))
    orders = catalog.entries["orders"]
    assert (orders.title, orders.version, orders.summary, orders.description) == (
        "Orders",
        "2",
        "Things",
        "Long",
    )
    assert orders.base_url == "https://api.test/api"
    assert orders.credential == Credential(kind="api_key", header="x-orders-key")
    assert orders.sunset is not None
    assert [(one.slug, one.title) for one in orders.pages] == [
        ("first-steps", "First *steps*"),
        ("other", "other"),
    ]
    assert orders.document is not None
    assert (orders.document.kind, orders.document.name) == ("openapi", "orders.yaml")
    reference = catalog.reference("orders")
    assert reference is not None
    assert reference.operations[0].path == "/orders"
    graph = catalog.entries["graph"]
    assert (graph.title, graph.summary, graph.base_url) == (
        "Graph",
        "One question",
        "https://api.test/graphql",
    )
    assert catalog.entries["old"].title == "old"
    assert catalog.reference("old") is None


def test_members_find_what_is_for_them() -> None:
    found = _catalog(_gateway(Reader())).entries
    assert [name for name, one in found.items() if one.listed(None)] == ["graph", "orders"]
    assert not found["old"].listed("acme"), "it is retired"
    assert found["old"].visibility.allows("acme")


def test_an_entry_stays_the_same_until_something_of_it_changes() -> None:
    reader, catalog = Reader(), Catalog()
    catalog.update(_gateway(reader))
    before = dict(catalog.entries)
    catalog.update(_gateway(reader))
    assert catalog.entries == before

    def changed(text: str = GATEWAY, **files: bytes) -> list[str]:
        catalog.update(_gateway(reader))
        known = dict(catalog.entries)
        catalog.update(_gateway(reader, text, FILES | {f"{name}.md": one for name, one in files.items()}))
        return [name for name, one in catalog.entries.items() if one is not known[name]]

    assert changed(other=b"# Other") == ["orders"]
    assert changed(GATEWAY.replace("One question", "Two")) == ["graph"]
    assert changed(GATEWAY.replace("X-Orders-Key", "X-Key")) == ["orders"]
    assert changed(GATEWAY.replace("https://api.test", "https://other.test")) == ["graph", "old", "orders"]


def test_references_are_kept_within_a_bound(monkeypatch: Any) -> None:
    monkeypatch.setattr(entries, "KEPT", 10)
    catalog = _catalog(_gateway(Reader()))
    first = catalog.reference("orders")
    assert first is catalog.reference("orders"), "the last one is kept"
    assert catalog.reference("graph") is not None
    again = catalog.reference("orders")
    assert again == first
    assert again is not first
