"""examples/observability: its gateway runs, and dashboard and alerts name only what its processes show."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from docs import generate
from tests.support import prometheus
from tests.support.backend import Backend
from tests.support.collector import Collector
from tests.support.envoy import Envoy
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.proxy.bootstrap import bootstrap
from xds_server.translate.readable import plain

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "observability"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
PANELS: list[dict[str, Any]] = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$route": ".*", "$consumer": ".*"}
ALWAYS = ("by route", "by consumer", "is served", "newest files", "Age of what", "Envoys", "do not answer")
"""Words in the titles of panels that have values as soon as there are requests."""
with_prometheus = pytest.mark.skipif(
    prometheus.BINARY is None or prometheus.TOOL is None, reason="there is no Prometheus; see make prometheus"
)


def _filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def _asked_by_the_dashboard() -> Iterator[tuple[str, str]]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], _filled(target["expr"])
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], _filled(annotation["expr"])


SHOWN = list(_asked_by_the_dashboard())
EXPRESSIONS = [
    *SHOWN,
    *((rule["alert"], rule["expr"]) for group in ALERTS["groups"] for rule in group["rules"]),
]
Labels = Mapping[str, set[str]]
"""The labels of each series, by its name."""


class Observed:
    """The example while it runs, with requests of all kinds behind it."""

    def __init__(self, running: Running, port: int, collector: Collector) -> None:
        self.running, self.collector, self.url = running, collector, f"http://127.0.0.1:{port}"

    def traffic(self) -> None:
        for key in ("acme-key", "globex-key", "unknown", ""):
            for path in ("/users/1", "/orders/1", "/health", "/nowhere"):
                httpx.get(f"{self.url}{path}", headers={"x-api-key": key} if key else {}, timeout=30)
        failing = {"x-api-key": "acme-key", "x-echo-status": "500"}
        assert httpx.get(f"{self.url}/users/1", headers=failing, timeout=30).status_code == 500

    def scraped(self) -> str:
        return httpx.get(f"http://{self.running.admin}/metrics/all", timeout=30).text


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder, port = tmp_path_factory.mktemp("observability"), free_port()
    with Backend() as backend, Collector() as collector:
        environment = {
            "GATEWAY_PORT": str(port),
            "METRICS_PORT": str(free_port()),
            "USERS_ADDRESS": backend.address,
            "ORDERS_ADDRESS": backend.address,
            "COLLECTOR_ADDRESS": collector.address,
        }
        store = ("--usage-store", f"sqlite:///{folder / 'usage.db'}", "--usage-spool", str(folder / "spool"))
        with Running(FOLDER / "gateway", folder, *store, **environment) as running:
            found = Observed(running, port, collector)
            limited = {"x-api-key": "globex-key"}
            wait_for(
                lambda: httpx.get(f"{found.url}/users/1", headers=limited).status_code == 429, "the limit"
            )
            found.traffic()
            merged = (
                'status="5xx"',
                'milliseconds_count{route="users"}',
                'milliseconds_count{route="orders"}',
            )
            wait_for(lambda: all(one in found.scraped() for one in merged), "the counts of routes")
            yield found


def _documented() -> Iterator[tuple[str, set[str]]]:
    """The metrics of the reference, which is made from the code: some exist only after an event."""
    for line in (generate.FOLDER / "metrics.md").read_text().splitlines():
        if line.startswith("| `xds_"):
            name, kind, labels = (cell.strip() for cell in line.split("|")[1:4])
            names = set(re.findall(r"`(\w+)`", labels))
            if kind == "histogram":
                yield from (
                    (f"{name.strip('`')}_{part}", names | {"le"}) for part in ("bucket", "sum", "count")
                )
            else:
                yield name.strip("`"), names


def _existing(text: str) -> Labels:
    found: dict[str, set[str]] = defaultdict(set, {"up": set()})
    for name, labels in _documented():
        found[name] |= labels
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # the parser gives every counter the suffix, and Envoy's have none
            found[sample.name] |= sample.labels.keys()
            found[sample.name.removesuffix("_total")] |= sample.labels.keys()
    return {name: labels | {"instance", "job"} for name, labels in found.items()}


NAME = re.compile(r"\b((?:xds|envoy)_\w+|up)\b(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_an_expression_names_only_metrics_and_labels_that_exist(
    observed: Observed, title: str, expression: str
) -> None:
    existing = _existing(observed.scraped())
    named = NAME.findall(GROUPED.sub("", expression))
    assert named, title
    for name, matchers in named:
        assert name in existing, f"{title}: {name}"
        assert set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", matchers)) <= existing[name], f"{title}: {name}"
    for labels in GROUPED.findall(expression):
        everywhere = set.intersection(*(existing[name] for name, _ in named))
        assert set(re.findall(r"\w+", labels)) <= everywhere, f"{title}: {expression}"


@with_prometheus
def test_a_prometheus_answers_every_expression(observed: Observed, tmp_path: Path) -> None:
    rules = FOLDER / "alerts.yaml"
    with Prometheus(tmp_path, observed.running.admin, "/metrics/all", rules) as asked:
        for _, expression in EXPRESSIONS:
            asked.ask(expression)
        for title, expression in SHOWN:
            if any(words in title for words in ALWAYS):
                wait_for(partial(asked.ask, expression), f"values of {title!r}")
        assert asked.ask("min(up)")[0]["value"][1] == "1"
        groups = httpx.get(f"{asked.url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}


@with_prometheus
def test_every_alert_fires_if_everything_is_wrong_and_none_otherwise() -> None:
    assert prometheus.TOOL is not None
    file = FOLDER / "alerts.test.yaml"
    done = subprocess.run(
        [prometheus.TOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrong, well = (
        one["promql_expr_test"][0]["exp_samples"] for one in yaml.safe_load(file.read_text())["tests"]
    )
    fired = {re.findall(r'"(\w+)"', one["labels"])[0] for one in wrong}
    assert fired == {rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]}
    assert well == []


@with_prometheus
@pytest.mark.parametrize("name", ["prometheus.yaml", "prometheus-compose.yaml"])
def test_prometheus_accepts_its_configuration(name: str) -> None:
    assert prometheus.TOOL is not None
    command = [prometheus.TOOL, "check", "config", str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"warning", "critical"}
            assert rule["annotations"]["summary"].endswith((".", "}}."))


def test_the_dashboard_is_whole() -> None:
    every = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", *(name[1:] for name in VARIABLES if not name.startswith("$__"))}
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
    sources = yaml.safe_load((FOLDER / "grafana" / "datasources" / "prometheus.yaml").read_text())
    chosen = next(one for one in DASHBOARD["templating"]["list"] if one["type"] == "datasource")
    assert chosen["current"]["value"] == sources["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}


def test_the_example_sends_traces_and_logs_and_counts_usage(observed: Observed) -> None:
    wait_for(
        lambda: any(one.get("status") == "500" for one in observed.collector.logs), "the record of the 500"
    )

    def traced() -> bool:
        observed.traffic()
        return bool({"users", "orders"} & {span.name for span in observed.collector.spans})

    wait_for(traced, "a span, which one request of ten has")
    wait_for(
        lambda: re.search(r'xds_usage_counted_total\{outcome="counted"\} [1-9]', observed.scraped()),
        "counted entries",
    )


def test_the_port_for_prometheus_shows_the_metrics_and_nothing_else(tmp_path: Path) -> None:
    gateway, port, admin = free_port(), free_port(), f"127.0.0.1:{free_port()}"
    environment = {"GATEWAY_PORT": str(gateway), "METRICS_PORT": str(port), "ENVOY_ADMIN": admin}
    with Running(FOLDER / "gateway", tmp_path, "--no-proxy", **environment) as running:
        connected = plain(bootstrap(xds_address=running.xds_address, node_id="edge"))
        with Envoy(connected, tmp_path, admin_port=int(admin.rpartition(":")[2])):
            url = f"http://127.0.0.1:{port}"
            wait_for(
                lambda: "envoy_server_live" in httpx.get(f"{url}/stats/prometheus?usedonly=").text,
                "the metrics",
            )
            for path in ("/", "/config_dump", "/stats", "/users/1", "/stats/prometheus/..%2fquitquitquit"):
                assert httpx.get(f"{url}{path}", follow_redirects=True).status_code == 404, path
            assert httpx.post(f"{url}/stats/prometheus").status_code == 405
            assert httpx.get(f"http://127.0.0.1:{gateway}/stats/prometheus").status_code == 404
