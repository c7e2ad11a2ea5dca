"""Every example: Envoy accepts it, and `xds run` does with it what its README says."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import httpx
import paho.mqtt.client
import paho.mqtt.enums
import pytest
import websockets.sync.client
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.backend import Backend
from tests.support.firewall import needs_rules
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.cli.main import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GATEWAYS = sorted(path.parent.name for path in EXAMPLES.glob("*/gateway"))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _copied(name: str, to: Path) -> Path:
    folder = to / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("certs"))
    if (folder / "certificates.py").exists():
        _module(folder / "certificates.py").write(folder / "gateway" / "certs")
    return folder / "gateway"


class Example:
    """An example that runs; `url` is its first listener."""

    def __init__(self, running: Running, folder: Path, environment: dict[str, str]) -> None:
        self.running = running
        self.folder = folder
        self.port = int(environment["GATEWAY_PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = environment

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=30, **options)

    def open(self) -> bool:
        socket.create_connection(("127.0.0.1", self.port), 5).close()
        return True

    def until(self, path: str, status: int = 200, **options: Any) -> httpx.Response:
        """Ask until the answer has this status: endpoints are checked and names resolved meanwhile."""
        wait_for(lambda: self.get(path, **options).status_code == status, f"{path} to answer {status}")
        return self.get(path, **options)


Start = Callable[..., Example]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(name: str, **environment: str) -> Example:
            environment = {"GATEWAY_PORT": str(free_port()), **environment}
            folder = _copied(name, tmp_path)
            usage = (
                "--usage-store",
                f"sqlite:///{tmp_path}/usage.db",
                "--usage-spool",
                str(tmp_path / "spool"),
            )
            running = stack.enter_context(Running(folder, tmp_path, *usage, **environment))
            running.says("ready ")
            assert running.status()["prover"]["proved"], running.log
            assert running.status()["held"] == []
            example = Example(running, folder, environment)
            wait_for(example.open, "the listener, which is acknowledged before its routes come, to open")
            return example

        yield start


@pytest.fixture
def pair() -> Iterator[tuple[Backend, Backend]]:
    with Backend("a") as one, Backend("b") as other:
        yield one, other


@pytest.mark.parametrize("name", GATEWAYS)
def test_envoy_accepts_every_example(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(_copied(name, tmp_path)), "--envoy"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", GATEWAYS)
def test_every_example_says_what_it_is_and_helps_editors(name: str) -> None:
    assert (EXAMPLES / name / "README.md").read_text().startswith("# ")
    for file in (EXAMPLES / name / "gateway").rglob("*.yaml"):
        if file.parent.name == "specs":
            continue  # documents of APIs
        first = file.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        schema = "tests-schema.json" if file.parent.name == "tests" else "schema.json"
        assert (
            file.parent / first.partition("=")[2]
        ).resolve() == EXAMPLES.parent / "docs" / "reference" / schema


def test_quickstart(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("quickstart", USERS_ADDRESS=pair[0].address, ORDERS_ADDRESS=pair[1].address)
    users, orders = example.get("/api/users/1").json(), example.get("/api/orders/7").json()
    assert (users["backend"], users["path"]) == ("a", "/users/1")
    assert (orders["backend"], orders["path"]) == ("b", "/orders/7")
    assert httpx.delete(f"{example.url}/api/orders/7").headers["allow"] == "GET, POST"
    assert example.get("/nowhere").headers["content-type"] == "application/problem+json"
    assert example.get("/", headers={"host": "admin.localhost"}).json()["backend"] == "a"
    assert example.get("/health").json() == {"status": "ok"}


def test_bodies(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("bodies", USERS_ADDRESS=pair[0].address)
    sent = {"user_name": "john", "internal": 1}
    answer = httpx.post(f"{example.url}/users", json=sent).json()
    got = json.loads(answer["body"])
    assert got == {"userName": "john", "requestId": answer["headers"]["x-request-id"]}
    assert example.get("/orders/1", headers={"x-client": "iot"}).json() == {"path": "/orders/1"}
    twice = httpx.post(
        f"{example.url}/users", content='{"a":1,"a":2}', headers={"content-type": "application/json"}
    )
    assert (twice.status_code, twice.json()["reason"]) == (400, "malformed_body")


def test_graphql(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    services = _module(EXAMPLES / "graphql" / "services.py")
    users, orders = services.service("users", 0), services.service("orders", 0)
    addresses = [f"127.0.0.1:{one.server_port}" for one in (users, orders)]
    for one in (users, orders):
        threading.Thread(target=one.serve_forever, daemon=True).start()
    example = start("graphql", USERS_ADDRESS=addresses[0], ORDERS_ADDRESS=addresses[1])

    def ask(query: str, **headers: str) -> Any:
        return httpx.post(f"{example.url}/graphql", json={"query": query}, headers=headers, timeout=30).json()

    found = ask("{ users(first: 3) { name orders { total } } }")
    assert found["data"]["users"][2] == {"name": "Cleo", "orders": [{"total": 5}, {"total": 10}]}
    assert capsys.readouterr().out == "users: GET /users?limit=3\norders: GET /orders?users=1,2,3\n"
    assert ask("{ user(id: 1) { email } }")["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    allowed = ask("{ user(id: 1) { email } }", **{"x-api-key": "secret-key"})
    assert allowed == {"data": {"user": {"email": "ada@example.com"}}}
    text = (example.folder / "queries" / "user.graphql").read_bytes().strip()
    name = f"sha256:{hashlib.sha256(text).hexdigest()}"
    assert name in (EXAMPLES / "graphql" / "README.md").read_text()
    persisted = example.get("/app", params={"documentId": name, "variables": '{"id": 1}'})
    assert persisted.json() == {"data": {"user": {"name": "Ada"}}}
    for one in (users, orders):
        one.shutdown()
        one.server_close()


def test_bff(start: Start) -> None:
    services = _module(EXAMPLES / "bff" / "services.py")
    ports = {name: free_port() for name in ("USERS", "ORDERS", "RECOMMENDATIONS")}
    with ExitStack() as stack:
        for port, answer in zip(ports.values(), services.ANSWERS.values(), strict=True):
            server = services.service(port, answer)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        example = start("bff", **{f"{name}_ADDRESS": f"127.0.0.1:{port}" for name, port in ports.items()})
        web = example.get("/home/7").json()
        assert web["user"] == {
            "id": 7,
            "name": "Ada",
            "email": "ada@example.com",
            "address": {"city": "London"},
        }
        assert (len(web["orders"]), len(web["recommendations"])) == (2, 1)
        mobile = example.get("/home/7", headers={"x-client": "mobile"}).json()
        assert mobile["orders"] == [{"id": 1, "title": "A lamp"}, {"id": 2, "title": "A chair"}]
        tv = example.get("/home/7", headers={"x-client": "tv"}).json()
        assert tv == {"user": {"name": "Ada"}, "orders": [{"title": "A lamp"}, {"title": "A chair"}]}


def test_the_demo_runs_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    gateway, users, orders = free_port(), free_port(), free_port()
    environment = {
        **os.environ,
        "GATEWAY_PORT": str(gateway),
        "USERS_ADDRESS": f"127.0.0.1:{users}",
        "ORDERS_ADDRESS": f"127.0.0.1:{orders}",
        "PYTHONPATH": str(EXAMPLES.parent),
    }
    command = [sys.executable, str(EXAMPLES / "quickstart" / "demo.py")]
    command += ["--xds", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
    with (tmp_path / "demo.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--envoy-workers", "1"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{gateway}/api/users/1"
        wait_for(lambda: httpx.get(url).json()["service"] == "users", "the demo", also=(KeyError,))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_load_balancing(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("load-balancing", USERS_A=pair[0].address, USERS_B=pair[1].address)
    seen = Counter(example.get("/users/1").json()["backend"] for _ in range(60))
    assert set(seen) == {"a", "b"}
    carts = {example.get("/carts/1", headers={"x-user": "ann"}).json()["backend"] for _ in range(6)}
    assert len(carts) == 1
    wait_for(lambda: example.get("/search/x").json()["backend"] == "a", "the near zone", also=(KeyError,))
    pair[0].stop()
    wait_for(lambda: example.get("/search/x").json()["backend"] == "b", "the far zone", also=(KeyError,))


def test_canary(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("canary", ORDERS=pair[0].address, ORDERS_NEXT=pair[1].address)
    seen = Counter(example.get("/orders/1").json()["backend"] for _ in range(200))
    assert 2 <= seen["b"] <= 60
    always = {example.get("/orders/1", headers={"x-canary": "yes"}).json()["backend"] for _ in range(10)}
    assert always == {"b"}
    assert example.get("/search/x").json()["backend"] == "a"
    wait_for(lambda: any(one["path"] == "/search/x" for one in pair[1].seen), "the copy")


def test_rollout(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("rollout", ORDERS=pair[0].address)
    pair[1].status = 503
    file = example.folder / "gateway.yaml"
    before = file.read_text()

    def withdrawn() -> bool:
        example.get("/orders/1")
        return "rollout withdrawn" in example.running.log

    wait_for(lambda: [example.until("/orders/1") for _ in range(30)], "requests of the version of before")
    file.write_text(before.replace("${ORDERS:-127.0.0.1:9001}", pair[1].address))
    wait_for(withdrawn, lambda: f"the withdrawal; the log:\n{example.running.log[-3000:]}")
    example.until("/orders/1")
    assert "reason=error rate" in example.running.log


def test_tls(start: Start) -> None:
    tls, partners = free_port(), free_port()
    example = start("tls", GATEWAY_TLS_PORT=str(tls), GATEWAY_PARTNERS_PORT=str(partners))
    certificates = example.folder / "certs"
    trusting = ssl.create_default_context(cafile=str(certificates / "ca.crt"))

    def ask(name: str, port: int, context: ssl.SSLContext) -> httpx.Response:
        with httpx.Client(verify=context, timeout=30) as client:
            return client.get(
                f"https://127.0.0.1:{port}/", headers={"host": name}, extensions={"sni_hostname": name}
            )

    wait_for(lambda: ask("shop.example.com", tls, trusting).text == "the shop\n", "the shop")
    assert ask("api.example.com", tls, trusting).text == "the api\n"
    assert "h3=" in ask("shop.example.com", tls, trusting).headers["alt-svc"]
    assert example.get("/", headers={"host": "shop.example.com"}).status_code == 308
    with pytest.raises(httpx.HTTPError):
        ask("api.example.com", partners, trusting)
    trusting.load_cert_chain(certificates / "partner.crt", certificates / "partner.key")
    assert ask("api.example.com", partners, trusting).text == "the api\n"


def test_rest_to_grpc(start: Start) -> None:
    port = free_port()
    server = _module(EXAMPLES / "grpc" / "server.py").server(port)
    server.start()
    try:
        example = start("rest-to-grpc", INVENTORY=f"127.0.0.1:{port}")
        assert example.until("/v1/services/inventory/health").json() == {"status": "SERVING"}
        missing = example.get("/v1/services/nothing/health")
        assert (missing.status_code, missing.headers["x-gateway-reason"]) == (404, "grpc_not_found")
        with httpx.stream("GET", f"{example.url}/v1/services/inventory/health/events", timeout=30) as events:
            assert events.headers["content-type"] == "text/event-stream"
            assert next(events.iter_lines()) == 'data: {"status":"SERVING"}'
    finally:
        server.stop(None).wait()


def test_grpc(start: Start) -> None:
    port = free_port()
    server = _module(EXAMPLES / "grpc" / "server.py").server(port)
    server.start()
    try:
        example = start("grpc", INVENTORY=f"127.0.0.1:{port}")
        with closing(grpc.insecure_channel(f"127.0.0.1:{example.port}")) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="inventory")
            wait_for(lambda: stub.Check(asked, timeout=5).status == 1, "the service behind the gateway")
            nobody = channel.unary_unary("/shop.Nobody/Nothing")
            with pytest.raises(grpc.RpcError) as refused:
                nobody(b"", timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        frame = b"\0" + len(asked.SerializeToString()).to_bytes(4, "big") + asked.SerializeToString()
        answer = httpx.post(
            f"{example.url}/grpc.health.v1.Health/Check",
            content=frame,
            headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
        )
        assert answer.headers["content-type"] == "application/grpc-web+proto"
        assert answer.content[5:7] == b"\x08\x01"
        assert b"grpc-status:0" in answer.content
    finally:
        server.stop(0).wait()


def test_websocket(start: Start, tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(EXAMPLES / "websocket" / "server.py"), str(port)])
    try:
        example = start("websocket", CHAT=f"127.0.0.1:{port}")

        def chat() -> str | bytes:
            with websockets.sync.client.connect(f"ws://127.0.0.1:{example.port}/chat") as connection:
                connection.send("hello")
                return connection.recv()

        wait_for(lambda: chat() == "hello", "the echo")
    finally:
        process.kill()
        process.wait()


def test_mqtt(start: Start) -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(EXAMPLES / "mqtt" / "broker.py"), str(port)])
    received: queue.Queue[bytes] = queue.Queue()
    client = paho.mqtt.client.Client(paho.mqtt.enums.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: received.put(message.payload)
    client.on_connect = lambda *_: client.subscribe("lamp")
    client.on_subscribe = lambda *_: client.publish("lamp", "on")
    try:
        # the other broker is away
        example = start("mqtt", BROKER_A=f"127.0.0.1:{port}", BROKER_B=f"127.0.0.1:{free_port()}")

        def connected() -> bool:
            client.connect("127.0.0.1", example.port)
            return True

        wait_for(connected, "the connection")
        client.loop_start()
        assert received.get(timeout=60) == b"on"
    finally:
        client.disconnect()
        client.loop_stop()
        process.kill()
        process.wait()


def test_resilience(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("resilience", STOCK_A=pair[0].address, STOCK_B=pair[1].address)
    assert {example.get("/stock/1").json()["backend"] for _ in range(10)} == {"a", "b"}
    pair[0].stop()
    assert {example.get("/stock/1").status_code for _ in range(20)} == {200}
    chaos = [example.get("/stock/1", headers={"x-chaos": "1"}) for _ in range(12)]
    assert "fault_injected" in {one.headers.get("x-gateway-reason") for one in chaos}


def test_shop(start: Start) -> None:
    names = ("ACCOUNTS", "CATALOG", "CATALOG_NEXT", "SEARCH", "SEARCH_LAB", "CART", "ORDERS", "PAYMENTS")
    more = ("PARTNERS", "SUPPORT", "WEB")
    with ExitStack() as stack:
        backends = {name: stack.enter_context(Backend(name)) for name in (*names, *more)}
        environment = {name: backend.address for name, backend in backends.items()}
        example = start("shop", WAREHOUSE=f"127.0.0.1:{free_port()}", **environment)

        def backend(path: str, **headers: str) -> tuple[str, str]:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            seen = example.until(path, headers=sent).json()
            return seen["backend"], seen["path"]

        assert backend("/api/accounts/me") == ("ACCOUNTS", "/api/accounts/me")
        assert backend("/api/products/7", x_canary="1") == ("CATALOG_NEXT", "/api/products/7")
        assert backend("/p/red-shoes") == ("CATALOG", "/products/by-slug/red-shoes")
        assert backend("/images/ab/0123.webp") == ("CATALOG", "/images/ab/0123.webp")
        assert backend("/api/search?q=shoes") == ("SEARCH", "/api/search?q=shoes")
        assert backend("/v2/x", host="partners.example.com") == ("PARTNERS", "/v2/x")
        assert backend("/anything", host="shop.example.com") == ("WEB", "/anything")
        assert example.get("/api/search").status_code == 400
        assert example.get("/catalogue/7").headers["location"].endswith("/api/products/7")
        assert example.get("/images/ab/x.exe").status_code == 404
        internal = httpx.put(f"{example.url}/api/products/7", headers={"x-forwarded-for": "203.0.113.1"})
        assert (internal.status_code, internal.json()["reason"]) == (403, "ip_denied")
        secured = example.get("/healthz")
        assert secured.headers["x-content-type-options"] == "nosniff"
        assert "x-request-id" not in secured.headers


def test_identity(start: Start) -> None:
    example, token = start("identity"), _module(EXAMPLES / "identity" / "token.py").token

    def status(path: str, key: str = "", method: str = "GET", **claims: object) -> int:
        bearer = {"authorization": f"Bearer {token(**claims)}"} if claims else {}
        headers = {**({"x-api-key": key} if key else {}), **bearer}
        return httpx.request(method, f"{example.url}{path}", headers=headers).status_code

    refused = example.get("/hello")
    assert (refused.status_code, refused.json()["reason"]) == (401, "credentials_missing")
    assert len(refused.headers.get_list("www-authenticate")) == 3
    assert [status("/hello", "globex-key"), status("/hello", sub="ann")] == [200, 200]
    assert example.get("/hello", auth=("globex", "globex-password")).status_code == 200
    assert (
        example.get("/hello", headers={"x-api-key": "acme-key-of-2024"}).json()["reason"] == "api_key_expired"
    )
    assert [status("/reports", "acme-key"), status("/reports", "globex-key")] == [200, 403]
    assert [status("/reports", azp="acme-app"), status("/reports", azp="other")] == [200, 403]
    assert [status("/users", scope="users.read"), status("/users", method="POST", scope="users.read")] == [
        200,
        403,
    ]
    assert status("/users", method="POST", scope="users.write", realm={"roles": ["admin"]}) == 200
    for tenant, expected in (("acme", 200), ("globex", 403)):
        headers = {"x-api-key": "acme-key", "x-tenant": tenant}
        assert example.get("/tenant", headers=headers).status_code == expected


def test_python_policies(start: Start) -> None:
    example = start("python-policies")
    assert example.until("/orders").text == "orders\n"
    refused = httpx.post(f"{example.url}/orders")
    assert (refused.status_code, refused.text) == (403, "writing is for operators\n")
    assert httpx.post(f"{example.url}/orders", headers={"x-team": "ops"}).status_code == 200
    large = httpx.post(f"{example.url}/transfers", json={"amount": 20_000})
    assert (large.status_code, large.json()) == (403, {"error": "at most 10000"})
    assert httpx.post(f"{example.url}/transfers", json={"amount": 20}).text == "done\n"


def test_processors(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("processors", SERVICE_ADDRESS=pair[0].address)
    card = {"card": "4111111111111111"}
    passed = httpx.post(f"{example.url}/partners", json=card, headers={"x-partner": "acme"})
    assert json.loads(passed.json()["body"]) == {"card": "****1111"}
    assert passed.headers["x-partner"] == "acme"
    refused = httpx.post(f"{example.url}/partners", json={})
    assert (refused.status_code, refused.json()) == (400, {"error": "name the partner in x-partner"})
    report = example.get("/reports")
    assert report.json()["path"] == "/reports"
    assert report.headers["x-bytes"] == str(len(report.content))
    example.running.says(f"bytes={len(report.content)}")


@needs_rules
def test_waf(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("waf", SERVICE_ADDRESS=pair[0].address)
    host, attack = {"host": "shop.example.com"}, {"q": "1' OR '1'='1"}
    example.until("/search", params={"q": "red shoes"}, headers=host)
    blocked = example.get("/search", params=attack, headers=host)
    assert (blocked.status_code, blocked.json()["rules"]) == (403, [942100])
    assert example.get("/reports", params=attack, headers=host).status_code == 200
    article = {"text": "<script>alert(1)</script>"}
    assert httpx.post(f"{example.url}/articles", json=article, headers=host).status_code == 200
    titled = httpx.post(f"{example.url}/articles", json={"title": article["text"]}, headers=host)
    assert titled.status_code == 403


def test_marketplace(start: Start, pair: tuple[Backend, Backend]) -> None:
    example = start("marketplace", ORDERS=pair[0].address, SHOP=pair[1].address)
    key = {"x-api-key": "sandbox-key-of-acme"}
    some = example.until("/orders", headers=key)
    assert [one["id"] for one in some.json()] == ["o-17", "o-18"]
    placed = httpx.post(f"{example.url}/orders", json={"lines": []}, headers=key, timeout=30)
    assert (placed.status_code, placed.headers["location"], placed.json()["id"]) == (
        201,
        "/orders/o-19",
        "o-17",
    )
    gone = example.get("/orders/o-17", headers={**key, "prefer": "code=404"})
    assert (gone.status_code, gone.json()["title"]) == (404, "There is no such order")
    old = example.get("/v1/orders", headers=key)
    assert old.json()[0] == {"number": 17, "paid": True}
    assert old.headers["deprecation"] == "@1793491200"
    assert old.headers["sunset"] == "Sat, 01 May 2027 00:00:00 GMT"
    assert 'rel="successor-version"' in old.headers["link"]
    asked = httpx.post(f"{example.url}/graphql", json={"query": "{products {name}}"}, headers=key, timeout=30)
    assert asked.json()["backend"] == "b"
    assert example.get("/orders").status_code == 401
    page = {"origin": "http://localhost:19090"}
    assert example.get("/orders", headers=page).headers["access-control-allow-origin"] == page["origin"]
    assert pair[0].seen == []


@pytest.mark.parametrize("name", ["processors", "python-policies"])
def test_the_python_of_an_example_passes_its_own_tests(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    result = subprocess.run(command, cwd=EXAMPLES / name, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
