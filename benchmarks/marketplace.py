"""The marketplace with many people: its pages, the time from a key to its effect at Envoy, and memory."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import httpx

from benchmarks import marketplace_data as data
from benchmarks.marketplace_data import People
from benchmarks.tables import HEADS, row, show
from tests.support.logged_process import LoggedProcess
from tests.support.ports import free_port
from tests.support.postgres import Postgres
from tests.support.running import Running
from tests.support.wait import wait_for
from xds_server.marketplace import subscriptions
from xds_server.marketplace.actor import COMMAND
from xds_server.marketplace.store import Marketplace
from xds_server.usage.store import Store

RATE, SECONDS = 50, 12
"""Pages a second, in turn, and for how long."""
KEYS, CHANGES = 24, 1_000
"""Keys that are made and revoked, while there are so many other changes a minute."""
USAGE_PAGES = 10
_API = "/api/v1/subscriptions"


def main() -> None:
    """Print a table for each store."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _measure("SQLite", f"sqlite:///{root}/market.db", f"sqlite:///{root}/usage.db", root / "sqlite", 50)
        with Postgres() as postgres:
            _measure("PostgreSQL", postgres.url, postgres.url, root / "postgresql", 100)


def _measure(name: str, store: str, usage: str, root: Path, target: float) -> None:
    portal, port = f"http://127.0.0.1:{free_port()}", free_port()
    data.write_gateway(root / "gateway", port, portal)
    with ExitStack() as around:
        listed = _usage_store(usage)
        around.callback(listed.close)
        process, people = _filled_portal(root, store, usage, portal, listed, around)
        times = asyncio.run(_pages(portal, people))
        used = [_once(portal, "/usage?days=90", people.developer) for _ in range(USAGE_PAGES)]
        rows = [row(f"{page}: p99 (p50 {_median(some):.0f} ms)", _p99(some), target, " ms") for page, some in times.items() if page != "search"]  # fmt: skip
        rows.append(row(f"search: p99 (p50 {_median(times['search']):.0f} ms)", _p99(times["search"]), 30, " ms"))  # fmt: skip
        rows.append(row(f"usage over 90 days, {data.CALLS:,} calls: the longest of {USAGE_PAGES} (p50 {_median(used):.0f} ms)", max(used) * 1e3, 200, " ms"))  # fmt: skip
        rows.append(row("memory of the portal", _resident(process.pid), 150, " MiB"))
        gateway = around.enter_context(
            Running(root / "gateway", root, "--marketplace", store, "--envoy-workers", "1")
        )
        rows += _keys(gateway, port, portal, people, store)
    show(
        f"Marketplace in {name}: {data.APIS:,} APIs, {data.DEVELOPERS:,} developers, {data.SUBSCRIPTIONS_OF:,} subscriptions",
        HEADS,
        rows,
    )


def _usage_store(url: str) -> Store:
    store = Store(url)
    store.migrate()
    return store


def _filled_portal(
    root: Path, store: str, usage: str, portal: str, listed: Store, around: ExitStack
) -> tuple[subprocess.Popen[bytes], People]:
    """Start a portal, and fill its stores when it has taken the products of the gateway."""
    command = [sys.executable, "-m", "xds_server", "portal", "run", str(root / "gateway")]
    command += ["--store", store, "--usage-store", usage, "--listen", portal.removeprefix("http://")]
    running = around.enter_context(LoggedProcess(command, root / "portal.log"))
    marketplace = Marketplace(store)
    around.callback(marketplace.close)
    marketplace.migrate()
    wait_for(
        lambda: data.products_of(marketplace) == data.PRODUCTS_OF,
        lambda: f"the products; the log:\n{running.log[-3000:]}",
        120,
    )
    people = data.fill(marketplace)
    data.fill_usage(listed, people.subscriptions, int(time.time()) // 3600 + 1)
    assert running.process is not None
    return running.process, people


async def _pages(portal: str, people: People) -> Mapping[str, list[float]]:
    """Ask for pages at a steady rate. Returns the seconds from when each was due to its last byte."""
    pages = {
        "catalogue": ("/", ""),
        "API": ("/apis/api{}", people.developer),
        "search": ("/?q=st {}", people.developer),
        "product": ("/products/product{}", people.developer),
        "applications": ("/applications", people.developer),
        "application": (f"/applications/{people.application}", people.developer),
        "queue": ("/manage", people.publisher),
        "active subscriptions": ("/manage?state=active", people.publisher),
    }
    times: dict[str, list[float]] = {name: [] for name in pages}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

        async def ask(name: str, number: int, due: float) -> None:
            path, session = pages[name]
            headers = {"cookie": f"xds_portal={session}"} if session else {}
            async with client.get(f"{portal}{path.format(number % 100)}", headers=headers) as answer:
                assert answer.status == 200, (answer.status, await answer.text())
                assert answer.url.path == path.format(number % 100).partition("?")[0], answer.url
                await answer.read()
            times[name].append(time.perf_counter() - due)

        for name in pages:  # what a portal does for its first requests is not measured
            await ask(name, 0, 0.0)
            times[name].clear()
        start, waiting = time.perf_counter(), []
        for number, name in zip(range(RATE * SECONDS), itertools.cycle(pages), strict=False):
            due = start + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            waiting.append(asyncio.create_task(ask(name, number, due)))
        await asyncio.gather(*waiting)
    return times


def _once(portal: str, path: str, session: str) -> float:
    start = time.perf_counter()
    answer = httpx.get(f"{portal}{path}", headers={"cookie": f"xds_portal={session}"}, timeout=60)
    taken = time.perf_counter() - start
    assert answer.status_code == 200, answer.text
    return taken


def _keys(gateway: Running, port: int, portal: str, people: People, store: str) -> Iterator[tuple[str, ...]]:
    """Yield the times from a key to its effect, and memory."""
    wait_for(lambda: _known(gateway) == data.SUBSCRIPTIONS_OF - data.WAITING, "the subscriptions", 120)
    with (
        httpx.Client(base_url=portal, timeout=30, headers={"authorization": f"Bearer {people.token}"}) as api,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as envoy,
    ):
        _key(api, envoy, people.subscriptions[0])
        with _changes(store, people) as done:
            start = time.perf_counter()
            taken = [_key(api, envoy, people.subscriptions[number]) for number in range(KEYS)]
            rate = done() / (time.perf_counter() - start) * 60
    for at, what in ((0, "a key made → the first 200 by Envoy"), (1, "a key revoked → the first 401")):
        some = [one[at] for one in taken]
        yield row(f"{what}: p99 (p50 {_median(some):.0f} ms)", _p99(some), 1_000, " ms")
    yield ("other changes a minute meanwhile", f"{rate:.0f}", "", "")
    assert gateway.process is not None
    yield ("memory of the control plane", f"{_resident(gateway.process.pid):.0f} MiB", "", "")
    servers = [_resident(pid) for pid in _policy_servers(gateway.process.pid)]
    yield (f"memory of the policy server ({len(servers)} processes)", f"{sum(servers):.0f} MiB", "", "")


def _known(gateway: Running) -> int:
    return int(gateway.status()["marketplace"]["subscriptions"])


def _key(api: httpx.Client, envoy: httpx.Client, subscription: str) -> tuple[float, float]:
    """Make a key and revoke it. Returns the seconds from each request of the API to its effect at Envoy."""
    path = f"{_API}/{subscription}/keys/primary"
    api_name = int(subscription.rpartition("product")[2]) * (data.APIS // data.PRODUCTS_OF)
    start = time.perf_counter()
    made = api.post(path, json={})
    assert made.is_success, made.text
    key = made.json()["secret"]
    _until(envoy, f"/api{api_name}", key, 200)
    works = time.perf_counter() - start
    start = time.perf_counter()
    assert api.delete(path).is_success
    _until(envoy, f"/api{api_name}", key, 401)
    return works, time.perf_counter() - start


def _until(envoy: httpx.Client, path: str, key: str, status: int) -> None:
    def there() -> bool:
        return envoy.get(path, headers={"x-api-key": key}).status_code == status

    wait_for(there, f"{status} of {path}", 30)


@contextmanager
def _changes(store: str, people: People) -> Iterator[Callable[[], int]]:
    """Replace keys of other subscriptions at a steady rate, as another portal would.

    Yields a function that returns their number so far.
    """
    ended, marketplace, made = threading.Event(), Marketplace(store), 0

    def run() -> None:
        nonlocal made
        others = itertools.cycle(people.subscriptions[KEYS:])
        start = time.perf_counter()
        while not ended.wait(max(0.0, start + made * 60 / CHANGES - time.perf_counter())):
            with marketplace.begin(COMMAND) as now:
                subscriptions.make_key(now, next(others), "secondary")
            made += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: made
    finally:
        ended.set()
        thread.join()
        marketplace.close()


def _policy_servers(parent: int) -> Iterator[int]:
    listed = ["ps", "-o", "pid=,args=", "--ppid", str(parent)]
    for line in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines():
        if "policy-server" in line:
            yield int(line.split()[0])


def _resident(process: int) -> float:
    """Return the resident memory of a process and of those that it has started for its work, in MiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def _median(some: list[float]) -> float:
    return statistics.median(some) * 1e3


def _p99(some: list[float]) -> float:
    return sorted(some)[min(len(some) - 1, int(len(some) * 0.99))] * 1e3


if __name__ == "__main__":
    main()
