"""The catalogue of a portal: reading documents, indexing them, and searching, with words in English and in Korean."""

from __future__ import annotations

import json
import random
import resource
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

from benchmarks.tables import HEADS, row, show
from xds_server.catalog.entries import Catalog
from xds_server.catalog.search import SearchIndex
from xds_server.gateway.model.gateway import Gateway
from xds_server.gateway.reader import Reader

APIS, OPERATIONS, SCHEMAS, QUERIES = 1_000, 30, 10, 400
T = TypeVar("T")
KOREAN = ("주문", "결제", "날씨", "정보", "배송", "회원", "조회", "목록")


def main() -> None:
    """Print the table."""
    words = Words(random.Random(1))
    files = {f"api{number}.json": document(words) for number in range(APIS)}
    size = sum(map(len, files.values())) / 1e6
    reader, catalog, index = Reader(), Catalog(), SearchIndex()
    reading, gateway = _timed(lambda: _read(reader, files, "first"))
    before = _memory()
    entering, _ = _timed(lambda: catalog.update(gateway))
    indexing, _ = _timed(lambda: index.update(catalog))
    used = _memory() - before
    queries = [words.text(1 + number % 2) for number in range(QUERIES)] + [
        "a",
        "주",
        "정보조회",
        "st re",
    ] * 10
    times = sorted(
        _timed(lambda query=query: index.search(query, lambda entry: entry.listed(None)))[0]
        for query in queries
    )  # type: ignore[misc]
    files["api7.json"] = document(words)
    changing, _ = _timed(lambda: _changed(reader, catalog, index, files))
    rows = [
        (f"all documents read and checked, {size:.0f} MB of JSON", f"{reading:.2f} s", "", ""),
        ("… joined to entries", f"{entering:.2f} s", "", ""),
        ("… indexed", f"{indexing:.2f} s", "", ""),
        ("memory of entries and index", f"{used:.0f} MiB", "", ""),
        ("one changed document, read and indexed", f"{changing * 1000:.0f} ms", "", ""),
        ("a query, median", f"{statistics.median(times) * 1000:.1f} ms", "", ""),
        row("a query, p99", times[int(len(times) * 0.99)] * 1000, 30, " ms"),
    ]
    show(f"Catalogue: {APIS:,} APIs with {OPERATIONS} operations each", HEADS, rows)


class Words:
    """Texts of random words."""

    def __init__(self, source: random.Random) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(source.choices(letters, k=source.randint(3, 9))) for _ in range(3000)]
        self._words += KOREAN * 50
        self._source = source

    def text(self, count: int) -> str:
        """Return a number of words."""
        return " ".join(self._source.choices(self._words, k=count))


def document(words: Words, operations: int = OPERATIONS) -> bytes:
    """Return an OpenAPI document with random words."""
    answer = {"200": {"description": "x", "content": {"application/json": {"schema": {}}}}}
    paths = {}
    for number in range(operations):
        schema = {"$ref": f"#/components/schemas/S{number % SCHEMAS}"}
        operation = {
            "operationId": f"op{number}",
            "summary": words.text(5),
            "description": words.text(30),
            "tags": [words.text(1)],
            "responses": json.loads(json.dumps(answer).replace("{}", json.dumps(schema))),
        }
        paths[f"/{words.text(1)}/{number}"] = {"get": operation}
    schemas = {
        f"S{number}": {
            "type": "object",
            "properties": {
                words.text(1): {"type": "string", "description": words.text(8)} for _ in range(10)
            },
        }
        for number in range(SCHEMAS)
    }
    info = {"title": words.text(2), "version": "1", "description": words.text(100)}
    content = {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}
    return json.dumps(content).encode()


def _read(reader: Reader, files: dict[str, bytes], summary: str) -> Gateway:
    names = range(APIS)
    gateway = {
        "listeners": {"http": {"port": 8080}},
        "routes": {f"api{number}": {"path": f"/api{number}", "respond": {"body": "x"}} for number in names},
        "catalog": {
            f"api{number}": {"routes": [f"api{number}"], "openapi": f"api{number}.json", "summary": summary}
            for number in names
        },
    }
    reading = reader.read({"gateway.yaml": json.dumps(gateway).encode()}, files.__getitem__, {})
    assert reading.gateway is not None, reading.errors[:3]
    return reading.gateway


def _changed(reader: Reader, catalog: Catalog, index: SearchIndex, files: dict[str, bytes]) -> None:
    catalog.update(_read(reader, files, "first"))
    index.update(catalog)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _memory() -> float:
    """The largest memory of this process so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
