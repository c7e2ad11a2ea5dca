"""The search: words of several scripts, beginnings of words, ranks, and what a caller may not see."""

from __future__ import annotations

import json

import pytest

from xds_server.catalog.entries import Catalog
from xds_server.catalog.search import SearchIndex
from xds_server.catalog.tokens import query_words, words
from xds_server.gateway.reader import Reader


def _document(title: str, **operations: str) -> str:
    paths = {
        f"/{name.lower()}": {"get": {"operationId": name, "summary": summary, "responses": {}}}
        for name, summary in operations.items()
    }
    return json.dumps({"openapi": "3.1.0", "info": {"title": title, "version": "1"}, "paths": paths})


APIS = {
    "orders": {
        "title": "Orders",
        "summary": "Place and follow orders",
        "tags": ["commerce"],
        "openapi": {"inline": _document("x", getOrder="One order", listOrders="All of them")},
    },
    "payments": {
        "title": "Payments",
        "summary": "Pay for an order",
        "owner": {"name": "Team Ledger", "email": "ledger@example.com"},
        "openapi": {"inline": _document("x", createPayment="Pay", refund="Give money back")},
    },
    "weather": {"title": "날씨 정보", "summary": "오늘과 내일의 기상 예보", "tags": ["공공데이터"]},
    "tokyo": {"title": "東京の天気", "summary": "天気予報を返す"},
    "cafe": {"title": "Café Größe", "summary": "Déjà vu", "visibility": {"organisations": ["acme"]}},
}


@pytest.fixture(scope="module")
def index() -> SearchIndex:
    return _index(APIS)


def _index(apis: dict[str, dict[str, object]]) -> SearchIndex:
    found = SearchIndex()
    found.update(_catalog(apis))
    return found


def _catalog(apis: dict[str, dict[str, object]]) -> Catalog:
    gateway = {
        "listeners": {"http": {"port": 8080}},
        "routes": {name: {"path": f"/{name}", "respond": {"body": "x"}} for name in apis},
        "catalog": {name: {**api, "routes": [name]} for name, api in apis.items()},
    }
    reading = Reader().read({"gateway.yaml": json.dumps(gateway).encode()}, {}.__getitem__, {})
    assert reading.gateway is not None, reading.errors
    catalog = Catalog()
    catalog.update(reading.gateway)
    return catalog


def _names(index: SearchIndex, query: str) -> list[str]:
    return [hit.entry.name for hit in index.search(query)]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("orders", ["orders"]),
        ("order", ["orders", "payments"]),
        ("ORD", ["orders", "payments"]),
        ("commerce", ["orders"]),
        ("ledger", ["payments"]),
        ("refund", ["payments"]),
        ("getorder", ["orders"]),
        ("money back", ["payments"]),
        ("pay order", ["payments"]),
        ("날씨", ["weather"]),
        ("날", ["weather"]),
        ("예보", ["weather"]),
        ("내일", ["weather"]),
        ("공공데이터", ["weather"]),
        ("天気", ["tokyo"]),
        ("東京", ["tokyo"]),
        ("cafe grosse", ["cafe"]),
        ("CAFÉ", ["cafe"]),
        ("deja", ["cafe"]),
        ("", []),
        ("  -- ", []),
        ("nothingofthekind", []),
        ("orders nothingofthekind", ["orders"]),
    ],
)
def test_what_a_query_finds(index: SearchIndex, query: str, names: list[str]) -> None:
    assert _names(index, query) == names


def test_a_title_counts_more_than_the_rest(index: SearchIndex) -> None:
    assert _names(index, "pay") == ["payments"]
    assert _names(index, "order")[0] == "orders"


def test_operations_that_match_are_named(index: SearchIndex) -> None:
    (hit,) = index.search("list orders")
    assert hit.operations == ("listOrders",)
    (hit,) = index.search("money")
    assert hit.operations == ("refund",)


def test_nobody_finds_what_is_not_for_them(index: SearchIndex) -> None:
    for organisation, expected in ((None, []), ("other", []), ("acme", ["cafe"])):
        hits = index.search("cafe", lambda entry, organisation=organisation: entry.listed(organisation))  # type: ignore[misc]
        assert [hit.entry.name for hit in hits] == expected


def test_what_may_not_be_seen_does_not_hide_the_rest() -> None:
    index = _index(
        {"a": {"title": "red blue", "visibility": {"organisations": ["acme"]}}, "b": {"title": "red"}}
    )
    hits = index.search("red blue", lambda entry: entry.listed(None))
    assert [hit.entry.name for hit in hits] == ["b"]


def test_an_index_follows_its_catalogue() -> None:
    index = SearchIndex()
    index.update(_catalog({"a": {"title": "First"}}))
    assert _names(index, "first") == ["a"]
    index.update(_catalog({"a": {"title": "Second"}}))
    assert (_names(index, "first"), _names(index, "second")) == ([], ["a"])


def test_hits_are_limited() -> None:
    index = _index({f"api{number}": {"title": "Same"} for number in range(30)})
    assert len(index.search("same", limit=7)) == 7


def test_words_are_those_of_people_and_of_programs() -> None:
    assert list(words("getOrder")) == ["get", "order", "getorder"]
    assert list(words("HTTPServer v2")) == ["http", "server", "httpserver", "v2"]
    assert list(words("날씨 API")) == ["날", "씨", "날씨", "api"]
    assert query_words("날씨정보 Api") == [("날씨", False), ("씨정", False), ("정보", False), ("api", True)]
    assert list(words("x" * 100_000)) == ["x" * 64]
