"""The portal in a real browser: every page in both languages, both themes and two widths, checked by axe-core; try-it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib import resources
from itertools import product as all_of
from pathlib import Path

import pytest

from tests.support import chromium
from tests.support.backend import Backend
from tests.support.chromium import Chromium
from tests.support.market import Clock, Market
from tests.support.ports import free_port
from tests.support.running import Served
from tests.support.shop_portal import FILES, YAML, ShopPortal, shop_portal
from tests.support.wait import wait_for
from xds_server.billing.amounts import of_calls
from xds_server.gateway.model.products import Price, UnitPrice
from xds_server.marketplace import logins, notices, statements
from xds_server.marketplace.store import Marketplace

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="there is no Chromium; see make browser")

AXE = resources.files("axe_core_python").joinpath("axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
KEY = "a key for the browser"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
PAGES = {
    "catalogue": "/",
    "api": "/apis/orders",
    "guide": "/apis/orders/docs/guide",
    "docs": "/docs",
    "products": "/products",
    "product": "/products/shop",
    "applications": "/applications",
    "application": "",
    "organisations": "/organisations",
    "organisation": "/organisations/acme",
    "account": "/account",
    "usage": "/usage",
    "invoices": "/invoices",
    "invoice": "",
    "queue": "/manage",
    "manage-products": "/manage/products",
    "manage-product": "/manage/products/new",
    "users": "/manage/users",
    "revenue": "/manage/revenue",
    "notices": "/manage/notices",
    "audit": "/manage/audit",
    "login": "/login",
    "missing": "/apis/nothing",
}
PICTURES = Path(os.environ.get("XDS_PICTURES", ""))
"""Where pictures of the pages are written, if the variable is set: `make pictures` writes those of the docs."""


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    store = Marketplace(f"sqlite:///{tmp_path}/market.db", Clock(1_800_000_000))
    store.migrate()
    yield Market(store, Clock(1_800_000_000))
    store.close()


@pytest.fixture
def portal(market: Market, tmp_path: Path) -> Iterator[ShopPortal]:
    with shop_portal(market, tmp_path / "gateway") as served:
        yield served


def filled(portal: ShopPortal) -> dict[str, str]:
    """Add objects, so that no page is empty. Returns the paths of the pages."""
    market, ada = portal.market, portal.as_("ada")
    application = market.application()
    ada.post("/products/shop/subscribe", application=application.id, plan="gold", accepts_terms="yes")
    more = market.subscribe(application, market.product(terms=""))
    market.key(more)
    lines = [
        line.as_json() for line in of_calls(Price(currency="EUR", per_call=UnitPrice(amount=2)), "free", 9)
    ]
    with market.store.begin(market.actor("adm")) as now:
        notices.add_notice(now, "Maintenance", "On **Sunday**.")
        logins.invite(now, "new@example.com", organisation="acme", role="owner")
        invoice = statements.add(now, more, "2026-11", "EUR", lines, {"free": 9}, {})
    return {
        **PAGES,
        "application": f"/applications/{application.id}",
        "invoice": f"/invoices/{invoice.id}",
    }


def findings(browser: Chromium) -> list[str]:
    """What axe-core finds on the page, from the impact `serious` on."""
    browser.run(AXE + "; 0")
    options = json.dumps({"runOnly": RULES, "resultTypes": ["violations"]})
    result = browser.run(f"axe.run(document, {options}).then((one) => JSON.stringify(one.violations))")
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:200]} {node['failureSummary'][:300]}"
        for one in json.loads(result)
        if one["impact"] in ("serious", "critical", "moderate")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(("size", "theme"), list(all_of(SIZES, ("light", "dark"))))
def test_axe_finds_nothing_on_any_page(portal: ShopPortal, size: str, theme: str) -> None:
    pages = filled(portal)
    with portal.market.store.begin(portal.market.actor("adm")) as now:
        now.connection.exec_driver_sql("UPDATE market_users SET role = 'admin' WHERE name = 'Ada'")
    token = portal.as_("ada").token
    width, height = SIZES[size]
    found: dict[str, list[str]] = {}
    with Chromium(width, height, dark=theme == "dark") as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=size == "phone")  # fmt: skip
        browser.call("Network.setCookie", name="xds_portal", value=token, url=portal.address, httpOnly=True)
        for language, (name, path) in all_of(("en", "ko"), pages.items()):
            browser.call("Network.setCookie", name="language", value=language, url=portal.address)
            browser.open(portal.address + path)
            wait_for(lambda: browser.run("document.readyState") == "complete", path)
            if name == "missing":
                browser.faults.clear()  # Chromium reports the status 404
            assert browser.run("document.documentElement.lang") == language
            assert browser.run("document.documentElement.scrollWidth <= window.innerWidth"), (
                name,
                "too wide",
            )
            if problems := findings(browser):
                found[f"{name} {language}"] = problems
            if PICTURES.name and (name in ("api", "product", "application", "catalogue")):
                browser.picture(PICTURES / f"{name}-{language}-{size}-{theme}.png")
        assert browser.faults == []
    assert found == {}


@pytest.mark.parametrize(("size", "theme"), [("desktop", "light"), ("phone", "dark")])
def test_a_form_that_is_rejected_comes_back_as_it_was(portal: ShopPortal, size: str, theme: str) -> None:
    token = portal.as_("ada").token
    width, height = SIZES[size]
    with Chromium(width, height, dark=theme == "dark") as browser:
        browser.call("Network.setCookie", name="xds_portal", value=token, url=portal.address, httpOnly=True)
        browser.call("Network.setCookie", name="language", value="ko", url=portal.address)
        browser.open(f"{portal.address}/organisations")
        browser.run("document.getElementById('name').value = '새 <조직>'")
        browser.run("document.getElementById('slug').value = '조직'")
        browser.run("document.querySelector('form.stack button').click()")
        wait_for(lambda: browser.run("document.getElementById('rejected') !== null"), "the form")
        assert browser.run("document.getElementById('name').value") == "새 <조직>"
        assert browser.run("document.getElementById('slug').value") == "조직"
        assert browser.run("document.getElementById('slug').ariaInvalid") == "true"
        assert browser.run("document.getElementById('rejected').textContent").startswith("슬러그: 영문")
        assert findings(browser) == []
        if PICTURES.name:
            browser.picture(PICTURES / f"rejected-{size}-{theme}.png")


def test_a_call_is_tried_from_the_page_through_the_gateway(
    tmp_path: Path, backend: Backend, market: Market
) -> None:
    """The page and the gateway have different origins, so the browser asks the gateway first (CORS)."""
    api = free_port()
    text = YAML.replace("port: 8080", f"port: {api}, address: 127.0.0.1").replace("http://api.example", f"http://127.0.0.1:{api}")  # fmt: skip
    text = text.replace("127.0.0.1:1", backend.address) + f"consumers: {{me: {{api_keys: [{{sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}]}}}}\n"  # fmt: skip
    with shop_portal(market, tmp_path / "portal", text) as portal:
        for name, content in FILES.items():
            file = tmp_path / "gateway" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
        gateway = Served(tmp_path, text, url=portal.address)
        gateway.port = api
        gateway.write("1")
        with gateway, Chromium() as browser:
            gateway.says("ready http://")
            browser.open(f"{portal.address}/apis/orders")
            browser.run(f"document.getElementById('try-key').value = {json.dumps(KEY)}")
            browser.run("document.getElementById('try-path').value = '/orders/7?x=1'")
            browser.run("document.querySelector('#try-form button').click()")
            wait_for(
                lambda: "HTTP 200" in browser.run("document.getElementById('try-answer').textContent"), "200"
            )
            answer = browser.run("document.getElementById('try-answer').textContent")
            assert '"/orders/7?x=1"' in answer
            assert KEY not in browser.run("location.href")
            browser.run("document.getElementById('try-key').value = 'wrong'")
            browser.run("document.querySelector('#try-form button').click()")
            wait_for(
                lambda: "HTTP 401" in browser.run("document.getElementById('try-answer').textContent"), "401"
            )
            assert "api_key_unknown" in browser.run("document.getElementById('try-answer').textContent")
