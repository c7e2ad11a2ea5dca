"""browser_challenge through the real Envoy: proofs that count and that do not, and a real browser that computes one."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support import chromium
from tests.support.backend import Backend
from tests.support.chromium import Chromium
from tests.support.geoip import write_asns
from tests.support.running import Served
from tests.support.wait import wait_for

GATEWAY = """
listeners: {http: {port: $port, address: 127.0.0.1, trusted_proxies: 1}}
geoip: {asns: $folder/asns.mmdb}
upstreams: {echo: {endpoints: ["$echo"]}}
consumers: {acme: {api_keys: [{sha256: "$digest"}]}}
policies: {browser_challenge: {difficulty: 8, valid_for: 1h}}
routes:
  open: {path: /open, upstream: echo}
  more: {path: /more, upstream: echo, policies: {browser_challenge: {difficulty: 12, valid_for: 30d}}}
  hosters: {path: /hosters, upstream: echo, policies: {browser_challenge: {difficulty: 8, only: {asns: [64501]}, exempt: {addresses: [192.0.2.200]}}}}
  monitored: {path: /monitored, upstream: echo, policies: {browser_challenge: {exempt: {addresses: [192.0.2.7, "2001:db8::/64"]}}}}
  socket: {path: /socket, upstream: echo, websocket: true}
  paged: {path: /paged, respond: {body: "the page itself"}}
  keyed: {path: /keyed, upstream: echo, policies: {api_key: true}}
  off: {path: /off, upstream: echo, policies: {browser_challenge: off}}
  version: {path: /version, respond: {body: "$version"}, policies: {browser_challenge: off}}
"""
ASNS = {"192.0.2.0/25": 64500, "192.0.2.128/25": 64501}
HOME, HOSTED, MONITOR = "192.0.2.7", "192.0.2.201", "192.0.2.200"
PAGE = {"accept": "text/html,application/xhtml+xml;q=0.9"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("challenge")
    write_asns(folder / "asns.mmdb", ASNS)
    with Backend() as backend:
        running = Served(folder, GATEWAY, echo=backend.address, folder=folder, digest="0" * 64)
        running.write("1")
        with running:
            running.until("1")
            yield running


def get(served: Served, path: str, address: str = HOME, **headers: str) -> httpx.Response:
    return httpx.get(f"{served.url}{path}", headers={"x-forwarded-for": address, **headers})


def data(page: httpx.Response) -> dict[str, str]:
    """The values that the script of a page reads."""
    assert page.status_code == 403
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    return dict(re.findall(r'data-(\w+)="([^"]*)"', page.text))


def number_for(seed: str, bits: int) -> int:
    """The first number whose proof has exactly this many zero bits, so that it is no proof for more."""
    for number in itertools.count():
        digest = int.from_bytes(hashlib.sha256(f"{seed}.{number}".encode()).digest())
        if digest.bit_length() == 256 - bits:
            return number
    raise AssertionError


def cookie_for(page: httpx.Response, bits: int | None = None) -> str:
    """The cookie that the script of a page would set."""
    values = data(page)
    number = number_for(values["seed"], bits or int(values["bits"]))
    return f"{values['cookie']}={values['time']}.{number}"


def seed_of(host: str, network: str, at: int) -> str:
    return hashlib.sha256(f"{host}\n{network}\n{at}".encode()).hexdigest()


def test_a_page_asks_a_browser_for_a_proof_and_the_proof_opens_the_route(served: Served) -> None:
    page = get(served, "/open", **PAGE)
    assert page.headers["x-gateway-reason"] == "browser_challenge_required"
    assert page.headers["cache-control"] == "no-store"
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    assert data(page)["seconds"] == "3600"
    cookie = cookie_for(page)
    answer = get(served, "/open", cookie=f"other=1; {cookie}; last=2")
    assert answer.status_code == 200
    assert answer.json()["path"] == "/open"


def test_other_clients_than_browsers_get_a_problem(served: Served) -> None:
    socket = {**PAGE, "upgrade": "websocket", "connection": "upgrade"}
    for method, path, headers in (("GET", "/open", {}), ("POST", "/open", PAGE), ("GET", "/socket", socket)):
        answer = httpx.request(method, f"{served.url}{path}", headers={"x-forwarded-for": HOME, **headers})
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["reason"] == "browser_challenge_required"


def test_a_head_request_gets_the_headers_of_the_page(served: Served) -> None:
    answer = httpx.head(f"{served.url}/open", headers={"x-forwarded-for": HOME, **PAGE})
    assert (answer.status_code, answer.content) == (403, b"")
    assert answer.headers["x-gateway-reason"] == "browser_challenge_required"


def test_a_proof_counts_for_one_network_one_host_and_one_difficulty(served: Served) -> None:
    cookie = cookie_for(get(served, "/open", **PAGE))
    assert get(served, "/open", cookie=cookie).status_code == 200
    assert get(served, "/open", "192.0.2.8", cookie=cookie).status_code == 403
    assert get(served, "/open", cookie=cookie, host="other.test").status_code == 403
    assert get(served, "/more", cookie=cookie).status_code == 403
    harder = cookie_for(get(served, "/more", **PAGE))
    assert get(served, "/more", cookie=harder).status_code == 200
    assert get(served, "/open", cookie=harder).status_code == 200


def test_a_proof_counts_for_the_network_of_an_ipv6_client(served: Served) -> None:
    cookie = cookie_for(get(served, "/open", "2001:db8:0:1::7", **PAGE))
    assert cookie.startswith("gateway_challenge6=")
    for address in ("2001:db8:0:1::8", "2001:db8:0:1:ffff::1"):
        assert get(served, "/open", address, cookie=cookie).status_code == 200
    for address in ("2001:db8:0:2::7", "2001:db8::1:0:0:7", "192.0.2.7"):
        assert get(served, "/open", address, cookie=cookie).status_code == 403
    mapped = get(served, "/open", cookie=cookie_for(get(served, "/open", f"::ffff:{HOME}", **PAGE)))
    assert mapped.status_code == 200
    both = f"{cookie}; {cookie_for(get(served, '/open', **PAGE))}"
    assert get(served, "/open", HOME, cookie=both).status_code == 200
    assert get(served, "/open", "2001:db8:0:1::9", cookie=both).status_code == 200


def test_a_proof_ends_and_does_not_begin_in_the_future(served: Served) -> None:
    host, now = f"127.0.0.1:{served.port}", int(time.time())
    for made, status in ((now, 200), (now - 3500, 200), (now - 3600, 403), (now + 3600, 403)):
        number = number_for(seed_of(host, HOME, made), 8)
        answer = get(served, "/open", cookie=f"gateway_challenge4={made}.{number}")
        assert answer.status_code == status, made - now


@pytest.mark.parametrize(
    "value", ["", ".", "1.1", "a.b", "-1.5", "9" * 400 + ".1", "1." + "9" * 400, "1.1.1", "1e3.4", "0x10.1"]
)
def test_a_malformed_proof_is_none(served: Served, value: str) -> None:
    assert get(served, "/open", cookie=f"gateway_challenge4={value}").status_code == 403


def test_a_header_of_cookies_that_is_too_long_is_no_proof(served: Served) -> None:
    cookie = cookie_for(get(served, "/open", **PAGE))
    assert get(served, "/open", cookie=f"{'a' * 20_000}=1; {cookie}").status_code == 403


def test_only_some_clients_are_asked(served: Served) -> None:
    assert get(served, "/hosters", HOME).status_code == 200
    assert get(served, "/hosters", HOSTED).status_code == 403
    assert get(served, "/hosters", MONITOR).status_code == 200
    cookie = cookie_for(get(served, "/hosters", HOSTED, **PAGE))
    assert get(served, "/hosters", HOSTED, cookie=cookie).status_code == 200


def test_exempt_clients_are_not_asked(served: Served) -> None:
    for address, status in ((HOME, 200), ("2001:db8::9", 200), (HOSTED, 403), ("2001:db8:1::9", 403)):
        assert get(served, "/monitored", address).status_code == status
    assert get(served, "/off", HOSTED).status_code == 200


def test_the_challenge_comes_before_authentication(served: Served) -> None:
    assert get(served, "/keyed").json()["reason"] == "browser_challenge_required"
    cookie = cookie_for(get(served, "/keyed", **PAGE))
    assert get(served, "/keyed", cookie=cookie).json()["reason"] == "api_key_missing"


@pytest.mark.skipif(chromium.BINARY is None, reason="there is no Chromium; see make browser")
def test_a_browser_computes_the_proof_and_gets_the_page(served: Served) -> None:
    with Chromium() as browser:
        browser.call("Network.setUserAgentOverride", userAgent="test", acceptLanguage="ko-KR")
        browser.call("Page.navigate", url=f"{served.url}/paged")
        wait_for(
            lambda: "the page itself" in (browser.run("document.body?.innerText") or ""),
            "the page",
            also=(AssertionError,),  # the page may be replaced by the next one meanwhile
        )
        assert browser.run("document.cookie").startswith("gateway_challenge4=")
        assert not [one for one in browser.faults if not one.startswith("Failed to load resource")]
