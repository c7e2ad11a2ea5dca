"""Consumers that cannot be told apart are a mistake each time the folder is read, and are looked at once when fine."""

from __future__ import annotations

from filters.identity import script
from tests.support.identity_cases import sha256
from xds_server.gateway.reader import Reader

TWO = "consumers:\n  a: {{api_keys: [{{sha256: {one}}}]}}\n  b: {{api_keys: [{{sha256: {other}}}]}}\n"


def _load(path: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", path)


def _read(reader: Reader, one: str, other: str) -> list[str]:
    text = TWO.format(one=sha256(one), other=sha256(other))
    return [str(problem) for problem in reader.read({"a.yaml": text.encode()}, _load, {}).errors]


def test_the_same_key_of_two_consumers_stays_a_mistake_until_it_is_mended() -> None:
    reader = Reader()
    for _ in range(2):
        (problem,) = _read(reader, "x", "x")
        assert problem.startswith("a.yaml:3:")
        assert "consumers.b.api_keys[0]" in problem
    assert _read(reader, "x", "y") == []
    assert len(_read(reader, "x", "x")) == 1


def test_tables_are_made_once_for_consumers_that_did_not_change() -> None:
    reader, files = Reader(), {"a.yaml": TWO.format(one=sha256("x"), other=sha256("y")).encode()}
    first = reader.read(files, _load, {}).gateway
    second = reader.read({**files, "b.yaml": b"plans: {pro: {}}\n"}, _load, {}).gateway
    assert first is not None
    assert second is not None
    assert first.sections.consumers is second.sections.consumers
    tables = script._consumer_tables(first.sections.consumers)
    assert script._consumer_tables(second.sections.consumers) is tables


def test_a_route_that_trusts_a_header_of_identity_is_warned_of_each_time() -> None:
    text = """
listeners: {http: {port: 8080}}
identity: {corp: {jwks: {url: "https://idp.test/jwks"}, claim_headers: {sub: x-user-id}}}
routes:
  a: {headers: {X-User-Id: root}, respond: {body: x}}
  b: {headers: {x-consumer: {present: true}}, respond: {body: x}}
  c: {headers: {x-other: root}, respond: {body: x}}
"""
    reader = Reader()
    for _ in range(2):
        reading = reader.read({"a.yaml": text.encode()}, _load, {})
        warned = {problem.where for problem in reading.problems if "every client can send" in problem.message}
        assert warned == {"routes.a.headers.X-User-Id", "routes.b.headers.x-consumer"}
        assert reading.gateway is not None
