"""Telemetry through the real Envoy: access logs, traces to an OTLP receiver, and metrics by route and consumer."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.backend import Backend
from tests.support.collector import Collector, Span
from tests.support.folder import filled, write
from tests.support.gateway import Gateway, Gateways
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.translate import gateway_version

KEYS = {"acme": "key-of-acme", "beta": "key-of-beta", "zeta": "key-of-zeta"}
CONSUMERS = "".join(
    f"  {name}: {{api_keys: [{{sha256: {hashlib.sha256(key.encode()).hexdigest()}}}]}}\n"
    for name, key in KEYS.items()
)
YAML = (
    """
listeners:
  http: {port: $port, address: 127.0.0.1}
upstreams:
  echo: {endpoints: ["$echo"]}
  none: {endpoints: []}
  otlp: {endpoints: ["$otlp"], protocol: grpc}
telemetry:
  access_logs:
    lines:
      to: {file: $folder/lines.log}
      query: [page]
      extra: {tenant: "%REQ(X-TENANT):8%", agent: "%REQ(USER-AGENT):32%"}
    text:
      to: {file: $folder/text.log}
      format: text
      fields: [method, path, status, reason]
    line:
      to: {file: $folder/line.log}
      format: text
      text: "%RESPONSE_CODE% 100%% of %PATH(NQ)%"
    errors:
      to: {file: $folder/errors.log}
      when: {statuses: [5xx, 404], slower_than: 1h}
    never:
      to: {file: $folder/never.log}
      when: {sample: 0%}
    otlp: {to: {otlp: otlp}, fields: [status, route, request_id], query: [page]}
  metrics: {consumers: 2}
consumers:
"""
    + CONSUMERS
    + """
routes:
  open: {path: /open/*, upstream: echo}
  key: {path: /key, upstream: echo, policies: {api_key: {header: x-key, query: key, cookie: key}}}
  none: {path: /none, upstream: none}
  health: {path: /health, respond: {status: 200}, policies: {access_log: off}}
  bad: {path: /bad/*, respond: {status: 503}, policies: {access_log: {statuses: [5xx]}}}
  good: {path: /good/*, respond: {status: 200}, policies: {access_log: {statuses: [5xx, 418]}}}
  slow: {path: /slow, respond: {status: 200}, policies: {access_log: {slower_than: 1h}}}
  fast: {path: /fast, respond: {status: 200}, policies: {access_log: {slower_than: 1ms, sample: 100%}}}
"""
)


class Served:
    """A gateway, its folder of logs, and a collector."""

    def __init__(self, folder: Path, gateway: Gateway, collector: Collector) -> None:
        self.folder, self.gateway, self.collector = folder, gateway, collector

    def lines(self, name: str) -> list[str]:
        return (self.folder / f"{name}.log").read_bytes().decode().split("\n")[:-1]

    def logged(self, path: str) -> dict[str, Any]:
        """The JSON line of the only request for a path."""

        def found() -> dict[str, Any] | None:
            matching = [one for one in map(json.loads, self.lines("lines")) if one.get("path") == path]
            assert len(matching) <= 1
            return matching[0] if matching else None

        return wait_for(found, f"a line for {path}") or {}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("telemetry")
    with Collector() as collector, Gateways(folder) as gateways:
        gateway = gateways.start(YAML, echo=backend.address, otlp=collector.address, folder=folder)
        yield Served(folder, gateway, collector)


def test_a_line_tells_who_what_where_and_how_long(served: Served) -> None:
    response = served.gateway.get("/key?page=2&key=key-of-acme", headers={"x-tenant": "a-long-tenant"})
    assert response.status_code == 200
    line = served.logged("/key")
    expected = {"status": 200, "route": "key", "upstream": "echo", "consumer": "acme", "method": "GET"}
    expected |= {"authenticated_by": "api_key", "query": {"page": "2"}, "tenant": "a-long-t", "flags": "-"}
    assert {name: line.get(name) for name in expected} == expected
    assert line["request_id"] == response.json()["headers"]["x-request-id"]
    assert line["version"] == gateway_version.version(served.gateway.compiled.snapshot)
    assert line["gateway_us"] > 0
    assert line["upstream_us"] > 0
    assert line["gateway_us"] + line["upstream_us"] < (line["duration_ms"] + 1) * 1000


def test_flags_are_told_in_words_and_with_a_reason(served: Served) -> None:
    served.gateway.get("/none")
    line = served.logged("/none")
    assert (line["flags"], line["flags_text"], line["reason"]) == (
        "UH",
        "NoHealthyUpstream",
        "no_healthy_upstream",
    )


def test_no_credential_reaches_a_log(served: Served) -> None:
    secret = "key-of-beta"
    unknown = "a-secret-that-nobody-has"
    for value in (secret, unknown):
        with served.gateway.client() as client:
            client.get(f"/key?key={value}")
            client.get("/key", headers={"x-key": value})
            client.get("/open/host", headers={"host": f"user:{value}@example.com"})
            client.get("/key", headers={"cookie": f"key={value}"})
            client.get(
                "/open/secret",
                headers={"authorization": f"Bearer {value}", "referer": f"http://x/?t={value}"},
            )
    served.gateway.get("/open/after-secrets")
    served.logged("/open/after-secrets")
    for file in served.folder.glob("*.log"):
        assert not any(value.encode() in file.read_bytes() for value in (secret, unknown)), file


def test_what_a_client_sends_never_forges_or_breaks_a_line(served: Served) -> None:
    values = [
        b'quo"te\\',
        b"tab\there",
        b"\xff\xfe\x80",
        "\u2028line".encode(),
        b"{}[],:",
        b"%REQ(X-KEY)%",
        b"x" * 50_000,
    ]
    for number, value in enumerate(values):
        _raw(served.gateway.port, f"/open/forge{number}".encode(), value)
    rejected = [b"es\x1b[31mc", b"nul\x00", b"del\x7f"]
    for value in rejected:
        assert b" 400 " in _raw(served.gateway.port, b"/open/rejected", value).splitlines()[0], value
    assert b" 400 " in _raw(served.gateway.port, b"/open/\x1b[1m", b"x").splitlines()[0]
    served.gateway.get("/open/%0a%22forged%22")
    assert served.logged("/open/%0a%22forged%22")["status"] == 200
    for number in range(len(values)):
        line = served.logged(f"/open/forge{number}")
        assert line["status"] == 200
        assert len(line["agent"]) <= 32 * 4
    assert all(json.loads(line)["status"] in range(200, 600) for line in served.lines("lines"))


def _raw(port: int, path: bytes, agent: bytes) -> bytes:
    """The first bytes of the answer to a request with a header that no client library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: a\r\nuser-agent: " + agent + b"\r\n\r\n")
        return connection.recv(4096)


def test_text_has_the_same_values(served: Served) -> None:
    served.gateway.get("/open/text?page=7&token=t")
    served.gateway.get("/none")
    assert wait_for(lambda: "GET /open/text 200 -" in served.lines("text"), "the line")
    assert wait_for(lambda: "GET /none 503 no_healthy_upstream" in served.lines("text"), "the line")
    assert wait_for(lambda: "200 100% of /open/text" in served.lines("line"), "the line")


def test_a_log_has_only_what_it_is_for(served: Served) -> None:
    for path in ("/open/fine", "/bad/errors", "/nowhere"):
        served.gateway.get(path)
    served.logged("/nowhere")

    def logged() -> set[tuple[int, str]]:
        return {(one["status"], one["path"]) for one in map(json.loads, served.lines("errors"))}

    wait_for(lambda: {(503, "/bad/errors"), (404, "/nowhere")} <= logged(), "the errors")
    assert all(status in (404, *range(500, 600)) for status, _ in logged())
    assert served.lines("never") == []


def test_a_route_chooses_its_requests(served: Served) -> None:
    for path in ("/health", "/bad/logged", "/good/left-out", "/slow", "/fast", "/open/the-end"):
        served.gateway.get(path)
    assert served.logged("/open/the-end")
    assert served.logged("/bad/logged")
    assert served.logged("/fast")
    paths = {json.loads(line).get("path") for line in served.lines("lines")}
    assert not paths & {"/health", "/good/left-out", "/slow"}


def test_a_receiver_gets_what_it_missed(served: Served) -> None:
    collector = served.collector
    served.gateway.get("/open/before?page=1")
    wait_for(lambda: any(one["query.page"] == "1" for one in collector.logs), "the first record")
    collector.stop()
    for number in range(20):
        assert served.gateway.get(f"/open/away?page=away{number}").status_code == 200
    collector.start()
    expected = {f"away{number}" for number in range(20)}
    wait_for(lambda: expected <= {one["query.page"] for one in collector.logs}, "the records of the outage")
    times = Counter(one["request_id"] for one in collector.logs if one["request_id"] != "-")
    assert max(times.values()) == 1


def test_a_receiver_that_hangs_slows_no_request(served: Served) -> None:
    served.collector.open.clear()
    try:
        with served.gateway.client() as client:
            assert {client.get("/open/hang").status_code for _ in range(300)} == {200}
    finally:
        served.collector.open.set()


def test_series_are_bounded_and_add_up(tmp_path: Path, backend: Backend) -> None:
    with Gateways(tmp_path) as gateways:
        values = {"echo": backend.address, "otlp": "127.0.0.1:9", "folder": tmp_path}
        _counts(gateways.start(YAML, **values))


def _counts(gateway: Gateway) -> None:
    for name, key in KEYS.items():
        for _ in range(2):
            assert gateway.get("/key", headers={"x-key": key}).status_code == 200, name
    gateway.get("/key", headers={"x-key": "nobody"})
    for number in range(30):
        gateway.get(f"/open/{number}", headers={"x-echo-status": str(400 + number)})
        gateway.get(f"/open/{number}", headers={"host": f"host-{number}.example"})
    counted = "envoy_gateway_request_duration_milliseconds_count"

    def merged() -> dict[tuple[str, tuple[tuple[str, str], ...]], float] | None:
        now = _samples(gateway)
        return now if now.get((counted, (("route", "open"),)), 0) >= 60 else None

    grown = wait_for(merged, "the histogram, which Envoy merges every few seconds") or {}
    assert grown[(counted, (("route", "key"),))] == 7
    assert grown[("envoy_gateway_errors", (("route", "key"), ("status", "4xx")))] == 1
    assert grown[("envoy_gateway_errors", (("route", "open"), ("status", "4xx")))] == 30
    assert grown[("envoy_gateway_rejections", (("reason", "api_key_unknown"),))] == 1
    consumers = {
        labels[0][1]: value
        for (name, labels), value in grown.items()
        if name == "envoy_gateway_consumer_requests"
    }
    assert consumers == {"acme": 2, "beta": 2, "other": 2, "": 61}
    series = Counter(dict(labels)["route"] for _, labels in grown if "route" in dict(labels))
    assert all(count <= 25 for count in series.values()), series


def _samples(gateway: Gateway) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = httpx.get(f"{gateway.envoy.admin}/stats/prometheus?filter=gateway", timeout=30).text
    return {
        (sample.name.removesuffix("_total"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("envoy_gateway_")
    }


TRACED = """
listeners:
  http: {port: $port, address: 127.0.0.1}
upstreams:
  echo: {endpoints: ["$echo"]}
  otlp: {endpoints: ["$otlp"], protocol: $upstream}
telemetry:
  tracing:
    upstream: otlp
    protocol: $protocol
    sample: $sample
    trust_context: $trust
    service_name: shop
    resource: {deployment.environment.name: test}
    attributes: {tenant: "%REQ(X-TENANT)%"}
routes:
  users: {path: "/users/{id}", upstream: echo}
  never: {path: /never, upstream: echo, policies: {tracing: off}}
  always: {path: /always, upstream: echo, policies: {tracing: 100%}}
"""
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def _traced(
    tmp_path: Path,
    backend: Backend,
    collector: Collector,
    *,
    http: bool = False,
    sample: str = "100%",
    trust: bool = True,
) -> tuple[Gateways, Gateway]:
    gateways = Gateways(tmp_path)
    values = {
        "otlp": collector.http_address if http else collector.address,
        "upstream": "http1" if http else "grpc",
    }
    values |= {"protocol": "http" if http else "grpc", "sample": sample, "trust": str(trust).lower()}
    return gateways, gateways.start(TRACED, echo=backend.address, **values)


@pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])
def test_spans_are_named_by_route_and_continue_at_the_upstream(
    tmp_path: Path, backend: Backend, collector: Collector, http: bool
) -> None:
    gateways, gateway = _traced(tmp_path, backend, collector, http=http)
    with gateways:
        seen = gateway.get("/users/17?key=x", headers={"x-tenant": "acme"}).json()["headers"]
        spans = {span.name: span for span in collector.until_spans(2)}
        server, client = spans["users"], spans["echo"]
        assert (server.parent, client.parent) == ("", server.span)
        assert server.trace == client.trace == seen["traceparent"].split("-")[1]
        assert seen["traceparent"].split("-")[2] == client.span
        assert server.attributes["guid:x-request-id"] == seen["x-request-id"]
        assert server.attributes["tenant"] == "acme"
        for span in spans.values():
            assert span.attributes["http.url"] == f"{gateway.url}/users/17"
        assert not any("key=x" in value for span in spans.values() for value in span.attributes.values())
        assert (server.service, server.resource["deployment.environment.name"]) == ("shop", "test")


def test_no_secret_of_a_url_reaches_a_span(tmp_path: Path, backend: Backend, collector: Collector) -> None:
    gateways, gateway = _traced(tmp_path, backend, collector)
    with gateways:
        gateway.get("/users/1?key=secret&code=secret")
        gateway.get("/nowhere?token=secret")
        gateway.get("/users/1", headers={"host": "user:secret@example.com"})
        spans = collector.until_spans(4)
        assert not any("secret" in str(span) for span in spans)


def test_a_trace_of_a_client_is_continued_or_not(
    tmp_path: Path, backend: Backend, collector: Collector
) -> None:
    context = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=b"}
    gateways, gateway = _traced(tmp_path, backend, collector)
    with gateways:
        gateway.get("/users/1", headers=context)
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        seen = gateway.get("/users/2", headers=unsampled).json()["headers"]
        assert seen["traceparent"].startswith(f"00-{TRACE}-")
        assert seen["traceparent"].endswith("-00")
        gateway.get("/users/3")
        spans = collector.until_spans(4)
        continued = [span for span in spans if span.trace == TRACE]
        assert sorted(span.name for span in continued) == ["echo", "users"]
        assert next(span for span in continued if span.name == "users").parent == PARENT
    collector.spans.clear()
    gateways, gateway = _traced(tmp_path / "alone", backend, collector, trust=False)
    with gateways:
        seen = gateway.get("/users/1", headers=context).json()["headers"]
        assert TRACE not in seen["traceparent"]
        assert not seen.get("tracestate")
        assert all(span.trace != TRACE for span in collector.until_spans(2))


def test_a_route_says_how_many_of_its_requests_are_traced(
    tmp_path: Path, backend: Backend, collector: Collector
) -> None:
    gateways, gateway = _traced(tmp_path, backend, collector, sample="0%")
    with gateways:
        for path in ("/users/1", "/never", "/always", "/always"):
            gateway.get(path)
        gateway.get("/never", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert _names(collector.until_spans(4)) == {"always", "echo"}


def _names(spans: list[Span]) -> set[str]:
    return {span.name for span in spans}


def test_a_collector_that_is_away_or_hangs_slows_no_request(
    tmp_path: Path, backend: Backend, collector: Collector
) -> None:
    gateways, gateway = _traced(tmp_path, backend, collector)
    with gateways, gateway.client() as client:
        collector.open.clear()
        assert {client.get("/users/1").status_code for _ in range(200)} == {200}
        collector.open.set()
        collector.stop()
        assert {client.get("/users/1").status_code for _ in range(200)} == {200}


RUN = """
listeners:
  http: {port: $port, address: 127.0.0.1}
upstreams:
  echo: {endpoints: ["$echo"]}
telemetry: {metrics: true}
routes:
  limited: {path: /limited, upstream: echo, policies: {rate_limit: 1000/minute}}
"""


def test_one_scrape_has_every_process(tmp_path: Path, backend: Backend) -> None:
    port = free_port()
    folder = write(tmp_path / "gateway", gateway=filled(RUN, port=port, echo=backend.address))
    with Running(folder, tmp_path) as running:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/limited").status_code == 200, "the route")

        def complete() -> dict[str, Any] | None:
            text = httpx.get(f"http://{running.admin}/metrics/all", timeout=30).text
            found = {family.name: family for family in text_string_to_metric_families(text)}
            wanted = {"xds_envoys", "xds_rate_limit_decisions", "envoy_gateway_request_duration_milliseconds"}
            return found if wanted <= found.keys() else None

        families = wait_for(complete, "the metrics of all processes") or {}
        up = {sample.labels["process"]: sample.value for sample in families["xds_process_up"].samples}
        assert up == {"envoy": 1, "policy-server": 1}
        assert {sample.labels["state"]: sample.value for sample in families["xds_envoys"].samples}[
            "current"
        ] == 1
        assert families["xds_gateway_healthy"].samples[0].value == 1
        status = httpx.get(f"http://{running.admin}/status", timeout=30).json()
        assert re.fullmatch(r"[0-9a-f]{16}", status["gateway"]["version"])


DECIDED = """
listeners:
  http: {port: $port, address: 127.0.0.1}
upstreams:
  echo: {endpoints: ["$echo"]}
  otlp: {endpoints: ["$otlp"], protocol: grpc}
telemetry: {tracing: {upstream: otlp, sample: 100%}}
routes:
  decided: {path: /decided, upstream: echo, policies: {ext_authz: {python: "door.py:check"}, rate_limit: 100/minute}}
"""
DOOR = "from filters.ext_authz import allow, deny\n\n\ndef check(request):\n    return deny(418) if 'x-no' in request.headers else allow()\n"


def test_a_decision_of_the_policy_server_is_a_child_of_the_request(
    tmp_path: Path, backend: Backend, collector: Collector
) -> None:
    port = free_port()
    values = {"port": port, "echo": backend.address, "otlp": collector.address}
    folder = write(tmp_path / "gateway", {"door.py": DOOR}, gateway=filled(DECIDED, **values))
    with Running(folder, tmp_path):
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/decided").status_code == 200, "the route")
        spans = {span.name: span for span in collector.until_spans(3)}
        decision = spans["async envoy.service.auth.v3.Authorization.Check egress"]
        assert (decision.trace, decision.parent) == (spans["decided"].trace, spans["decided"].span)
        assert decision.attributes["ext_authz_status"] == "ext_authz_ok"
        collector.spans.clear()
        assert httpx.get(f"http://127.0.0.1:{port}/decided", headers={"x-no": "1"}).status_code == 418
        spans = {span.name: span for span in collector.until_spans(2)}
        assert spans["decided"].attributes["gateway.reason"] == "ext_authz_denied"
