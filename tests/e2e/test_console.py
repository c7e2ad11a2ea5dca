"""The console: its pages over HTTP, what it refuses, and in a real browser with mouse and keyboard."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support import chromium
from tests.support.backend import Backend
from tests.support.chromium import Chromium
from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Running
from tests.support.wait import wait_for

KEY = "secret-key-of-acme"
ROUTES = "".join(
    f"  r{number:03}: {{path: /r/{number}/*, upstream: {'away' if number % 2 else 'echo'}}}\n"
    for number in range(300)
)
YAML = (
    """
listeners:
  web: {port: $port, address: 127.0.0.1}
  other: {port: $other, address: 127.0.0.1}
upstreams:
  echo: {endpoints: ["$echo"]}
  away: {endpoints: ["127.0.0.1:$closed"], health_check: /}
consumers:
  acme: {api_keys: [{sha256: """
    + hashlib.sha256(KEY.encode()).hexdigest()
    + """}]}
telemetry: {metrics: true}
routes:
  users: {path: /users/*, hosts: [localhost, api.example.com], upstream: echo, policies: {rate_limit: 2/hour}}
  keyed: {path: /keyed, upstream: echo, policies: {api_key: {header: x-key}}}
  "other.only": {path: /only, listeners: [other], respond: {status: 200, body: "<script>alert(1)</script>"}}
"""
    + ROUTES
)


class Console(Running):
    """`xds run` with a console, and a gateway of many routes."""

    def __init__(self, root: Path, backend: Backend) -> None:
        self.folder, self.port, self.console_port = root / "gateway", free_port(), free_port()
        self.values = {
            "port": self.port,
            "other": free_port(),
            "closed": free_port(),
            "echo": backend.address,
        }
        self.text = YAML
        write(self.folder, gateway=filled(YAML, **self.values))
        super().__init__(self.folder, root, "--console", f"127.0.0.1:{self.console_port}")
        self.url = f"http://127.0.0.1:{self.console_port}"

    def page(self, path: str, status: int = 200) -> str:
        response = httpx.get(f"{self.url}{path}", timeout=30)
        assert response.status_code == status
        return response.text


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Console]:
    with Console(tmp_path_factory.mktemp("console"), backend) as running:
        running.says("ready http")
        yield running


def test_the_pages_show_the_gateway(console: Console) -> None:
    overview = (
        wait_for(lambda: (text := console.page("/")) and "unhealthy" in text and text, "the health") or ""
    )
    assert all(f">{name}<" in overview for name in ("users", "other.only", "r299", "echo", "away"))
    route = console.page("/routes/users")
    assert "rate_limit" in route
    assert "gateway.yaml:" in route
    assert console.page("/routes/other.only")
    assert console.page("/routes/nothing", 404)
    tried = console.page(f"/try?method=GET&url=http://localhost:{console.port}/users/1")
    assert "forwarded to the upstream echo" in tried
    assert "is not a URL" in console.page("/try?url=users", 400)
    assert "is not a header" in console.page(f"/try?url=http://localhost:{console.port}/&headers=x", 400)
    assert "local" in console.page("/envoys")


def test_changes_are_told_with_who_has_them(console: Console) -> None:
    more = console.text + "  added: {path: /added, respond: {status: 204}}\n"
    write(console.folder, gateway=filled(more, **console.values))
    wait_for(lambda: "routes.added" in console.page("/changes"), "the change")
    wait_for(lambda: "1 of 1 Envoys have it" in console.page("/changes"), "the Envoy")
    write(console.folder, gateway=filled(more + "  bad: {pth: /x}\n", **console.values))
    wait_for(lambda: "did you mean" in console.page("/"), "the problem")
    assert httpx.get(f"http://127.0.0.1:{console.port}/added").status_code == 204
    write(console.folder, gateway=filled(console.text, **console.values))
    wait_for(
        lambda: "routes.added" in console.page("/changes") and "did you mean" not in console.page("/"),
        "the end",
    )


def test_a_tried_request_is_sent_to_the_gateway_only(console: Console, backend: Backend) -> None:
    form = {"method": "GET", "url": f"http://localhost:{console.port}/keyed", "headers": f"x-key: {KEY}"}
    own = {"origin": console.url}
    explained = httpx.post(f"{console.url}/try", data=form, headers=own, timeout=30)
    assert "forwarded to the upstream echo" in explained.text
    assert "Response:" not in explained.text
    assert "Response:" not in httpx.get(f"{console.url}/try", params={**form, "send": "yes"}, timeout=30).text
    form["send"] = "yes"
    sent = httpx.post(f"{console.url}/try", data=form, headers=own, timeout=30)
    assert "Response: 200" in sent.text
    wrong = httpx.post(f"{console.url}/try", data={**form, "headers": "x-key: no"}, headers=own, timeout=30)
    assert "Response: 401" in wrong.text
    assert "api_key_unknown" in wrong.text
    seen = len(backend.seen)
    elsewhere = httpx.post(
        f"{console.url}/try", data={**form, "url": f"http://{backend.address}/keyed"}, headers=own, timeout=30
    )
    assert elsewhere.status_code == 400
    assert len(backend.seen) == seen
    other = console.values["other"]
    script = httpx.post(
        f"{console.url}/try",
        data={"method": "GET", "url": f"http://localhost:{other}/only", "send": "yes"},
        headers=own,
        timeout=30,
    )
    assert "&lt;script&gt;" in script.text
    assert "<script>alert" not in script.text
    split = {**form, "headers": "x-a: 1\x0b2"}
    assert httpx.post(f"{console.url}/try", data=split, headers=own, timeout=30).status_code in (200, 400)
    assert (
        httpx.post(f"{console.url}/try", data={"body": "x" * 70_000}, headers=own, timeout=30).status_code
        == 413
    )


def test_strange_pages_and_hosts_are_refused(console: Console) -> None:
    form = {"method": "GET", "url": f"http://localhost:{console.port}/keyed"}
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": "null"}):
        assert httpx.post(f"{console.url}/try", data=form, headers=headers).status_code == 403
    for origin in ("http://[", f"{console.url}.evil", f"ftp://127.0.0.1:{console.console_port}"):
        assert httpx.post(f"{console.url}/try", data=form, headers={"origin": origin}).status_code == 403
    for host in ("evil.example", "[", "", "127.0.0.1@evil.example", "evil@127.0.0.1", "127.0.0.1/evil"):
        assert httpx.get(f"{console.url}/", headers={"host": host}).status_code == 421, host
    assert httpx.get(f"{console.url}/static/../web.py").status_code == 404
    page = httpx.get(f"{console.url}/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert KEY not in page.text


def test_connections_without_a_request_are_closed(console: Console) -> None:
    """They would use up the files that the control plane may open."""
    with ExitStack() as stack:
        address = ("127.0.0.1", console.console_port)
        idle = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(300)]
        assert all(one.recv(1) == b"" for one in reversed(idle))
    assert console.page("/")


def test_it_stops_without_a_word_while_pages_are_open(tmp_path: Path, backend: Backend) -> None:
    with ExitStack() as stack:
        with Console(tmp_path, backend) as console:
            console.says("ready http")
            client = stack.enter_context(httpx.Client(base_url=console.url, timeout=30))
            pages = [stack.enter_context(client.stream("GET", "/live")) for _ in range(20)]
            assert {page.status_code for page in pages} == {200}
        assert "Traceback" not in console.log
        assert all(b"retry" in page.read() for page in pages)


def test_a_console_beyond_loopback_needs_its_token(tmp_path: Path, backend: Backend) -> None:
    folder = write(tmp_path / "gateway", gateway="listeners: {}\n")
    port, token = free_port(), tmp_path / "token"
    token.write_text("a-token-of-the-operators\n")
    arguments = ("--console", f"0.0.0.0:{port}", "--console-token", str(token), "--no-proxy", "--no-prove")
    with Running(folder, tmp_path, *arguments) as running:
        running.says("console http")
        url = f"http://127.0.0.1:{port}"
        for path in ("/", "/changes", "/live", "/static/console.js", "/?token=wrong"):
            assert httpx.get(f"{url}{path}").status_code == 401
        with httpx.Client(base_url=url, follow_redirects=True) as client:
            opened = client.get("/?token=a-token-of-the-operators")
            assert opened.status_code == 200
            assert "token" not in str(opened.url)
            assert client.get("/changes").status_code == 200
        bearer = {"authorization": "Bearer a-token-of-the-operators"}
        assert httpx.get(f"{url}/", headers=bearer).status_code == 200


def test_a_taken_port_is_an_error_only_if_it_was_asked_for(tmp_path: Path, console: Console) -> None:
    folder = write(tmp_path / "gateway", gateway="listeners: {}\n")
    running = Running(
        folder, tmp_path, "--console", f"127.0.0.1:{console.console_port}", "--no-proxy", "--no-prove"
    )
    with pytest.raises(Exception, match="--console"):
        running.start()


browser_only = pytest.mark.skipif(chromium.BINARY is None, reason="there is no Chromium; see make browser")


@browser_only
def test_a_person_searches_selects_and_watches(console: Console) -> None:
    with Chromium() as browser:
        browser.open(f"{console.url}/")
        shown = "[...document.querySelectorAll('#rows tr')].filter(row => !row.hidden).length"
        assert browser.run(shown) == 303
        browser.press("/", 191, "/")
        assert browser.run("document.activeElement.id") == "search"
        browser.type("rate_limit users")
        assert browser.run(shown) == 1
        assert browser.run("document.getElementById('shown').textContent") == "1 of 303"
        browser.run(
            "document.getElementById('search').value = ''; document.getElementById('search').dispatchEvent(new Event('input'))"
        )
        browser.run("document.querySelector('[data-upstream=away]').click()")
        assert browser.run(shown) == 150
        browser.run("document.querySelector('[data-upstream=away]').click()")
        assert browser.run(shown) == 303

        def lively() -> bool:
            httpx.get(f"http://localhost:{console.port}/r/0/x")
            cell = "document.querySelector('[data-route=r000] td.number').textContent"
            return bool(browser.run(cell)) and float(browser.run(cell)) > 0

        wait_for(lively, "a rate in the table")
        assert browser.run("Number(document.getElementById('total-rate').textContent) > 0")
        assert browser.run(
            "document.querySelector('[data-chart=rate] polyline').getAttribute('points').length > 0"
        )
        assert browser.faults == []


@browser_only
def test_the_form_works_with_the_keyboard_alone(console: Console) -> None:
    with Chromium() as browser:
        browser.open(f"{console.url}/try")
        browser.run("document.querySelector('input[name=url]').focus()")
        browser.type(f"http://localhost:{console.port}/users/1")
        browser.press("Enter", 13, "\r")
        wait_for(
            lambda: "forwarded to the upstream echo" in browser.run("document.body.textContent"),
            "the steps",
            also=(AssertionError,),  # the page is being replaced
        )
        browser.run("document.querySelector('[name=send]').focus()")
        browser.press("Enter", 13, "\r")
        wait_for(
            lambda: "Response: " in browser.run("document.body.textContent"),
            "the response",
            also=(AssertionError,),
        )
        for path in ("/", "/try", "/envoys", "/changes", "/limits", "/firewall", "/routes/users"):
            browser.open(f"{console.url}{path}")
            unnamed = "[...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea')].filter(one => !(one.textContent.trim() || one.labels?.length || one.getAttribute('aria-label'))).length"
            assert browser.run(unnamed) == 0, path
            assert browser.run("document.querySelectorAll('h1').length") == 1
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), path
        assert browser.faults == []
