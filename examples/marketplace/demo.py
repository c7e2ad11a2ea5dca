"""`make demo-portal` runs the gateway and the portal of this example with sample data, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import urllib3

from xds_server.billing import months
from xds_server.billing.closing import SETTLED, close_month
from xds_server.billing.usage_counts import counted_by
from xds_server.errors import EnvironmentFailed
from xds_server.marketplace import applications, logins, people, products, subscriptions
from xds_server.marketplace.actor import COMMAND
from xds_server.marketplace.errors import NotFound
from xds_server.marketplace.store import Marketplace
from xds_server.usage import latency
from xds_server.usage.rollup import Counted
from xds_server.usage.spool import Position
from xds_server.usage.store import Store

HERE = Path(__file__).resolve().parent
PORT = int(os.environ.get("GATEWAY_PORT", "8080"))
PORTAL_PORT = int(os.environ.get("PORTAL_PORT", "19090"))
PORTAL = f"http://localhost:{PORTAL_PORT}"
LINES = """
The portal is at {portal}. There is no OpenID provider here, so these links let you in, each once:

  a developer   {portal}/invitations/{developer}
  a publisher   {portal}/invitations/{publisher}
  an admin      {portal}/invitations/{admin}

A key of the developer's application works at once:

  curl -i http://localhost:{port}/orders -H 'x-api-key: {key}'

As the developer, replace it under "My applications": the old one gets 401 within a second. As the publisher, approve the
subscription that waits under "Manage". Then break {folder}/gateway.yaml on purpose. Press Ctrl-C to end.
"""


def main() -> int:
    """Run until Ctrl-C or SIGTERM. Returns the exit code of the portal."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xds-marketplace-")))
        store, usage = f"sqlite:///{folder}/marketplace.db", f"sqlite:///{folder}/usage.db"
        environment = {**os.environ, "PORTAL": PORTAL, "GATEWAY": f"http://localhost:{PORT}"}
        xds, gateway = (sys.executable, "-m", "xds_server"), str(HERE / "gateway")
        where = ("--usage-store", usage, "--usage-spool", str(folder / "spool"), "--marketplace", store)
        listen = ("--listen", f"127.0.0.1:{PORTAL_PORT}")
        marketplace = Marketplace(store)
        marketplace.migrate()
        stack.callback(marketplace.close)
        counted = Store(usage)
        counted.migrate()
        stack.callback(counted.close)
        running = [
            subprocess.Popen((*xds, "run", gateway, *where, *sys.argv[1:]), env=environment),
            subprocess.Popen(
                (*xds, "portal", "run", gateway, "--store", store, "--usage-store", usage, *listen),
                env=environment,
            ),
        ]
        signal.signal(signal.SIGTERM, lambda *_: [one.terminate() for one in running])
        try:
            _until_products(marketplace, running)
            links = _people(marketplace)
            key = _subscriptions(marketplace)
            _history(counted)
            now = time.time()
            close_month(
                marketplace, counted_by(counted), months.before(months.of(now)), max(now, _settled(now))
            )
            _until_key(key)
            print(LINES.format(portal=PORTAL, port=PORT, key=key, folder=gateway, **links), flush=True)
            return running[1].wait()
        except KeyboardInterrupt:
            return 0
        finally:
            for one in running:
                one.send_signal(signal.SIGINT)
            for one in running:
                one.wait()


def _settled(now: float) -> float:
    return months.end(months.before(months.of(now))) + SETTLED


def _until_products(marketplace: Marketplace, running: list[subprocess.Popen[bytes]]) -> None:
    """Wait until the portal has taken the products of the gateway."""
    while True:
        if any(one.poll() is not None for one in running):
            raise EnvironmentFailed("a process of the demo has ended; see its messages above")
        with marketplace.read(COMMAND) as now:
            try:
                products.product(now, "commerce")
            except NotFound:
                time.sleep(0.1)
            else:
                return


def _people(marketplace: Marketplace) -> dict[str, str]:
    """Add an organisation, and invite three people. Returns the tokens of their links."""
    with marketplace.begin(COMMAND) as now:
        people.add_organisation(now, "Acme", "acme")
        _, developer = logins.invite(now, "dora@example.com", organisation="acme", role="owner")
        _, publisher = logins.invite(now, "pat@example.com", role="publisher")
        _, admin = logins.invite(now, "ada@example.com", role="admin")
    return {"developer": developer, "publisher": publisher, "admin": admin}


def _subscriptions(marketplace: Marketplace) -> str:
    """Add applications: one with a sandbox and a key, one that waits for approval, and one on the paid plan."""
    with marketplace.begin(COMMAND) as now:
        mobile = applications.add_application(now, "acme", "Mobile", description="The app for phones")
        sandbox = subscriptions.subscribe(now, mobile.id, "commerce", "sandbox", accepts_terms=True)
        waiting = applications.add_application(now, "acme", "Partners")
        subscriptions.subscribe(now, waiting.id, "commerce", "gold", accepts_terms=True)
        shop = applications.add_application(now, "acme", "Web shop")
        paid = subscriptions.subscribe(now, shop.id, "commerce", "gold", accepts_terms=True)
        subscriptions.approve(now, paid.id, "Welcome!")
        now.connection.exec_driver_sql(
            "UPDATE market_subscriptions SET started = started - 60 * 86400 WHERE consumer LIKE 'acme.web-shop%'"
        )
        return subscriptions.make_key(now, sandbox.id, "primary").secret


def _history(usage: Store) -> None:
    """Add calls of the last 60 days to the usage store."""
    hour = int(time.time()) // 3600 // 24 * 24 - 12
    durations = [0] * len(latency.COLUMNS)
    sums = {}
    for day in range(60):
        for status, calls, milliseconds in ((200, 4000 + day % 7 * 900, 12), (404, 20, 3), (500, 3, 900)):
            buckets = list(durations)
            buckets[latency.bucket(milliseconds)] = calls
            key = hour - 24 * day, "acme.web-shop.commerce", "gold", "orders", str(status)
            sums[key] = [calls, 300 * calls, 2000 * calls, milliseconds * calls, *buckets]
    usage.add("demo", Position(0, 0), Position(1, 1), (), Counted(sums, 0, frozenset(), 0), int(time.time()))


def _until_key(key: str) -> None:
    """Wait until the gateway takes the key."""
    pool = urllib3.PoolManager(retries=False)
    while True:
        try:
            answer = pool.request(
                "GET", f"http://localhost:{PORT}/orders", headers={"x-api-key": key}, timeout=5
            )
            if answer.status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
