"""From an invitation to a paid call, another key and a closed statement, with the real Envoy and every process killed once.

The statement equals the usage store, and that equals the requests that were sent.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.support.backend import Backend
from tests.support.folder import filled, write
from tests.support.ports import free_port
from tests.support.running import Served
from tests.support.server_process import ServerProcess
from tests.support.shop_portal import FILES, csrf_of
from tests.support.shop_portal import YAML as SHOP
from tests.support.usage import requests
from tests.support.wait import wait_for
from xds_server.billing import months
from xds_server.billing.closing import SETTLED, close_month
from xds_server.billing.usage_counts import counted_by
from xds_server.cli.main import main
from xds_server.marketplace.store import Marketplace
from xds_server.usage.store import Store

YAML = SHOP.replace("port: 8080", "port: $port, address: 127.0.0.1").replace("127.0.0.1:1", "$echo") + "telemetry: {usage: true}\n"  # fmt: skip


class Portal(ServerProcess):
    """`xds portal run` on a gateway's folder."""

    def __init__(self, folder: Path, logs: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        files = ("--store", f"sqlite:///{logs}/market.db", "--usage-store", f"sqlite:///{logs}/usage.db")
        command = ("portal", "run", str(folder), *files, "--listen", f"127.0.0.1:{port}")
        super().__init__("the portal", command, f"127.0.0.1:{port}", logs / "portal.log", "/healthz")

    def start(self) -> None:
        super().start()
        self.ready()


@pytest.fixture
def portal_port() -> int:
    return free_port()


@pytest.fixture
def gateway(tmp_path: Path, backend: Backend, portal_port: int) -> Iterator[Served]:
    where = ("--usage-store", f"sqlite:///{tmp_path}/usage.db", "--usage-spool", str(tmp_path / "spool"))
    url = f"http://127.0.0.1:{portal_port}"
    served = Served(tmp_path, YAML, *where, "--marketplace", f"sqlite:///{tmp_path}/market.db", echo=backend.address, url=url)  # fmt: skip
    for name, content in FILES.items():
        served.folder.mkdir(exist_ok=True)
        (served.folder / name).write_text(content)
    served.write("1")
    with served:
        served.says("ready http://")
        yield served


def kill(served: Served, command: str) -> None:
    assert served.process is not None
    listed = ["ps", "-o", "pid=,args=", "--ppid", str(served.process.pid)]
    lines = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()
    os.kill(next(int(line.split()[0]) for line in lines if command in line), signal.SIGKILL)


def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["portal", words[0], *words[1:], "--store", f"sqlite:///{tmp_path}/market.db"]) == 0
    return capsys.readouterr().out


def test_from_the_invitation_to_the_statement(
    tmp_path: Path, gateway: Served, portal_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Portal(gateway.folder, tmp_path, portal_port) as portal, httpx.Client(base_url=portal.url, timeout=30) as browser:  # fmt: skip
        wait_for(
            lambda: "slug=shop" in command(tmp_path, capsys, "product", "list"), "the product of the gateway"
        )
        link = command(tmp_path, capsys, "user", "invite", "dora@example.com").split("path=")[1].strip()
        browser.headers["origin"] = portal.url
        browser.post(link, data={"name": "Dora"})
        csrf = csrf_of(browser.get("/organisations"))

        def post(path: str, **form: str) -> httpx.Response:
            return browser.post(path, data={"csrf": csrf, **form})

        post("/organisations", name="Acme")
        organisation = re.search(r'<option value="([^"]+)">Acme', browser.get("/applications").text)
        assert organisation is not None
        application = post("/applications", organisation=organisation[1], name="Mobile").headers["location"]
        id_ = application.rpartition("/")[2]
        done = post("/products/shop/subscribe", application=id_, plan="gold", accepts_terms="yes")
        subscription = done.headers["location"].partition("#")[2]
        portal.stop(signal.SIGKILL)
        portal.start()
        command(tmp_path, capsys, "subscription", "approve", "acme.mobile.shop")
        key = re.search(r"xgk_[\w-]{43}", post(f"/subscriptions/{subscription}/keys", slot="primary").text)
        assert key is not None
        paid = _calls(gateway, key[0], 30)
        kill(gateway, "usage-server")
        paid += _calls(gateway, key[0], 30)
        again = re.search(r"xgk_[\w-]{43}", post(f"/subscriptions/{subscription}/keys", slot="primary").text)
        assert again is not None

        def ended() -> bool:
            nonlocal paid
            status = gateway.get("/orders/1", headers={"x-api-key": key[0]}).status_code
            paid += status == 200  # the key works for a moment
            return status == 401

        wait_for(ended, "the end of the key")
        kill(gateway, "policy-server")
        gateway.says("the policy server ended; it is started again")
        paid += _calls(gateway, again[0], 30)
        assert gateway.stop() == 0
    month = months.of(time.time())
    usage = f"sqlite:///{tmp_path}/usage.db"
    with closing(Store(usage, reads=True)) as counts:
        counted = counted_by(counts)("acme.mobile.shop", months.begin(month), months.end(month))
        assert sum(calls for (_, status), calls in counted.items() if status == 200) == paid
        market = Marketplace(f"sqlite:///{tmp_path}/market.db")
        (statement,) = close_month(market, counted_by(counts), month, months.end(month) + SETTLED).statements
        market.close()
    assert statement.calls == {"gold": paid}
    assert [(line["kind"], line["calls"], line["amount"]) for line in statement.lines] == [("monthly", 0, 2900), ("included", paid, 0)]  # fmt: skip
    assert requests(usage) >= paid


def _calls(gateway: Served, key: str, number: int) -> int:
    """Wait until a key works, and send this number of calls. Returns the number of calls that were answered with 200."""
    wanted = 0

    def works() -> bool:
        nonlocal wanted
        status = gateway.get("/orders/1", headers={"x-api-key": key}).status_code
        wanted += status == 200
        return status == 200

    wait_for(works, "the key")
    for _ in range(number):
        wanted += gateway.get("/orders/1", headers={"x-api-key": key}).status_code == 200
    return wanted


def test_the_portal_follows_changes_that_no_envoy_is_sent(tmp_path: Path, portal_port: int) -> None:
    """A price and a guide are no part of Envoy's configuration. Broken YAML leaves the last good state."""
    folder, url = tmp_path / "gateway", f"http://127.0.0.1:{portal_port}"
    text = filled(YAML, port=free_port(), echo="127.0.0.1:1", url=url)
    write(folder, FILES, gateway=text)
    with Portal(folder, tmp_path, portal_port) as portal, httpx.Client(base_url=url, timeout=30) as browser:
        wait_for(lambda: "EUR 29.00" in browser.get("/products/shop").text, "the product")
        write(folder, gateway=text.replace("monthly: 2900", "monthly: 3100"))
        wait_for(lambda: "EUR 31.00" in browser.get("/products/shop").text, "the other price")
        write(folder, {"guide.md": "# Other steps\n"})
        wait_for(lambda: "Other steps" in browser.get("/apis/orders").text, "the other guide")
        write(folder, gateway=text.replace("products:", "productss:"))
        portal.says("unknown section 'productss'")
        assert "EUR 31.00" in browser.get("/products/shop").text
        write(folder, gateway=text)
        wait_for(lambda: "EUR 29.00" in browser.get("/products/shop").text, "the first price")
